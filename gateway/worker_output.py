"""What a child process prints, taken line by line into the log with the model's name in front."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import deque

MAX_LINE = 4096  # characters of one line that reach the log
LINES_PER_SECOND = 200  # of one process; what is over is counted and said, not lost silently
KEPT = 20  # last lines, for the reason of a failure


class OutputReader:
    """Reads one pipe until its end. Lives on the event loop; never blocks the writer for long."""

    def __init__(self, label: str, logger: logging.Logger) -> None:
        self.label = label
        self.tail: deque[str] = deque(maxlen=KEPT)
        self._log = logger
        self._loop = asyncio.get_running_loop()
        self._reader, self.write_fd = os.pipe()
        os.set_blocking(self._reader, False)
        self._partial = b""
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
        *lines, self._partial = (self._partial + data).split(b"\n")
        if len(self._partial) > MAX_LINE * 4:
            lines.append(self._partial)
            self._partial = b""
        for line in lines:
            self._emit(line)

    def _emit(self, raw: bytes) -> None:
        text = raw.decode("utf-8", "replace").rstrip()
        if not text:
            return
        if len(text) > MAX_LINE:
            text = f"{text[:MAX_LINE]}… ({len(text) - MAX_LINE} more characters)"
        self.tail.append(text)
        second = int(time.monotonic())
        if second != self._second:
            self._report_dropped()
            self._second, self._lines = second, 0
        self._lines += 1
        if self._lines > LINES_PER_SECOND:
            if not self._dropped:
                self._loop.call_later(1, self._report_dropped)
            self._dropped += 1
            return
        self._log.info("%s", text, extra={"source": self.label})

    def _report_dropped(self) -> None:
        if self._dropped:
            self._log.warning(
                "%d more lines were printed than the %d per second that are logged",
                self._dropped,
                LINES_PER_SECOND,
                extra={"source": self.label},
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
                *lines, self._partial = (self._partial + data).split(b"\n")
                for line in lines:
                    self._emit(line)
        except OSError:
            pass  # empty, or its writer lives on in a process that was left behind
        os.close(self._reader)
        if self._partial:
            self._emit(self._partial)
        self._report_dropped()
