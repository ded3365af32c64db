"""What a person sees of long work: on a terminal, and in a log."""

from __future__ import annotations

import asyncio
import io
import logging
import re
from types import SimpleNamespace

import pytest

from modelhub.serving.gateway.telemetry import display as progress
from modelhub.serving.gateway.telemetry.display import Display


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Lines:
    """Takes what is said; `another` waits for a line that comes from now on."""

    def __init__(self) -> None:
        self.said: list[tuple[str, dict[str, str]]] = []
        self._came = asyncio.Event()

    def __call__(self, line: str, **fields: str) -> None:
        self.said.append((line, fields))
        self._came.set()

    async def another(self) -> tuple[str, dict[str, str]]:
        self._came.clear()
        await self._came.wait()
        return self.said[-1]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Seconds, as the display counts them."""
    now = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    return now


@pytest.mark.allow_blocking
async def test_on_a_terminal_downloads_and_builds_are_shown_below_the_log(clock: SimpleNamespace) -> None:
    terminal = Terminal()
    display = Display(terminal)
    with display.download("iris") as tell:
        tell(1 << 20, 4 << 20)
        display.stream.write("a line of the log\n")
        assert display.tail is not None
        clock.seconds += 1
        display.tail("Downloading numpy")
        clock.seconds += 1
        tell(4 << 20, 4 << 20)
    display.step("environment built")
    display.close()
    shown = terminal.getvalue()
    assert "a line of the log" in shown
    assert re.search("fetching iris ━{6}╺{18} 1 MiB of 4 MiB, 0 B/s", shown)
    assert re.search("fetching iris ━{24} 4 MiB of 4 MiB, 1.5 MiB/s", shown)
    assert "Downloading numpy" in shown
    assert shown.endswith("\x1b[2K"), "the terminal is left as it was"


@pytest.mark.allow_blocking
async def test_two_downloads_of_one_name_are_two_and_leave_one_by_one(clock: SimpleNamespace) -> None:
    terminal = Terminal()
    display = Display(terminal)
    with display.download("iris") as tell:
        tell(1 << 20, 0)
        with display.download("iris") as tell_another:
            clock.seconds += 1
            tell_another(2 << 20, 0)
            assert terminal.getvalue().count("fetching iris") == 3
        terminal.truncate(0)
        clock.seconds += 1
        tell(3 << 20, 0)
        assert re.findall(r"fetching iris \S+ MiB", terminal.getvalue()) == ["fetching iris 3 MiB"]
    display.close()


@pytest.mark.allow_blocking
async def test_what_a_quick_program_has_said_is_seen_and_goes_when_it_has_ended(clock: SimpleNamespace) -> None:
    terminal = Terminal()
    display = Display(terminal)
    assert display.tail is not None
    for line in ("Resolved 3 packages", "+ numpy", ""):
        display.tail(line)
    assert "+ numpy" in terminal.getvalue()
    terminal.truncate(0)
    display.stream.write("a line of the log\n")
    assert terminal.getvalue().lstrip("\0") == "a line of the log\n"


async def test_elsewhere_a_download_is_a_line_now_and_then_also_while_nothing_comes(
    monkeypatch: pytest.MonkeyPatch, clock: SimpleNamespace
) -> None:
    monkeypatch.setattr(progress, "LOG_EVERY", 0.001)
    lines = Lines()
    display = Display(io.StringIO(), lines)
    assert display.tail is None
    with display.download("iris/3", model="iris", version="3") as tell:
        tell(0, 10 << 20)
        clock.seconds += 4
        tell(6 << 20, 10 << 20)
        told = ("fetching iris/3: 6 MiB of 10 MiB, 1.5 MiB/s", {"model": "iris", "version": "3"})
        assert await lines.another() == told
        clock.seconds += 60
        assert (await lines.another())[0] == "fetching iris/3: 6 MiB of 10 MiB, 0 B/s"


@pytest.mark.allow_blocking
async def test_what_is_on_disk_already_is_not_shown() -> None:
    lines, terminal = Lines(), Terminal()
    for display in (Display(io.StringIO(), lines), Display(terminal)):
        with display.download("iris"):
            pass
        display.close()
    assert (lines.said, terminal.getvalue()) == ([], "")


async def test_lines_go_to_the_log_where_nobody_takes_them(caplog: pytest.LogCaptureFixture) -> None:
    stream = io.StringIO()
    display = Display(stream)
    assert display.stream is stream
    with caplog.at_level(logging.INFO):
        display.step("environment built")
        display.say("fetching iris: 5 MiB, 0 B/s", model="iris")
    assert caplog.messages == ["environment built", "fetching iris: 5 MiB, 0 B/s"]
    assert caplog.records[1].model == "iris"  # type: ignore[attr-defined]
