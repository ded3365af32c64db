"""Long work, shown: downloads and builds. On a terminal live below the log, elsewhere a line now and then."""

from __future__ import annotations

import asyncio
import io
import logging
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TextIO, cast

from ...config.quantities import human_size

if TYPE_CHECKING:
    from rich.live import Live

log = logging.getLogger("gateway.progress")

#: Seconds between two lines about one download where nobody watches.
LOG_EVERY = 10.0
#: Seconds between two drawings at least; and at most, so that the rate of what has stopped becomes zero.
REDRAW_EVERY, REDRAW_AFTER = 0.1, 1.0
#: Seconds that a rate is measured over.
RATE_OVER = 10.0
_BAR = 24
_TAIL_LINES = 6


class Say(Protocol):
    """Takes a line about long work, and the fields that it has in a log."""

    def __call__(self, line: str, **fields: str) -> None: ...


def _to_log(line: str, **fields: str) -> None:
    log.info("%s", line, extra=fields)


class Display:
    """One per process, used in its event loop; `say` also from other threads.

    `out` is where the lines go that `say` takes (standard error, the log). Whoever writes them must write them to
    `stream`, so that they and what is live do not mix.
    """

    def __init__(self, out: TextIO | io.TextIOBase | None = None, say: Say | None = None) -> None:
        self._out = cast("TextIO", out or sys.stderr)
        self._terminal = self._out.isatty()
        self._downloads: list[_Download] = []
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._live: Live | None = None
        self._shown = 0.0
        self.stream = cast("TextIO", _Above(self)) if self._terminal else self._out
        self.say: Say = say or _to_log

    @contextmanager
    def download(self, label: str, **fields: str) -> Iterator[Callable[[int, int], None]]:
        """Yields what is told (bytes done, bytes in all; 0: unknown) while a download is under way.

        Nothing is shown before it is told something. `fields` are those of the lines in the log.
        """
        download = _Download(label)
        loop, period = asyncio.get_running_loop(), REDRAW_AFTER if self._terminal else LOG_EVERY
        timer: asyncio.TimerHandle | None = None

        def tick() -> None:
            nonlocal timer
            timer = loop.call_later(period, tick)
            if self._terminal:
                self._show()
            else:
                self.say(f"fetching {label}: {download.amount()}", **fields)

        def progress(done: int, total: int) -> None:
            nonlocal timer
            download.reached(done, total)
            if timer is None:
                timer = loop.call_later(period, tick)
                self._downloads.append(download)
            self._show()

        try:
            yield progress
        finally:
            if timer is not None:
                timer.cancel()
                self._downloads.remove(download)
                self._show()

    @property
    def tail(self) -> Callable[[str], None] | None:
        """Takes the lines of a build as they come, and "" when a program has ended; None where nobody watches."""
        return self._add_line if self._terminal else None

    def step(self, line: str) -> None:
        """A step of a build is done: one line; what was live of it goes."""
        self._tail.clear()
        self._show()
        self.say(line)

    def _add_line(self, line: str) -> None:
        if line:
            self._tail.append(line)
        else:
            self._show(now=True)  # a quick program's last lines have not been drawn yet
            self._tail.clear()
        self._show()

    def _show(self, *, now: bool = False) -> None:
        """Draw what is under way, where there is a terminal; nothing under way: leave it as it was.

        Not much more often than eyes can follow, unless it must be `now`.
        """
        if not self._terminal:
            return
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
        elif not now and time.monotonic() - self._shown < REDRAW_EVERY:
            return
        self._shown = time.monotonic()
        lines = [download.drawn() for download in self._downloads]
        lines += [f"  {line}" for line in self._tail]
        self._live.update(Text("\n".join(lines), style="dim", overflow="ellipsis", no_wrap=True), refresh=True)

    def write_above(self, text: str) -> None:
        """A piece of the log, above what is live."""
        live = self._live
        if live is None:
            self._out.write(text)
            return
        from rich.text import Text

        live.console.print(Text.from_ansi(text.rstrip("\n")), soft_wrap=True)

    def close(self) -> None:
        self._downloads.clear()
        self._tail.clear()
        self._show()


class _Download:
    """How far one download is, and how fast it goes on."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._done = self._total = 0
        #: (when, bytes done) of the last seconds; the first is what the rate is measured from.
        self._reached: deque[tuple[float, int]] = deque()

    def reached(self, done: int, total: int) -> None:
        self._done, self._total = done, total
        self._reached.append((time.monotonic(), done))

    def amount(self) -> str:
        """`12 MiB of 40 MiB, 1.5 MiB/s`"""
        of = f" of {human_size(self._total)}" if self._total else ""
        return f"{human_size(self._done)}{of}, {human_size(self._rate())}/s"

    def drawn(self) -> str:
        """The same behind its label, and a bar where it is known how much there is."""
        if not self._total:
            return f"fetching {self._label} {self.amount()}"
        filled = min(round(_BAR * self._done / self._total), _BAR)
        return f"fetching {self._label} {'━' * filled}{'╺' * (_BAR - filled)} {self.amount()}"

    def _rate(self) -> float:
        """Bytes per second."""
        now = time.monotonic()
        while len(self._reached) > 1 and self._reached[1][0] <= now - RATE_OVER:
            self._reached.popleft()
        since, done = self._reached[0]
        return (self._done - done) / (now - since) if now > since else 0.0


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
