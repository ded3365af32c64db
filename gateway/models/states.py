"""The life of a model version: where it stands, what is wished for it, and the moves between states that are legal.

`Life` is the only place that changes any of it. It is shared by the parts of a version: `version.py`, which is asked,
`loading.py`, which brings it up and down, and `replicas.py`, which its workers tell how they are.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import time
from collections.abc import Callable

from ..telemetry.stats import ModelStats

log = logging.getLogger("modelhub.models")


class ModelState(enum.Enum):
    """What is stored. What clients are told (readiness, repository index) is derived from it."""

    UNLOADED = "UNLOADED"
    PREPARING = "PREPARING"  # artifacts are fetched, the environment is built
    LOADING = "LOADING"  # a worker process loads the model
    WARMING = "WARMING"  # the model's own input example goes through the whole path
    READY = "READY"
    DRAINING = "DRAINING"  # no new requests; those it has are answered
    FAILED = "FAILED"

    @property
    def loading(self) -> bool:
        """On its way to READY: requests may wait for it."""
        return self in _LOADING


_LOADING = frozenset({ModelState.PREPARING, ModelState.LOADING, ModelState.WARMING})

LEGAL: dict[ModelState, frozenset[ModelState]] = {
    ModelState.UNLOADED: frozenset({ModelState.PREPARING}),
    # back to UNLOADED when its group has no room
    ModelState.PREPARING: frozenset({ModelState.LOADING, ModelState.DRAINING, ModelState.FAILED, ModelState.UNLOADED}),
    ModelState.LOADING: frozenset({ModelState.WARMING, ModelState.READY, ModelState.DRAINING, ModelState.FAILED}),
    # back to LOADING when the worker dies while it is warmed and a successor starts
    ModelState.WARMING: frozenset({ModelState.LOADING, ModelState.READY, ModelState.DRAINING, ModelState.FAILED}),
    ModelState.READY: frozenset({ModelState.DRAINING, ModelState.FAILED}),
    ModelState.DRAINING: frozenset({ModelState.UNLOADED}),
    ModelState.FAILED: frozenset({ModelState.PREPARING, ModelState.DRAINING}),
}


#: Characters of a reason that clients are told.
BRIEF = 200


def brief(reason: str) -> str:
    """What clients are told of a reason: its first line, up to a length. `/status` and the log have all of it."""
    first = reason.split("\n", 1)[0].strip()
    if len(first) > BRIEF:
        first = f"{first[:BRIEF].rsplit(' ', 1)[0]} …"
    return first if first == reason.strip() else f"{first.rstrip(':')} (/status has the whole reason)"


class Role(enum.Enum):
    """What a version is to its entry."""

    CANDIDATE = "candidate"  # it is to replace the version that serves, which goes on until then
    SERVING = "serving"
    RETIRED = "retired"  # replaced or removed: it answers what it has, and is not loaded again


class Wish(enum.Enum):
    """When a version is to be loaded."""

    EAGER = "eager"  # by itself
    ON_DEMAND = "on demand"  # by a request
    KEPT_UNLOADED = "kept unloaded"  # an operator has unloaded it: not before one loads it


class Life:
    """Name, state, role and wish of one version."""

    def __init__(
        self, name: str, version: str, stats: ModelStats, *, on_demand: bool, on_change: Callable[[], None]
    ) -> None:
        """`on_change` is called after every change of state."""
        self.name = name
        self.version = version
        #: What every event of the log about it carries.
        self.log_fields = {"model": name, "version": version}
        self.log = logging.LoggerAdapter(log, self.log_fields)
        self.state = ModelState.UNLOADED
        self.reason = "not loaded"
        self.role = Role.SERVING
        self.wish = Wish.ON_DEMAND if on_demand else Wish.EAGER
        #: Loads that have failed since the last one that did not.
        self.failures = 0
        #: Of the last load that succeeded.
        self.load_seconds = 0.0
        self._stats = stats
        self._on_change = on_change
        self._otherwise = self.wish
        self._load_began = 0.0
        self._since = time.monotonic()
        self._moved = asyncio.Event()

    @property
    def label(self) -> str:
        return f"{self.name}/{self.version}" if self.version else self.name

    @property
    def seconds(self) -> float:
        """Seconds in the present state."""
        return time.monotonic() - self._since

    def resolved(self, version: str) -> None:
        """Which version it is has turned out."""
        self.version = self.log_fields["version"] = version

    def move(self, to: ModelState, reason: str = "", *, retry_in: float | None = None) -> None:
        """Change the state: one log line and one count per change. `retry_in`: seconds, of what FAILED."""
        assert to in LEGAL[self.state], f"{self.label}: {self.state.value} cannot become {to.value}"
        before, seconds, now = self.state, self.seconds, time.monotonic()
        self.state, self.reason, self._since = to, reason, now
        if to is ModelState.PREPARING:
            self._load_began = now
            self._stats.begin_load()
        elif to is ModelState.READY:
            self.load_seconds, self.failures = now - self._load_began, 0
        elif to is ModelState.FAILED:
            self.failures += 1
        if to is ModelState.FAILED:
            wait = "" if retry_in is None else f" (tried again in {retry_in:.0f} s)"
            self.log.error("%s FAILED while %s%s: %s", self.label, before.value, wait, reason)
        else:
            self.log.debug("%s is %s after %.3f s of %s", self.label, to.value, seconds, before.value)
        self._stats.changes[to.value] += 1
        if before.loading:
            self._stats.spent(before.value, seconds)
        self._moved.set()
        self._on_change()

    async def until(self, *states: ModelState) -> None:
        """Returns when it is in one of these states."""
        while self.state not in states:
            self._moved.clear()
            await self._moved.wait()

    # ---- role -----------------------------------------------------------------------------------

    def stand_beside(self) -> None:
        """It is to replace another version."""
        assert self.role is Role.SERVING, f"{self.label} is {self.role.value}"
        self.role = Role.CANDIDATE

    def take_over(self) -> None:
        """It serves from here on."""
        assert self.role is Role.CANDIDATE, f"{self.label} is {self.role.value}"
        self.role = Role.SERVING

    def retire(self) -> None:
        """It is replaced, or removed, or not wanted as a candidate any more."""
        self.role = Role.RETIRED

    # ---- wish -----------------------------------------------------------------------------------

    @property
    def on_demand(self) -> bool:
        """Whether requests have it loaded; while it is kept unloaded: whether they will again."""
        return self._otherwise is Wish.ON_DEMAND

    def load_on_demand(self) -> None:
        """It is loaded by requests from now on: it had to leave, or found no room."""
        self._otherwise = Wish.ON_DEMAND
        if self.wish is not Wish.KEPT_UNLOADED:
            self.wish = self._otherwise

    def keep_unloaded(self) -> None:
        """Until `want_again`, nothing has it loaded."""
        self.wish = Wish.KEPT_UNLOADED

    def want_again(self) -> None:
        """As before it was kept unloaded."""
        self.wish = self._otherwise
