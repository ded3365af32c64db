"""What a child process prints, taken into the log with the model's name in front: a line or a traceback per event."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import deque
from collections.abc import Iterable, Mapping

from .output_events import Event, Events

output_log = logging.getLogger("modelhub.output")

LINES_PER_SECOND = 200  # of one process; what is over is counted and said, not lost silently
KEPT = 20  # last lines, for the reason of a failure
#: A process that prints more than is logged must not take the gateway's time: of what is read at once only the last
#: bytes are looked at, and the next is read after some seconds. It waits for its pipe meanwhile.
LOOKED_AT, PAUSE = 1024, 0.005


class OutputReader:
    """Reads one pipe until its end. Lives on the event loop; never blocks the writer for long.

    `label` says on each event whose words these are, `fields` are further ones of it (model, version).
    """

    def __init__(self, label: str, logger: logging.Logger, fields: Mapping[str, str] | None = None) -> None:
        self.label = label
        self.tail: deque[str] = deque(maxlen=KEPT)
        self._log = logger
        self._extra = {**(fields or {}), "source": label}
        self._loop = asyncio.get_running_loop()
        self._reader, self.write_fd = os.pipe()
        os.set_blocking(self._reader, False)
        self._events = Events()
        self._timer: asyncio.TimerHandle | None = None
        self._second = 0
        self._lines = 0
        self._dropped = 0
        self._closed = False
        self._loop.add_reader(self._reader, self._read)

    def close_writer(self) -> None:
        """The child has its own copy now."""
        if self.write_fd >= 0:
            os.close(self.write_fd)
            self.write_fd = -1

    def _read(self) -> None:
        try:
            data = os.read(self._reader, 65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        if self._lines >= LINES_PER_SECOND and int(time.monotonic()) == self._second:
            data = self._last_of(data)
            self._loop.remove_reader(self._reader)
            self._loop.call_later(PAUSE, self._read_on)
        self._emit(self._events.feed(data, self._loop.time()))
        self._wait()

    def _read_on(self) -> None:
        if not self._closed:
            self._loop.add_reader(self._reader, self._read)

    def _last_of(self, data: bytes) -> bytes:
        """The end of it, from the end of a line on. What is before that is counted only."""
        cut = data.rfind(b"\n", 0, -LOOKED_AT)
        if cut <= 0:
            return data
        self._drop(data.count(b"\n", 0, cut))
        return data[cut:]

    def _wait(self) -> None:
        """Look again when what is not whole has waited for long enough."""
        due = self._events.due
        if due is None or (self._timer is not None and self._timer.when() <= due):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(due, self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        self._emit(self._events.expire(self._loop.time()))
        self._wait()

    def _emit(self, events: Iterable[Event]) -> None:
        for event in events:
            self.tail.extend(event.text.splitlines()[-KEPT:])
            second = int(time.monotonic())
            if second != self._second:
                self._report_dropped()
                self._second, self._lines = second, 0
            if self._lines >= LINES_PER_SECOND:
                self._drop(event.lines)
                continue
            self._lines += event.lines
            self._log.log(logging.WARNING if event.trace else logging.INFO, "%s", event.text, extra=self._extra)

    def _drop(self, lines: int) -> None:
        if not self._dropped:
            self._loop.call_later(1, self._report_dropped)
        self._dropped += lines

    def _report_dropped(self) -> None:
        if self._dropped:
            self._log.warning(
                "%d more lines were printed than the %d per second that are logged",
                self._dropped,
                LINES_PER_SECOND,
                extra=self._extra,
            )
            self._dropped = 0

    def close(self) -> None:
        """Read what is left, then end. Safe to call twice."""
        self.close_writer()
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._reader)
        try:
            while data := os.read(self._reader, 65536):
                self._emit(self._events.feed(data, self._loop.time()))
        except OSError:
            pass  # empty, or its writer lives on in a process that was left behind
        os.close(self._reader)
        self._emit(self._events.end())
        if self._timer is not None:
            self._timer.cancel()
        self._report_dropped()
