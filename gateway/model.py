"""One version of one model: its state, its replicas, its queue. The one place that changes a state."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from ..config.settings import ModelSettings
from ..protocol.codec import Body
from ..protocol.errors import DeadlineExceeded, LoadError, NotReady, ServingError
from ..protocol.messages import InferReply, InferRequest, ReadyReply
from ..protocol.signature import metadata_from_mlmodel
from .artifacts import Artifact
from .dispatcher import Dispatcher
from .group import Group, NoRoom
from .lifecycle import LEGAL, ModelState
from .mlmodel import parse_mlmodel, read_mlmodel
from .prepare import prepare
from .processes import read_memory
from .replica import Replica, ReplicaPlan
from .resources import Resources
from .timeouts import timeout
from .uris import local_path

log = logging.getLogger("modelhub.models")

#: A failed version is tried again after this many seconds, doubling to the second figure.
RETRY_FIRST, RETRY_MAX = 10.0, 600.0
#: Seconds that one of several replicas stays away when it has failed and the others go on.
REPLICA_REST = 30.0


class ModelVersion:
    """Loaded by `load`, ended by `unload`; answers requests with `infer` in between."""

    def __init__(self, entry: ModelSettings, group: Group | None, resources: Resources) -> None:
        self.entry = entry
        self.name = entry.name
        self.version = entry.known_version or ""
        self.uri = entry.uri
        self.group = group
        self.timeout: float = entry.timeout
        self.state = ModelState.UNLOADED
        self.reason = "not loaded"
        self.lazy = group is not None and group.lazy
        #: Unloaded by an operator: stays away until it is loaded by one.
        self.away = False
        #: The version of the same entry that it is to replace, and that serves until then.
        self.beside: ModelVersion | None = None
        #: What has taken over from it.
        self.successor: ModelVersion | None = None
        #: Replaced or removed: it answers what it has, and is not loaded again.
        self.retired = False
        #: Nobody has asked for it yet: it is loaded at start, as far as there is room.
        self.in_advance = False
        #: Names the content on disk; "" until it is known.
        self.source = ""
        self.retry_at: float | None = None
        self.restarts = 0
        self.example = b""
        self.python = ""
        self.environment = ""
        self.wants_headers = False
        self.streams = False
        self.load_seconds = 0.0
        self.replicas: list[Replica] = []
        #: What every event of the log about it carries.
        self.log_fields = {"model": self.name, "version": self.version}
        self._log = logging.LoggerAdapter(log, self.log_fields)
        self._since = time.monotonic()
        self._resources = resources
        self._metadata: dict[str, Any] | None = None
        self._dispatcher = Dispatcher(self.label, limit=entry.limits.queue, retry=entry.retry)
        self.stats = resources.metrics.model(self)
        self._loading: asyncio.Task[None] | None = None
        self._unloading: asyncio.Task[None] | None = None
        self._dismissed: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None
        self._evicting = False
        self._drain_until = float("inf")
        self._retry_timer: asyncio.TimerHandle | None = None
        self._failures = 0
        self._load_started = 0.0
        self._traceback = ""
        self._artifact: Artifact | None = None
        self._first_ready: asyncio.Future[None] | None = None
        self._moved = asyncio.Event()
        if group is not None:
            group.members.append(self)
            self._dispatcher.on_idle = group.changed

    @property
    def label(self) -> str:
        return f"{self.name}/{self.version}" if self.version else self.name

    @property
    def phase_seconds(self) -> float:
        """Seconds in the present state."""
        return time.monotonic() - self._since

    @property
    def ready(self) -> bool:
        """What the model's own `/ready` says: it answers, or a request would have it loaded."""
        if self.lazy and not self.away:
            again = self.state.loading and self._failures > 0  # what has failed is not ready while it is tried again
            return self.state is not ModelState.FAILED and not again
        return self.state is ModelState.READY

    @property
    def serves(self) -> bool:
        """Whether it may answer requests that name no version."""
        return self.beside is None and not self.retired

    @property
    def wanted(self) -> bool:
        """Whether others may be evicted for it: somebody waits for it."""
        return not self.in_advance or self.queued > 0

    @property
    def evictable(self) -> bool:
        """Loaded, idle, not pinned, and not about to take over."""
        idle = self.state is ModelState.READY and not self.queued and not self.in_flight
        return idle and not self.entry.pinned and self.beside is None

    @property
    def last_used(self) -> float:
        """CLOCK_MONOTONIC seconds of the last arrival or answer."""
        return self._dispatcher.last_used

    @property
    def memory_private(self) -> int:
        """Bytes that end with its workers, as last measured."""
        return sum(replica.memory.private for replica in self.replicas if replica.pid)

    @property
    def queued(self) -> int:
        return self._dispatcher.queued

    @property
    def in_flight(self) -> int:
        return self._dispatcher.in_flight

    # ---- requests -------------------------------------------------------------------------------

    async def infer(self, request: InferRequest, body: Body, chunk: Any = None) -> tuple[InferReply, Body]:
        """Answer one request; while the model loads it waits within its deadline. Raises leaves of ServingError."""
        if self.state is not ModelState.READY and not self.state.loading:
            self._load_for_a_request()
        try:
            return await self._dispatcher.submit(request, body, chunk)
        except DeadlineExceeded:
            if self.state is not ModelState.READY:
                raise self._not_ready() from None
            raise

    def check_queue(self) -> None:
        """Before a large body is read: raises QueueFull where there is no place for it."""
        self._dispatcher.check_queue()

    def _load_for_a_request(self) -> None:
        """A lazy version that is not loaded is loaded; one that is leaving comes back. Raises NotReady."""
        due = self.retry_at is None or time.monotonic() >= self.retry_at
        if not self.lazy or self._stays_away or not due:
            raise self._not_ready()
        if self.state is not ModelState.DRAINING:
            self.load()

    @property
    def _stays_away(self) -> bool:
        return self.away or self.retired or self._resources.stopping

    def _not_ready(self) -> NotReady:
        if self.state.loading:
            message = f"model {self.label} is {self.state.value} since {self.phase_seconds:.1f} s: try again later"
            return NotReady(message, retry_after=2.0)
        wait = max(self.retry_at - time.monotonic(), 1.0) if self.retry_at is not None else None
        return NotReady(f"model {self.label} is {self.state.value}: {self.reason}", retry_after=wait)

    async def metadata(self) -> dict[str, Any]:
        """V2 metadata (platform, inputs, outputs): the worker's word, else from the MLmodel file. Raises NotReady."""
        if self._metadata is not None:
            return self._metadata
        if not self.uri:
            raise NotReady(
                f"model {self.label} is a service that loads by itself: it has no metadata before", retry_after=5.0
            )
        try:
            path = local_path(self.uri)
            if path is not None:
                mlmodel = await asyncio.to_thread(read_mlmodel, path)
            else:
                async with timeout(self.timeout):
                    mlmodel = parse_mlmodel(await self._resources.fetcher.metadata(self.uri), self.uri)
            self._metadata = metadata_from_mlmodel(mlmodel)
        except (ServingError, asyncio.TimeoutError) as error:
            message = f"the metadata of model {self.label} cannot be read: {str(error) or 'no answer in time'}"
            raise NotReady(message, retry_after=5.0) from None
        return self._metadata

    # ---- life -----------------------------------------------------------------------------------

    def load(self) -> asyncio.Task[None]:
        """Begin to load unless that is under way or done; the task ends when it is READY or FAILED, or may not load."""
        if self._loading is None or self._loading.done() or self._loading is self._dismissed:
            self._loading = asyncio.create_task(self._load(), name=f"load {self.label}")
        return self._loading

    async def _load(self) -> None:
        if self._unloading is not None and not self._unloading.done():
            await asyncio.wait({self._unloading})
        if self.state is ModelState.READY:
            return
        if self._stays_away:
            self._dispatcher.fail_waiting(self._not_ready)
            return
        self._load_started = time.monotonic()
        self._cancel_retry()
        self._move(ModelState.PREPARING)
        try:
            await self._stop_replicas()
            plan = await self._prepare()
            async with self._admitted():
                self._first_ready = asyncio.get_running_loop().create_future()
                self.replicas = [
                    Replica(index, plan, self, self._dispatcher, self._resources)
                    for index in range(self.entry.replicas)
                ]
                await self._first_ready
        except asyncio.CancelledError:
            raise
        except NoRoom as error:
            await self._stop_replicas()
            self.lazy = True
            self._move(ModelState.UNLOADED, error.message)
            message, retry_after = error.message, error.retry_after
            self._dispatcher.fail_waiting(lambda: NoRoom(message, retry_after=retry_after))
        except ServingError as error:
            await self._stop_replicas()
            self._fail(error.message)
        except Exception as error:
            self._log.exception("loading %s failed in the gateway itself", self.label)
            await self._stop_replicas()
            self._fail(f"{type(error).__name__}: {error}")

    @asynccontextmanager
    async def _admitted(self) -> AsyncIterator[None]:
        """A place among the loads that run at once; in a group, room in its budget. Raises NoRoom."""
        if self.group is None:
            async with self._resources.load_slot():
                yield
            return
        async with self.group.room(self):
            try:
                async with self._resources.load_slot():
                    yield
                await self._measure()
            except BaseException:
                await self._stop_replicas()  # only then is its room free
                raise

    async def _measure(self) -> None:
        for replica in self.replicas:
            if replica.pid:
                replica.memory = await asyncio.to_thread(read_memory, replica.pid)

    async def _prepare(self) -> ReplicaPlan:
        prepared = await prepare(self.entry, self.version, self._resources)
        self._artifact, self.source, self.version = prepared.artifact, prepared.source, prepared.version
        self.log_fields["version"] = self.version
        self._dispatcher.label = self.label
        self.environment, self.python = prepared.plan.environment.label, prepared.plan.environment.python_version
        return prepared.plan

    async def unload(self, grace: float, reason: str = "unloaded") -> None:
        """Answer what it has within `grace` seconds, then end the processes. Callers at once share one unload."""
        await asyncio.shield(self._begin_unload(grace, reason))

    def evict(self, reason: str) -> asyncio.Task[None]:
        """An idle one leaves at once for others; what is asked of it meanwhile waits and has it loaded again."""
        self.lazy = self._evicting = True
        self._dispatcher.let_go()
        return self._begin_unload(0.0, reason)

    def _begin_unload(self, grace: float, reason: str) -> asyncio.Task[None]:
        self._drain_until = min(self._drain_until, time.monotonic() + grace)
        if self._unloading is None or self._unloading.done():
            if self.state is ModelState.READY:
                self._move(ModelState.DRAINING, reason)
            self._dismissed = self._loading
            self._unloading = asyncio.create_task(self._unload(reason), name=f"unload {self.label}")
        return self._unloading

    async def _unload(self, reason: str) -> None:
        await self._stop_loading()
        self._cancel_retry()
        if self.state is not ModelState.UNLOADED:
            if self.state is not ModelState.DRAINING:
                self._move(ModelState.DRAINING, reason)
            if not self._evicting:
                await self._drain()
            await self._measure()
            if self.group is not None:
                self.group.leaves(self)
            await self._stop_replicas()
            self._move(ModelState.UNLOADED, reason)
            if self.group is not None:
                self.group.left(self)
        self.reason = reason  # also of one that was not loaded
        self._drain_until, self._evicting = float("inf"), False
        if self._loading is not self._dismissed:
            return  # somebody has had it loaded again meanwhile
        if self.queued and self.lazy and not self._stays_away:
            self.load()  # asked for again while it left
        else:
            self._dispatcher.fail_waiting(self._not_ready)

    async def _stop_loading(self) -> None:
        """End the load that was under way when the unload began; who waits for it is answered if there is time."""
        loading = self._dismissed
        if loading is None or loading.done():
            return
        if self.state is ModelState.DRAINING:  # it was READY: what is left of its load is to measure it
            await asyncio.wait({loading})
            return
        while self.queued and not loading.done() and (left := self._drain_until - time.monotonic()) > 0:
            await asyncio.wait({loading}, timeout=min(left, 0.2))
        loading.cancel()
        await asyncio.wait({loading})

    async def _drain(self) -> None:
        """Until nothing waits or runs, or the grace is over; somebody in more of a hurry may shorten it."""
        while self.replicas and (left := self._drain_until - time.monotonic()) > 0:
            try:
                async with timeout(min(left, 0.2)):
                    return await self._dispatcher.drained()
            except asyncio.TimeoutError:
                continue
        if self.queued or self.in_flight:
            self._log.warning("%s: %d requests were not answered in time", self.label, self.queued + self.in_flight)

    async def _stop_replicas(self) -> None:
        """Processes first, then the hold on the artifact; to the end, even if the caller is cancelled."""
        if self._ending is None or self._ending.done():
            self._ending = asyncio.create_task(self._end_replicas(), name=f"end workers of {self.label}")
        await asyncio.shield(self._ending)

    async def _end_replicas(self) -> None:
        replicas, self.replicas = self.replicas, []
        await asyncio.gather(*(replica.stop() for replica in replicas))
        if self._artifact is not None:
            self._artifact.release()
            self._artifact = None

    # ---- what replicas say ----------------------------------------------------------------------

    def replica_loading(self) -> None:
        if self.state is ModelState.PREPARING or self.state is ModelState.WARMING:
            self._move(ModelState.LOADING)

    def replica_warming(self) -> None:
        if self.state is ModelState.LOADING:
            self._move(ModelState.WARMING)

    def replica_ready(self, replica: Replica, ready: ReadyReply) -> None:
        self._metadata = ready.metadata
        self.example, self.python = ready.example, ready.python
        self.wants_headers, self.streams = ready.wants_headers, ready.streams
        if self._first_ready is not None and not self._first_ready.done():
            self.load_seconds = time.monotonic() - self._load_started
            self._failures = 0
            self._dispatcher.last_used = time.monotonic()
            self._move(ModelState.READY)
            self._first_ready.set_result(None)

    def replica_restarts(self, replica: Replica, reason: str, kind: str, delay: float) -> None:
        self.restarts += 1
        self._resources.metrics.restarted(self, kind)
        when = f"in {delay:g} s" if delay else "at once"
        self._log.warning("%s: its worker %s; the next one starts %s", replica.label, reason, when)

    def replica_traceback(self, replica: Replica, text: str) -> None:
        """The traceback of a failed load, once: a later try that fails alike adds nothing."""
        if text and text != self._traceback:
            self._traceback = text
            self._log.error("%s could not be loaded:\n%s", replica.label, text)

    def replica_failed(self, replica: Replica, reason: str) -> float | None:
        """Seconds after which it may try again, beside others; None: there are none, this version has failed."""
        if any(other.state in ("ready", "starting", "restarting") for other in self.replicas if other is not replica):
            self._log.error("%s rests for %g s, other replicas go on: %s", replica.label, REPLICA_REST, reason)
            return REPLICA_REST
        if self._first_ready is not None and not self._first_ready.done():
            self._first_ready.set_exception(LoadError(reason))
        elif self.state is ModelState.READY:
            self._fail(reason)
            if self.group is not None:
                self.group.left(self)
        return None

    def replica_may_return(self, replica: Replica) -> bool:
        return replica in self.replicas and (self.state is ModelState.READY or self.state.loading)

    async def until(self, *states: ModelState) -> None:
        """Returns when it is in one of these states."""
        while self.state not in states:
            self._moved.clear()
            await self._moved.wait()

    # ---- states ---------------------------------------------------------------------------------

    def _fail(self, reason: str) -> None:
        self._failures += 1
        delay = min(RETRY_FIRST * 2 ** (self._failures - 1), RETRY_MAX)
        self.retry_at = time.monotonic() + delay
        self._retry_timer = asyncio.get_running_loop().call_later(delay, self._retry)
        self._move(ModelState.FAILED, reason)
        self._dispatcher.fail_waiting(self._not_ready)

    def _retry(self) -> None:
        if self.lazy and self.beside is None:
            self.in_advance = True  # nobody waits for it: nobody has to leave for it
        self.load()

    def _cancel_retry(self) -> None:
        self.retry_at = None
        if self._retry_timer is not None:
            self._retry_timer.cancel()
            self._retry_timer = None

    def _move(self, to: ModelState, reason: str = "") -> None:
        """Change the state: one log line and one count per change."""
        assert to in LEGAL[self.state], f"{self.label}: {self.state.value} cannot become {to.value}"
        before, seconds = self.state, self.phase_seconds
        self.state, self.reason, self._since = to, reason, time.monotonic()
        if to is ModelState.FAILED:
            wait = "" if self.retry_at is None else f" (tried again in {self.retry_at - time.monotonic():.0f} s)"
            self._log.error("%s FAILED while %s%s: %s", self.label, before.value, wait, reason)
        else:
            self._log.debug("%s is %s after %.3f s of %s", self.label, to.value, seconds, before.value)
        self._resources.metrics.state_changed(self, before, seconds)
        self._moved.set()
        self._resources.on_change(self)

    def describe(self) -> dict[str, Any]:
        """This version as one entry of `/status`."""
        return {
            "name": self.name,
            "version": self.version,
            "state": self.state.value,
            "phase_s": round(self.phase_seconds, 3),
            "reason": self.reason,
            "uri": self.uri,
            "group": self.group.name if self.group is not None else None,
            "environment": self.environment,
            "python": self.python,
            "load_s": round(self.load_seconds, 3),
            "replicas": [
                {
                    "index": replica.index,
                    "generation": replica.generation,
                    "pid": replica.pid,
                    "state": replica.state,
                    "restarts": replica.restarts,
                    "memory_private": replica.memory.private,
                    "memory_pss": replica.memory.pss,
                    "batching": replica.batching,
                }
                for replica in self.replicas
            ],
            "requests": {
                "in_flight": self.in_flight,
                "queued": self.queued,
                "succeeded": self.stats.succeeded,
                "failed": self.stats.failed,
                "retried": self._dispatcher.retried,
            },
        }
