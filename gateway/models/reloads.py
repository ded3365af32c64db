"""Says when a group's budget is too small for what is used at the same time.

A model that is loaded again within a minute of its eviction is a sign; ten of them within a minute are worth
a warning that names the budget which would be enough. Used by `group.py` alone.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Generic, Protocol, TypeVar

log = logging.getLogger("modelhub.models")

#: Seconds,
WINDOW = 60.0
#: loads in that time,
RELOADS = 10
#: and seconds until the warning is said again.
REPEAT_WARNING = 600.0


class Used(Protocol):
    """A model version, as far as it matters here."""

    @property
    def last_used(self) -> float: ...


U = TypeVar("U", bound=Used)


class Reloads(Generic[U]):
    """Counts the early reloads of one group."""

    def __init__(self, group: str) -> None:
        self.reloads = 0
        self._group = group
        self._evicted: dict[U, float] = {}
        self._recent: deque[float] = deque()
        self._warned = float("-inf")

    def evicted(self, version: U) -> None:
        """It leaves now."""
        now = time.monotonic()
        self._evicted.pop(version, None)  # so that the oldest is the first
        self._evicted[version] = now
        while now - self._evicted[oldest := next(iter(self._evicted))] > WINDOW:
            del self._evicted[oldest]

    def forget(self, version: U) -> None:
        """There is no such version any more."""
        self._evicted.pop(version, None)

    def wanted(self, loaded: Iterable[U]) -> list[U]:
        """The versions that were used in the last minute, loaded or evicted by now."""
        since = time.monotonic() - WINDOW
        return [version for version in {*loaded, *self._evicted} if version.last_used > since]

    def loaded(self, version: U, enough: Callable[[], str]) -> None:
        """It is loaded now; `enough` says which limits would hold what is wanted."""
        now = time.monotonic()
        if now - self._evicted.pop(version, float("-inf")) > WINDOW:
            return
        self.reloads += 1
        self._recent.append(now)
        while now - self._recent[0] > WINDOW:
            self._recent.popleft()
        if len(self._recent) >= RELOADS and now - self._warned > REPEAT_WARNING:
            self._warned = now
            log.warning(
                "group %s is thrashing: %d models were loaded again within a minute of their eviction; "
                "what was used in the last minute needs %s",
                self._group,
                len(self._recent),
                enough(),
            )
