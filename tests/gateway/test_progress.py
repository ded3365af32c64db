"""What a person sees of long work: on a terminal, and in a log."""

from __future__ import annotations

import io
import logging

import pytest

from modelhub.serving.gateway import progress
from modelhub.serving.gateway.progress import Display


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_downloads_and_builds_are_shown_below_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "REDRAW_EVERY", 0.0)
    terminal = Terminal()
    display = Display(terminal)
    with display.download("iris") as tell:
        tell(1 << 20, 4 << 20)
        display.stream.write("a line of the log\n")
        assert display.tail is not None
        display.tail("Downloading numpy")
        tell(4 << 20, 4 << 20)
    display.step("environment built")
    display.close()
    shown = terminal.getvalue()
    assert "a line of the log" in shown
    assert "fetching iris" in shown
    assert "1 MiB of 4 MiB" in shown
    assert "Downloading numpy" in shown
    assert shown.endswith("\x1b[2K"), "the terminal is left as it was"


def test_what_a_program_has_said_goes_when_it_has_ended() -> None:
    terminal = Terminal()
    display = Display(terminal)
    assert display.tail is not None
    display.tail("Resolved 3 packages")
    display.tail("")
    terminal.truncate(0)
    display.stream.write("a line of the log\n")
    assert terminal.getvalue().lstrip("\0") == "a line of the log\n"


def test_elsewhere_a_long_download_is_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stream = io.StringIO()
    display = Display(stream)
    assert display.tail is None
    assert display.stream is stream
    with caplog.at_level(logging.INFO), display.download("iris") as tell:
        tell(1, 10)
        assert not caplog.messages
        monkeypatch.setattr(progress, "LOG_EVERY", -1.0)
        tell(5 << 20, 0)
    assert caplog.messages == ["fetching iris: 5 MiB"]
