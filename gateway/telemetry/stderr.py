"""Standard error as the log's way out: whoever logs never waits for whoever reads.

A pipe that nobody empties holds 64 KiB, and a write into a full one waits: on the event loop, everything would. So what
does not go out at once is kept, up to MAX_HELD, and a thread writes it; what finds no room is counted, and said once
there is room.
What native code prints by itself (gRPC's core does when a process is forked) becomes lines of the log like others.
Opened by `server.run` for as long as the gateway runs.
"""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import os
import select
import stat
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator

log = logging.getLogger("modelhub.server")
printed = logging.getLogger("modelhub.output")

#: Characters that are kept for a reader that is slow.
MAX_HELD = 1 << 20
#: Seconds that what is left is given at the end.
FLUSH_WITHIN = 1.0
#: Seconds that a file, which cannot say whether it is ready, is given for a line: most take some microseconds. One that
#: took longer is not waited for again before it has caught up.
FILE_WITHIN = 0.005
#: Bytes that a pipe takes at once, or not at all, where it says that it is ready (PIPE_BUF).
_AT_ONCE = 4096
#: Bytes that one write is given, so that a slow reader frees room piece by piece.
_PIECE = 1 << 16
#: A line of native code that is longer is cut.
_LONGEST_LINE = 4096

_STDERR = 2


class Writer(io.TextIOBase):
    """A text stream over a descriptor whose `write` never waits; from any thread."""

    def __init__(self, descriptor: int, *, terminal: bool = False, most: int = MAX_HELD) -> None:
        self._descriptor = descriptor
        self._terminal = terminal
        self._most = most
        self._held: deque[str] = deque()
        self._size = 0
        self._changed = threading.Condition()
        self._ending = False
        self._writing = False
        self._file = stat.S_ISREG(os.fstat(descriptor).st_mode)
        self._behind = False
        #: Lines that found no room; all of them, and those that have not been said yet.
        self.dropped = self._unsaid = 0
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def write(self, text: str) -> int:
        with self._changed:
            if self._went_at_once(text):
                return len(text)
            if self._size + len(text) > self._most or self._ending:
                lines = max(text.count("\n"), 1)
                self.dropped += lines
                self._unsaid += lines
                return len(text)
            self._held.append(text)
            self._size += len(text)
            self._changed.notify_all()
            if self._file and not self._behind:
                self._behind = not self._changed.wait_for(self._is_done, FILE_WITHIN)
        return len(text)

    def _is_done(self) -> bool:
        return not self._held and not self._writing

    def _went_at_once(self, text: str) -> bool:
        """Into a pipe, a socket or a terminal that is ready, where nothing waits before it."""
        if self._file or self._ending or self._most < 0 or not self._is_done() or self._unsaid:
            return False
        data = text.encode("utf-8", "backslashreplace")
        if len(data) > _AT_ONCE:
            return False
        try:
            if not select.select([], [self._descriptor], [], 0)[1]:
                return False
            written = os.write(self._descriptor, data)
        except (OSError, ValueError):  # or a number that select does not know
            return False
        if written < len(data):
            self._held.append(data[written:].decode("utf-8", "replace"))
            self._size += len(self._held[-1])
            self._changed.notify_all()
        return True

    def isatty(self) -> bool:
        return self._terminal

    def writable(self) -> bool:
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"

    def end(self) -> None:
        """Write what is left, for FLUSH_WITHIN at most; what comes now is dropped."""
        until = time.monotonic() + FLUSH_WITHIN
        with self._changed:
            self._changed.wait_for(self._is_done, until - time.monotonic())
            self._ending = True
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._writing = False
                self._behind = self._behind and bool(self._held)
                self._changed.notify_all()
                while not self._held and not self._ending:
                    self._changed.wait()
                if not self._held:
                    return
                text = self._held.popleft()
                self._size -= len(text)
                self._writing = True
                unsaid = 0
                if self._size < self._most // 2:
                    unsaid, self._unsaid = self._unsaid, 0
            if not self._put(text.encode("utf-8", "backslashreplace")):
                self._give_up()
                return
            if unsaid:
                log.warning(
                    "%d lines of the log were dropped: standard error was read too slowly",
                    unsaid,
                    extra={"dropped": unsaid},
                )

    def _put(self, data: bytes) -> bool:
        """Whether all of it went out; it waits for the reader."""
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._descriptor, view[:_PIECE]) :]
            except OSError as error:
                if error.errno != errno.EAGAIN:
                    return False
                with contextlib.suppress(OSError):  # somebody else has made it non-blocking
                    select.select([], [self._descriptor], [], 1.0)
        return True

    def _give_up(self) -> None:
        """Whoever read is gone for good."""
        with self._changed:
            self.dropped += len(self._held)
            self._held.clear()
            self._size, self._most = 0, -1
            self._writing = False
            self._changed.notify_all()


_current: Writer | None = None


def dropped() -> int:
    """Lines of the log that were dropped since the start."""
    return _current.dropped if _current is not None else 0


@contextlib.contextmanager
def opened() -> Iterator[Writer]:
    """Until the end of the block standard error is this writer's; what else is printed there becomes lines of it."""
    global _current
    ensure_streams()
    terminal = sys.stderr.isatty()
    sys.stderr.flush()
    own = os.dup(_STDERR)
    writer = _current = Writer(own, terminal=terminal)
    reader = None if terminal else _Printed()
    try:
        yield writer
    finally:
        sys.stderr.flush()
        if reader is not None:
            os.dup2(own, _STDERR)
            reader.end()
        writer.end()


def ensure_streams() -> None:
    """What was closed before we began leads nowhere: else a file or socket of ours would get its number.

    As early as can be; nothing happens where all are open.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)
            os.dup2(nowhere, number, inheritable=True)
            if nowhere > _STDERR:
                os.close(nowhere)
            setattr(sys, name, open(number, "r" if number == 0 else "w", closefd=False))  # noqa: SIM115


class _Printed:
    """Takes descriptor 2's place: whatever is written there by other means than the log, line by line."""

    def __init__(self) -> None:
        self._reader, writer = os.pipe()
        os.dup2(writer, _STDERR, inheritable=True)
        os.close(writer)
        self._thread = threading.Thread(target=self._run, name="standard error", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Descriptor 2 has been put back: read what is left."""
        self._thread.join(FLUSH_WITHIN)  # a child that has it may live on

    def _run(self) -> None:
        rest = b""
        while data := os.read(self._reader, _PIECE):
            *lines, rest = (rest + data).split(b"\n")
            rest = rest[:_LONGEST_LINE]
            for line in lines:
                self._say(line)
        self._say(rest)
        os.close(self._reader)

    @staticmethod
    def _say(line: bytes) -> None:
        text = line[:_LONGEST_LINE].decode("utf-8", "replace").rstrip()
        if text:
            printed.info("%s", text, extra={"source": "gateway"})
