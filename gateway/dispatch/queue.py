"""Who waits for a worker of one model version, in the order in which they will get one.

Requests have a priority (`InferRequest.priority`): a level from 1, which goes first, to LEVELS. Within a level whoever
came first goes first; a level waits for as long as one before it has anybody. Used by `dispatcher.py`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator

from ...protocol.errors import InvalidRequest
from ...protocol.messages import InferRequest
from .pending import Pending

LEVELS = 9
#: The level of a request that names none.
USUAL = InferRequest.priority


class RequestQueue:
    """First in, first out, in each of a few levels. What each call costs does not depend on who waits."""

    __slots__ = ("_levels", "count")

    def __init__(self) -> None:
        #: How many wait.
        self.count = 0
        #: Each keeps their order; whoever leaves from the middle is found at once.
        self._levels: list[OrderedDict[Pending, None]] = [OrderedDict() for _ in range(LEVELS + 1)]

    def __iter__(self) -> Iterator[Pending]:
        for level in self._levels:
            yield from level

    def append(self, pending: Pending) -> None:
        self._levels[pending.request.priority][pending] = None
        self.count += 1

    def put_back(self, again: Iterable[Pending]) -> None:
        """These had left already: they go first, in this order, each in its level."""
        for pending in reversed(list(again)):
            level = self._levels[pending.request.priority]
            level[pending] = None
            level.move_to_end(pending, last=False)
            self.count += 1

    def first(self) -> Pending:
        """Whose turn it is. Raises IndexError where nobody waits."""
        return next(iter(self._first_level()))

    def popleft(self) -> Pending:
        """The same, and it waits no longer."""
        pending, _ = self._first_level().popitem(last=False)
        self.count -= 1
        return pending

    def _first_level(self) -> OrderedDict[Pending, None]:
        for level in self._levels:
            if level:
                return level
        raise IndexError("nobody waits")

    def remove(self, pending: Pending) -> None:
        """Whoever waits no longer; nothing happens where it does not."""
        level = self._levels[pending.request.priority]
        if pending in level:
            del level[pending]
            self.count -= 1


def priority_of(text: str) -> int:
    """The level that a client asks for: 1 is the most urgent, 0 the usual one, and what is beyond the last is the last.

    Raises InvalidRequest.
    """
    if not (text.isascii() and text.isdigit() and len(text) <= 10):
        raise InvalidRequest(f"x-request-priority: {text[:100]!r} is no level; write 1 (first) to {LEVELS} (last)")
    return bounded(int(text))


def bounded(priority: int) -> int:
    """A number that means a priority, Triton's way, as a level."""
    return min(priority, LEVELS) if priority > 0 else USUAL
