"""The replicas of one model version: started together, ended together, and what they say about their workers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from ...protocol.errors import LoadError
from ...protocol.messages import ReadyReply
from ..artifacts.store import Artifact
from ..dispatch.channel import Channel
from ..dispatch.dispatcher import Dispatcher
from ..supervision.plan import ReplicaPlan
from ..supervision.replica import Replica
from ..telemetry.stats import ModelStats
from .states import Life, ModelState

#: Seconds that one of several replicas stays away when it has failed and the others go on.
REPLICA_REST = 30.0


class Replicas:
    """The owner of a version's replicas (`replica.Owner`), and of its hold on the artifact."""

    def __init__(
        self,
        life: Life,
        dispatcher: Dispatcher,
        channel: Channel,
        stats: ModelStats,
        learn: Callable[[ReadyReply], None],
    ) -> None:
        """`learn` is told what each worker says as it becomes ready."""
        self.all: list[Replica] = []
        #: Called with the reason when none of them serves any more; set by who loads them.
        self.on_lost: Callable[[str], None] = lambda reason: None
        #: CLOCK_MONOTONIC seconds since when none of them has a worker that answers; None: one has.
        self.silent_since: float | None = None
        #: How the last worker ended that did so by itself; continues "its worker …".
        self.last_end = ""
        self._life = life
        self._dispatcher = dispatcher
        self._channel = channel
        self._stats = stats
        self._learn = learn
        self._artifact: Artifact | None = None
        self._first_ready: asyncio.Future[None] | None = None
        self._ending: asyncio.Task[None] | None = None
        self._traceback = self._corrected = ""

    def hold(self, artifact: Artifact | None) -> None:
        """Their model's files stay on disk until they have ended."""
        self._artifact = artifact

    async def start(self, plan: ReplicaPlan, count: int) -> None:
        """Start so many; returns when the first is ready, and the version with it. Raises LoadError."""
        self._first_ready = asyncio.get_running_loop().create_future()
        self.all = [Replica(index, plan, self, self._dispatcher, self._channel) for index in range(count)]
        await self._first_ready

    async def stop(self) -> None:
        """Processes first, then the hold on the artifact; to the end, even if the caller is cancelled."""
        if self._ending is None or self._ending.done():
            self._ending = asyncio.create_task(self._end(), name=f"end workers of {self._life.label}")
        await asyncio.shield(self._ending)

    async def _end(self) -> None:
        replicas, self.all = self.all, []
        await asyncio.gather(*(replica.stop() for replica in replicas))
        if self._artifact is not None:
            self._artifact.release()
            self._artifact = None

    async def measure(self, *, exact: bool = True) -> None:
        """Read now what their workers use; not `exact`: where that seems to have changed."""
        await asyncio.gather(*(replica.measure(exact=exact) for replica in self.all))

    @property
    def memory_private(self) -> int:
        """Bytes that end with their workers, as last measured."""
        return sum(replica.memory.private for replica in self.all if replica.pid)

    # ---- what replicas say ----------------------------------------------------------------------

    def replica_loading(self) -> None:
        if self._life.state in (ModelState.PREPARING, ModelState.WARMING):
            self._life.move(ModelState.LOADING)

    def replica_warming(self) -> None:
        if self._life.state is ModelState.LOADING:
            self._life.move(ModelState.WARMING)

    def replica_ready(self, replica: Replica, ready: ReadyReply) -> None:
        self._learn(ready)
        if self._life.state is ModelState.READY and self.silent_since is not None:
            silence = time.monotonic() - self.silent_since
            self._life.log.info("%s answers again, after %.1f s without a worker", self._life.label, silence)
        self.silent_since = None
        if self._first_ready is not None and not self._first_ready.done():
            self._dispatcher.touch()
            self._life.move(ModelState.READY)
            self._first_ready.set_result(None)

    def replica_restarts(self, replica: Replica, reason: str, kind: str, delay: float) -> None:
        self._stats.restarts[kind] += 1
        self.last_end = reason
        self._note_silence()
        when = f"in {delay:g} s" if delay else "at once"
        self._life.log.warning("%s: its worker %s; the next one starts %s", replica.label, reason, when)

    def replica_traceback(self, replica: Replica, text: str) -> None:
        """The traceback of a failed load, once: a later try that fails alike adds nothing."""
        if text and text != self._traceback:
            self._traceback = text
            self._life.log.error("%s could not be loaded:\n%s", replica.label, text)

    def replica_corrected(self, replica: Replica, text: str) -> None:
        """What is wrong in its signature, once: every worker of it shows the same."""
        if text != self._corrected:
            self._corrected = text
            self._life.log.warning("%s: %s", self._life.label, text)

    def replica_imported(self, replica: Replica, modules: list[str]) -> None:
        replica.place.learn(replica.plan.environment, modules, again=self._life.on_demand)

    def replica_failed(self, replica: Replica, reason: str) -> float | None:
        """Seconds after which it may try again, beside others; None: there are none, this version has failed."""
        self.last_end = reason
        self._note_silence()
        if any(other.state in ("ready", "starting", "restarting") for other in self.all if other is not replica):
            self._life.log.error("%s rests for %g s, other replicas go on: %s", replica.label, REPLICA_REST, reason)
            return REPLICA_REST
        if self._first_ready is not None and not self._first_ready.done():
            self._first_ready.set_exception(LoadError(reason))
        elif self._life.state is ModelState.READY:
            self.on_lost(reason)
        return None

    def _note_silence(self) -> None:
        if self.silent_since is None and not any(replica.answers for replica in self.all):
            self.silent_since = time.monotonic()

    def replica_may_return(self, replica: Replica) -> bool:
        state = self._life.state
        return replica in self.all and (state is ModelState.READY or state.loading)
