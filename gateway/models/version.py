"""One version of one model: what fronts, catalog, groups and metrics ask and tell it.

Its state lives in `states.py`, its way up and down in `loading.py`, its workers in `replicas.py`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from ...config.settings import ModelSettings
from ...protocol.codec import Body
from ...protocol.errors import DeadlineExceeded
from ...protocol.messages import InferReply, InferRequest, ReadyReply
from ...protocol.redaction import masked
from ..dispatch.dispatcher import Dispatcher
from ..dispatch.pending import OnChunk
from ..supervision.replica import Replica
from ..telemetry.stats import ModelStats
from .group import Group
from .loading import Loading
from .replicas import Replicas
from .resources import Resources
from .states import Life, ModelState, Role, Wish


class ModelVersion:
    """Loaded by `load`, ended by `unload`; answers requests with `infer` in between."""

    def __init__(
        self,
        entry: ModelSettings,
        group: Group | None,
        resources: Resources,
        on_change: Callable[[ModelVersion], None] = lambda version: None,
    ) -> None:
        """`on_change` is called after every change of its state."""
        self.entry = entry
        self.name = entry.name
        self.uri = entry.uri
        #: As it may be shown.
        self.shown_uri = masked(entry.uri)
        self.group = group
        self.timeout: float = entry.timeout
        #: The version of the same entry that it is to replace, and that serves until then.
        self.beside: ModelVersion | None = None
        #: What has taken over from it.
        self.successor: ModelVersion | None = None
        #: What its worker said of it; an example is a V2 request's body, b"": none.
        self.example = b""
        self.wants_headers = False
        self.streams = False
        #: Platform, inputs and outputs: the worker's word, else what was read of its MLmodel; None: not known yet.
        self.known_metadata: dict[str, Any] | None = None
        self.stats = ModelStats()
        self._life = Life(
            entry.name,
            entry.known_version or "",
            self.stats,
            on_demand=group is not None and group.lazy,
            on_change=lambda: on_change(self),
        )
        self._dispatcher = Dispatcher(
            self.label, limit=entry.limits.queue, retry=entry.retry, left_behind=resources.left_behind
        )
        self._replicas = Replicas(self._life, self._dispatcher, resources.channel, self.stats, self._learn)
        self._loading = Loading(entry, self._life, self._replicas, self._dispatcher, group, self, resources)
        if group is not None:
            self._dispatcher.on_idle = group.changed

    def _learn(self, ready: ReadyReply) -> None:
        self.known_metadata = ready.metadata
        self.example, self._loading.python = ready.example, ready.python
        self.wants_headers, self.streams = ready.wants_headers, ready.streams

    # ---- requests -------------------------------------------------------------------------------

    async def infer(self, request: InferRequest, body: Body, chunk: OnChunk | None = None) -> tuple[InferReply, Body]:
        """Answer one request; while the model loads it waits within its deadline. Raises leaves of ServingError."""
        state = self._life.state
        if state is not ModelState.READY and not state.loading:
            self._loading.load_for_a_request()
        try:
            return await self._dispatcher.submit(request, body, chunk)
        except DeadlineExceeded:
            if self._life.state is not ModelState.READY:
                raise self._loading.not_ready() from None
            raise

    def taken(self, request: InferRequest, size: int) -> None:
        """The client of a stream has taken so many bytes more of it."""
        self._dispatcher.taken(request, size)

    def check_queue(self) -> None:
        """Before a large body is read: raises QueueFull where there is no place for it."""
        self._dispatcher.check_queue()

    @property
    def queued(self) -> int:
        return self._dispatcher.queued

    @property
    def in_flight(self) -> int:
        return self._dispatcher.in_flight

    @property
    def retried(self) -> int:
        return self._dispatcher.retried

    @property
    def last_used(self) -> float:
        """CLOCK_MONOTONIC seconds of the last arrival or answer."""
        return self._dispatcher.last_used

    # ---- what it is -----------------------------------------------------------------------------

    @property
    def version(self) -> str:
        """ "" while only the registry knows it."""
        return self._life.version

    @property
    def label(self) -> str:
        return self._life.label

    @property
    def log_fields(self) -> dict[str, str]:
        """What every event of the log about it carries."""
        return self._life.log_fields

    @property
    def source(self) -> str:
        """Names the content on disk; "" until it is known."""
        return self._loading.source

    @property
    def stale(self) -> str:
        """Why the registry could not be asked what its URI means: it is what it was known as last. "": it was asked."""
        return self._loading.stale

    def confirm(self) -> None:
        """The registry has said what its URI means."""
        self._loading.stale = ""

    @property
    def environment(self) -> str:
        return self._loading.environment

    @property
    def python(self) -> str:
        return self._loading.python

    @property
    def replicas(self) -> list[Replica]:
        return self._replicas.all

    @property
    def memory_private(self) -> int:
        """Bytes that end with its workers, as last measured."""
        return self._replicas.memory_private

    @property
    def memory_of_replicas(self) -> list[int]:
        """The same for each of its replicas, those that are not up yet included."""
        return [replica.memory.private for replica in self._replicas.all]

    # ---- how it is ------------------------------------------------------------------------------

    @property
    def state(self) -> ModelState:
        return self._life.state

    @property
    def reason(self) -> str:
        return self._life.reason

    @property
    def phase_seconds(self) -> float:
        """Seconds in the present state."""
        return self._life.seconds

    @property
    def load_seconds(self) -> float:
        return self._life.load_seconds

    @property
    def retry_in(self) -> float | None:
        """Seconds until what FAILED is tried again."""
        at = self._loading.retry_at
        return None if at is None else at - time.monotonic()

    @property
    def ready(self) -> bool:
        """What the model's own `/ready` says: a worker answers, or a request would have it loaded.

        A restart is bridged for `ready_grace` seconds, so that a short one does not show.
        """
        life = self._life
        if life.state is ModelState.READY:
            return self._silence < self.entry.ready_grace
        if life.wish is Wish.ON_DEMAND:
            again = life.state.loading and life.failures > 0  # what has failed is not ready while it is tried again
            return life.state is not ModelState.FAILED and not again
        return False

    @property
    def _silence(self) -> float:
        """Seconds since it has had no worker that answers; 0: it has one."""
        since = self._replicas.silent_since
        return 0.0 if since is None else time.monotonic() - since

    def report(self) -> tuple[ModelState, str, float]:
        """What people and programs are told: its state, why, and seconds in it.

        One that is READY and has had no worker for longer than a restart is bridged is LOADING to whoever asks: that
        is what its next worker does.
        """
        life = self._life
        if life.state is ModelState.READY and not self.ready:
            return ModelState.LOADING, f"its worker {self._replicas.last_end}; the next one loads", self._silence
        return life.state, life.reason, life.seconds

    @property
    def may_stream(self) -> bool:
        """Whether it answers in pieces; nobody knows before its worker has said so."""
        return self.streams or self._life.state is not ModelState.READY

    @property
    def serves(self) -> bool:
        """Whether it may answer requests that name no version."""
        return self._life.role is Role.SERVING

    @property
    def on_demand(self) -> bool:
        """Whether requests have it loaded, or will again when it is not kept unloaded any more."""
        return self._life.on_demand

    @property
    def kept_unloaded(self) -> bool:
        """An operator has unloaded it: it stays away until one loads it."""
        return self._life.wish is Wish.KEPT_UNLOADED

    @property
    def wanted(self) -> bool:
        """Whether others may be evicted for it: somebody waits for it."""
        return not self._loading.unasked or self.queued > 0

    @property
    def evictable(self) -> bool:
        """Loaded, idle, not pinned, and not about to take over."""
        idle = self.state is ModelState.READY and not self.queued and not self.in_flight
        return idle and not self.entry.pinned and self._life.role is not Role.CANDIDATE

    # ---- life -----------------------------------------------------------------------------------

    def load(self) -> asyncio.Task[None]:
        """Begin to load unless that is under way or done; the task ends when it is READY or FAILED, or may not load."""
        return self._loading.load()

    def load_in_advance(self) -> asyncio.Task[None]:
        """Load it as far as there is room: nobody has asked for it."""
        self._loading.unasked = True
        return self._loading.load()

    def fetch_anew(self) -> None:
        """Its next load fetches its files, also where they are here."""
        self._loading.anew = True

    def load_again(self, *, anew: bool = False) -> asyncio.Task[None]:
        """Load it because an operator says so, also where one had unloaded it; `anew`: see `fetch_anew`."""
        self.want_again()
        if anew:
            self.fetch_anew()
        self._loading.unasked = False
        return self._loading.load()

    async def unload(self, grace: float, reason: str = "unloaded") -> None:
        """Answer what it has within `grace` seconds, then end the processes. Callers at once share one unload."""
        await asyncio.shield(self._loading.unload(grace, reason))

    def evict(self, reason: str) -> asyncio.Task[None]:
        """An idle one leaves at once for others; what is asked of it meanwhile waits and has it loaded again."""
        return self._loading.evict(reason)

    def load_on_demand(self) -> None:
        """It is loaded by requests from now on."""
        self._life.load_on_demand()

    def keep_unloaded(self) -> None:
        """Nothing has it loaded until `load_again`."""
        self._life.keep_unloaded()

    def want_again(self) -> None:
        """As before it was kept unloaded; it is not loaded by that."""
        self._life.want_again()

    def stand_beside(self, serving: ModelVersion) -> None:
        """It is to replace the version that serves."""
        self._life.stand_beside()
        self.beside = serving

    def take_over(self) -> None:
        """It serves from here on, and the version that it was beside does not."""
        assert self.beside is not None
        self._life.take_over()
        self.beside.successor, self.beside = self, None

    def retire(self) -> None:
        """It answers what it has, and is not loaded again."""
        self._life.retire()
        self.beside = None

    async def until(self, *states: ModelState) -> None:
        """Returns when it is in one of these states."""
        await self._life.until(*states)
