"""How a model version comes and goes: its load, the tries after one that failed, its drain and its end.

At most one load and one unload are under way; whoever asks for one meanwhile shares it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ...config.settings import ModelSettings
from ...protocol.errors import LoadError, NotReady, ServingError
from ...protocol.redaction import masked
from ..dispatch.dispatcher import Dispatcher
from ..system.timeouts import timeout
from .group import Group, Member, NoRoom
from .preparation import Prepared
from .replicas import Replicas
from .resources import Resources
from .states import Life, ModelState, Role, Wish, brief

#: A failed version is tried again after this many seconds, doubling to the second figure.
RETRY_FIRST, RETRY_MAX = 10.0, 600.0


class Loading:
    """Loads and unloads the version whose `life` this is; `member`: the same, as its group sees it."""

    def __init__(
        self,
        entry: ModelSettings,
        life: Life,
        replicas: Replicas,
        dispatcher: Dispatcher,
        group: Group | None,
        member: Member,
        resources: Resources,
    ) -> None:
        self.retry_at: float | None = None
        #: Nobody has asked for the load but, perhaps, requests that wait: as far as there is room.
        self.unasked = False
        #: Names the content on disk; "" until it is known.
        self.source = ""
        #: Why the registry could not be asked which version its URI means; "": it was, or need not be.
        self.stale = ""
        #: The next load fetches its files, also where they are here.
        self.anew = False
        self.environment = ""
        self.python = ""
        self._entry = entry
        self._life = life
        self._replicas = replicas
        self._dispatcher = dispatcher
        self._group = group
        self._member = member
        self._resources = resources
        self._load: asyncio.Task[None] | None = None
        self._unload: asyncio.Task[None] | None = None
        #: The load that was under way, or done, when the last unload began.
        self._dismissed: asyncio.Task[None] | None = None
        self._drain_until = float("inf")
        self._retry_timer: asyncio.TimerHandle | None = None
        replicas.on_lost = self._lost

    @property
    def stays_away(self) -> bool:
        """Nothing may have it loaded now."""
        life = self._life
        return life.wish is Wish.KEPT_UNLOADED or life.role is Role.RETIRED or self._resources.stopping

    @property
    def _comes_back(self) -> bool:
        return self._life.on_demand and not self.stays_away

    def not_ready(self) -> NotReady:
        """What a request is told that cannot be answered in the present state."""
        life = self._life
        if life.state.loading:
            message = f"model {life.label} is {life.state.value} since {life.seconds:.1f} s: try again later"
            return NotReady(message, retry_after=2.0)
        wait = max(self.retry_at - time.monotonic(), 1.0) if self.retry_at is not None else None
        return NotReady(f"model {life.label} is {life.state.value}: {brief(life.reason)}", retry_after=wait)

    # ---- up -------------------------------------------------------------------------------------

    def load_for_a_request(self) -> None:
        """A lazy version that is not loaded is loaded; one that is leaving comes back. Raises NotReady."""
        due = self.retry_at is None or time.monotonic() >= self.retry_at
        if not self._comes_back or not due:
            raise self.not_ready()
        if self._life.state is not ModelState.DRAINING:
            self.load()

    def load(self) -> asyncio.Task[None]:
        """Begin to load unless that is under way or done; the task ends when it is READY or FAILED, or may not load."""
        if self._load is None or self._load.done() or self._load is self._dismissed:
            self._load = asyncio.create_task(self._run_load(), name=f"load {self._life.label}")
        return self._load

    async def _run_load(self) -> None:
        life = self._life
        if self._unload is not None and not self._unload.done():
            await asyncio.wait({self._unload})
        if life.state is ModelState.READY:
            return
        if self.stays_away:
            self._dispatcher.fail_waiting(self.not_ready)
            return
        self._cancel_retry()
        life.move(ModelState.PREPARING)
        try:
            await self._bring_up()
        except asyncio.CancelledError:
            raise
        except NoRoom as error:
            await self._replicas.stop()
            life.load_on_demand()
            life.move(ModelState.UNLOADED, error.message)
            message, retry_after = error.message, error.retry_after
            self._dispatcher.fail_waiting(lambda: NoRoom(message, retry_after=retry_after))
        except ServingError as error:
            await self._replicas.stop()
            self._fail(error.message)
        except Exception as error:
            life.log.exception("loading %s failed in the gateway itself", life.label)
            await self._replicas.stop()
            self._fail(f"{type(error).__name__}: {error}")

    async def _bring_up(self) -> None:
        """From PREPARING to READY; once more where its files have changed on disk. Raises leaves of ServingError."""
        files = await self._prepared()
        try:
            return await self._start(files)
        except NotReady:
            raise
        except ServingError as error:
            artifact = files.artifact
            if artifact is None:
                raise
            await self._replicas.stop()
            try:
                if not await artifact.mend():
                    raise
            except ServingError as second:
                if second is error:
                    raise
                raise LoadError(f"{error.message}; its files have changed on disk, and {second.message}") from None
        await self._start(await self._prepared())

    async def _prepared(self) -> Prepared:
        await self._replicas.stop()
        anew, self.anew = self.anew, False
        prepared = await self._resources.prepare(self._entry, self._life.version, anew=anew)
        self._replicas.hold(prepared.artifact)
        return prepared

    async def _start(self, prepared: Prepared) -> None:
        self.source = prepared.source
        self.stale = prepared.artifact.stale if prepared.artifact is not None else ""
        self.environment, self.python = prepared.plan.environment.label, prepared.plan.environment.python_version
        self._life.resolved(prepared.version)
        self._dispatcher.label = self._life.label
        if self.stale:
            what = f"{masked(self._entry.uri)} is served as it was known last, and asked for again"
            self._life.log.warning("%s: %s: %s", self._life.label, what, self.stale)
        async with self._admitted():
            await self._replicas.start(prepared.plan, self._entry.replicas)

    @asynccontextmanager
    async def _admitted(self) -> AsyncIterator[None]:
        """A place among the loads that run at once; in a group, room in its budget. Raises NoRoom."""
        if self._group is None:
            async with self._resources.load_slot():
                yield
            return
        async with self._group.room(self._member):
            try:
                async with self._resources.load_slot():
                    yield
                await self._replicas.measure()
            except BaseException:
                await self._replicas.stop()  # only then is its room free
                raise

    # ---- after a failure ------------------------------------------------------------------------

    def _lost(self, reason: str) -> None:
        """It was READY, and its workers do not come back."""
        self._fail(reason)
        if self._group is not None:
            self._group.left(self._member)

    def _fail(self, reason: str) -> None:
        delay = min(RETRY_FIRST * 2**self._life.failures, RETRY_MAX)
        self.retry_at = time.monotonic() + delay
        self._retry_timer = asyncio.get_running_loop().call_later(delay, self._retry)
        self._life.move(ModelState.FAILED, reason, retry_in=delay)
        self._dispatcher.fail_waiting(self.not_ready)

    def _retry(self) -> None:
        if self._life.on_demand and self._life.role is not Role.CANDIDATE:
            self.unasked = True  # nobody waits for it: nobody has to leave for it
        self.load()

    def _cancel_retry(self) -> None:
        self.retry_at = None
        if self._retry_timer is not None:
            self._retry_timer.cancel()
            self._retry_timer = None

    # ---- down -----------------------------------------------------------------------------------

    def unload(self, grace: float, reason: str) -> asyncio.Task[None]:
        """Answer what it has within `grace` seconds, then end the processes. Callers at once share one unload."""
        self._drain_until = min(self._drain_until, time.monotonic() + grace)
        if self._unload is None or self._unload.done():
            if self._life.state is ModelState.READY:
                self._life.move(ModelState.DRAINING, reason)
            self._dismissed = self._load
            self._unload = asyncio.create_task(self._run_unload(reason), name=f"unload {self._life.label}")
        return self._unload

    def evict(self, reason: str) -> asyncio.Task[None]:
        """An idle one leaves at once for others; what is asked of it meanwhile waits and has it loaded again."""
        self._life.load_on_demand()
        self._dispatcher.let_go()
        return self.unload(0.0, reason)

    async def _run_unload(self, reason: str) -> None:
        life = self._life
        await self._stop_loading()
        self._cancel_retry()
        if life.state is not ModelState.UNLOADED:
            if life.state is not ModelState.DRAINING:
                life.move(ModelState.DRAINING, reason)
            await self._drain()
            await self._replicas.measure(exact=False)
            if self._group is not None:
                self._group.leaves(self._member)
            await self._replicas.stop()
            life.move(ModelState.UNLOADED, reason)
            if self._group is not None:
                self._group.left(self._member)
        life.reason = reason  # also of one that was not loaded
        self._drain_until = float("inf")
        if self._load is not self._dismissed:
            return  # somebody has had it loaded again meanwhile
        if self._dispatcher.queued and self._comes_back:
            self.load()  # asked for again while it left
        else:
            self._dispatcher.fail_waiting(self.not_ready)

    async def _stop_loading(self) -> None:
        """End the load that was under way when the unload began; who waits for it is answered if there is time."""
        loading = self._dismissed
        if loading is None or loading.done():
            return
        if self._life.state is ModelState.DRAINING:  # it was READY: what is left of its load is to measure it
            await asyncio.wait({loading})
            return
        while self._dispatcher.queued and not loading.done() and (left := self._drain_until - time.monotonic()) > 0:
            await asyncio.wait({loading}, timeout=min(left, 0.2))
        loading.cancel()
        await asyncio.wait({loading})

    async def _drain(self) -> None:
        """Until nothing waits or runs, or the grace is over; somebody in more of a hurry may shorten it."""
        queue = self._dispatcher
        while self._replicas.all and (left := self._drain_until - time.monotonic()) > 0:
            try:
                async with timeout(min(left, 0.2)):
                    return await queue.drained()
            except asyncio.TimeoutError:
                continue
        lost = queue.in_flight + (0 if self._comes_back else queue.queued)
        if lost:
            self._life.log.warning("%s: %d requests were not answered in time", self._life.label, lost)
