"""What a process prints, taken apart into events for the log: pure, without a clock, a pipe or a log of its own.

A line is an event. A Python traceback is one event of many lines, the message's further lines and the exceptions
that it is chained to included; where it ends only time can tell, so whoever feeds it asks `due`. Of a line that
is written over again (`\\r`, a progress bar) only its last state counts. `output.py` reads the pipes.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

MAX_LINE = 4096  # characters of one line
MAX_TRACE = 12_000  # characters of a traceback: with its frame in JSON below the 16 KiB at which containers' logs cut
#: Seconds after which what is not whole comes out all the same: the beginning of a line, the state of a line that is
#: written over, a traceback without its exception's line, and what follows that line.
PARTIAL, REWRITTEN, OPEN, SETTLE = 1.0, 10.0, 1.0, 0.05

_BEGIN = re.compile(r"[\s|+]*(?:Exception Group )?Traceback \(most recent call last\):")
#: What faulthandler writes of a crash, or when it is asked (SIGUSR1): all of it at once.
_DUMP = re.compile(r"Fatal Python error: |(?:Current t|T)hread 0x[0-9a-f]+ .*\(most recent call first\):")
_CHAIN = (
    "During handling of the above exception, another exception occurred:",
    "The above exception was the direct cause of the following exception:",
)
#: Colours, and what moves a terminal's cursor.
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_])")


class Event(NamedTuple):
    """One event: a line, or a whole traceback."""

    text: str
    lines: int = 1
    trace: bool = False


class Events:
    """The events of one stream of bytes. Times are seconds of any one clock."""

    def __init__(self) -> None:
        self._partial = b""
        self._began = 0.0  # when the first byte of it came
        self._trace: _Trace | None = None

    def feed(self, data: bytes, now: float) -> Iterator[Event]:
        """The events that are whole with these bytes."""
        *lines, rest = (self._partial + data).split(b"\n")
        if lines or not self._partial:
            self._began = now
        if b"\r" in rest:
            rest = b"\r" + _last_state(rest) + (b"\r" if rest.endswith(b"\r") else b"")
        self._partial = rest
        for line in lines:
            yield from self._line(line, now)
        if len(self._partial) > MAX_LINE * 4:
            yield from self._end_partial(now)

    @property
    def due(self) -> float | None:
        """When `expire` is to be called; None: there is nothing to wait for."""
        times = [self._trace.due] if self._trace is not None else []
        if self._partial:
            times.append(self._partial_due)
        return min(times, default=None)

    @property
    def _partial_due(self) -> float:
        return self._began + (REWRITTEN if b"\r" in self._partial else PARTIAL)

    def expire(self, now: float) -> Iterator[Event]:
        """What has waited for the rest of it for long enough."""
        if self._partial and now >= self._partial_due:
            yield from self._end_partial(now)
        if self._trace is not None and now >= self._trace.due:
            yield from self._end_trace()

    def end(self) -> Iterator[Event]:
        """The last events; the stream has ended."""
        if self._partial:
            yield from self._end_partial(0.0)
        yield from self._end_trace()

    def _end_partial(self, now: float) -> Iterator[Event]:
        line, self._partial = self._partial, b""
        yield from self._line(line, now)

    def _end_trace(self) -> Iterator[Event]:
        trace, self._trace = self._trace, None
        if trace is not None:
            yield trace.event()

    def _line(self, raw: bytes, now: float) -> Iterator[Event]:
        text = _ESCAPES.sub("", _last_state(raw).decode("utf-8", "replace")).rstrip()
        if len(text) > MAX_LINE:
            text = f"{text[:MAX_LINE]}… ({len(text) - MAX_LINE} more characters)"
        begins, dumps = _BEGIN.match(text) is not None, _DUMP.match(text) is not None
        if self._trace is not None:
            if self._trace.take(text, begins, dumps, now):
                return
            yield from self._end_trace()
        if begins or dumps:
            self._trace = _Trace(text, dumps, now)
        elif text:
            yield Event(text)


def _last_state(line: bytes) -> bytes:
    """What a terminal would show at last of a line with carriage returns in it."""
    return line.rstrip(b"\r").rpartition(b"\r")[2]


class _Trace:
    """A traceback that is being printed: its first and its last lines, as many as MAX_TRACE allows."""

    def __init__(self, first: str, dump: bool, now: float) -> None:
        self.due = now + (SETTLE if dump else OPEN)
        self._dump = dump
        self._group = first[:1].isspace()  # an exception group: every line of it is indented
        self._said = False  # the line with the exception has come; its message may go on
        self._chained = False  # another traceback belongs to this one
        self._count = 0
        self._head: list[str] = []
        self._tail: deque[str] = deque()
        self._room, self._tail_size = MAX_TRACE // 2, 0
        self._cut = 0
        self._add(first)

    def take(self, line: str, begins: bool, dumps: bool, now: float) -> bool:
        """Whether the line belongs to it."""
        if begins if self._dump else dumps:
            return False
        if self._dump:
            self._add(line)
            self.due = now + SETTLE if dumps else self.due
            return True
        outside, chains = bool(line) and not line[0].isspace(), line in _CHAIN
        if outside and not chains and (self._group or begins) and not self._chained:
            return False
        self._add(line)
        if begins or chains:
            self._chained, self._group, self._said, self.due = chains, not outside, False, now + OPEN
        elif outside and not self._said:
            self._said, self.due = True, now + SETTLE
        return True

    def _add(self, line: str) -> None:
        self._count += 1
        size = len(line) + 1
        if self._room >= size and not self._tail:
            self._head.append(line)
            self._room -= size
            return
        self._tail.append(line)
        self._tail_size += size
        while self._tail_size > MAX_TRACE // 2 and len(self._tail) > 1:
            self._tail_size -= len(self._tail.popleft()) + 1
            self._cut += 1

    def event(self) -> Event:
        gap = [f"  … {self._cut} more lines …"] if self._cut else []
        return Event("\n".join([*self._head, *gap, *self._tail]).rstrip(), self._count, trace=True)
