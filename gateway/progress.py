"""Long work, shown: downloads and builds. On a terminal live below the log, elsewhere a log line now and then."""

from __future__ import annotations

import io
import logging
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO, cast

from ..config.quantities import human_size

if TYPE_CHECKING:
    from rich.live import Live

log = logging.getLogger("gateway.progress")

#: Seconds between two lines about one download where nobody watches.
LOG_EVERY = 10.0
#: Seconds between two drawings at least.
REDRAW_EVERY = 0.1
_BAR = 24
_TAIL_LINES = 6


class Display:
    """One per gateway. `stream` is where the log goes, so that log lines and what is live do not mix."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._out = stream or sys.stderr
        self._terminal = self._out.isatty()
        self._downloads: dict[str, tuple[int, int]] = {}
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._live: Live | None = None
        self._shown = 0.0
        self.stream = cast("TextIO", _Above(self)) if self._terminal else self._out

    @contextmanager
    def download(self, label: str) -> Iterator[Callable[[int, int], None]]:
        """Yields what is told (bytes done, bytes in all; 0: unknown) while a download is under way."""
        said = time.monotonic()

        def progress(done: int, total: int) -> None:
            nonlocal said
            if self._terminal:
                self._downloads[label] = (done, total)
                self._show()
            elif time.monotonic() - said > LOG_EVERY:
                said = time.monotonic()
                log.info("fetching %s: %s", label, _amount(done, total))

        try:
            yield progress
        finally:
            if self._downloads.pop(label, None) is not None:
                self._show()

    @property
    def tail(self) -> Callable[[str], None] | None:
        """Takes the lines of a build as they come, and "" when a program has ended; None where nobody watches."""
        return self._add_line if self._terminal else None

    def step(self, line: str) -> None:
        """A step of a build is done: one line of the log; what was live of it goes."""
        self._tail.clear()
        self._show()
        log.info("%s", line)

    def _add_line(self, line: str) -> None:
        if line:
            self._tail.append(line)
        else:
            self._tail.clear()
        self._show()

    def _show(self) -> None:
        """Draw what is under way; nothing under way: leave the terminal as it was."""
        if not self._downloads and not self._tail:
            if self._live is not None:
                self._live.stop()
                self._live = None
            return
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        if self._live is None:
            console = Console(file=self._out)
            self._live = Live(console=console, transient=True, auto_refresh=False, redirect_stderr=False)
            self._live.start()
        elif time.monotonic() - self._shown < REDRAW_EVERY:
            return
        self._shown = time.monotonic()
        lines = [f"fetching {label} {_bar(*amount)}" for label, amount in self._downloads.items()]
        lines += [f"  {line}" for line in self._tail]
        self._live.update(Text("\n".join(lines), style="dim", overflow="ellipsis", no_wrap=True), refresh=True)

    def write_above(self, text: str) -> None:
        """A piece of the log, above what is live."""
        if self._live is None:
            self._out.write(text)
            return
        from rich.text import Text

        self._live.console.print(Text.from_ansi(text.rstrip("\n")), soft_wrap=True)

    def close(self) -> None:
        self._downloads.clear()
        self._tail.clear()
        self._show()


class _Above(io.TextIOBase):
    """The log's stream on a terminal."""

    def __init__(self, display: Display) -> None:
        self._display = display

    def write(self, text: str) -> int:
        if text.strip("\n"):
            self._display.write_above(text)
        return len(text)

    def isatty(self) -> bool:
        return True


def _amount(done: int, total: int) -> str:
    return f"{human_size(done)} of {human_size(total)}" if total else human_size(done)


def _bar(done: int, total: int) -> str:
    if not total:
        return human_size(done)
    filled = min(round(_BAR * done / total), _BAR)
    return f"{'━' * filled}{'╺' * (_BAR - filled)} {_amount(done, total)}"
