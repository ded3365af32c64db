"""A group of models that share a memory budget: who may load now, and who has to leave for it.

What counts is measured: the private bytes of the group's workers. A load is admitted with the size that the
same content needed last time, so that two loads at once do not overshoot together; a content that was never
seen loads while no other such one does, or has for longer than ten seconds. Only idle models that are not
pinned are evicted, the least recently used first, and only when that makes enough room.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Protocol

from ...config.quantities import human_size
from ...config.settings import GroupSettings, ModelSettings
from ...protocol.errors import NotReady
from ..system.timeouts import timeout
from .reloads import Reloads
from .sizes import Sizes
from .slots import slot

log = logging.getLogger("modelhub.models")

#: Seconds that a load waits for a busy model to become idle before it is refused.
ADMISSION_WAIT = 20.0


class NoRoom(NotReady):
    """The group's budget is taken by models that cannot leave."""


class Member(Protocol):
    """A model version, as its group sees it."""

    entry: ModelSettings

    @property
    def label(self) -> str: ...
    @property
    def source(self) -> str:
        """Names its content; "" until it is known."""

    @property
    def beside(self) -> Member | None:
        """What it is to replace, and is loaded beside."""

    @property
    def wanted(self) -> bool:
        """Whether others may be evicted for it."""

    @property
    def evictable(self) -> bool: ...
    @property
    def last_used(self) -> float: ...
    @property
    def phase_seconds(self) -> float: ...
    @property
    def memory_private(self) -> int:
        """Bytes that end with its workers, as last measured."""

    @property
    def memory_of_replicas(self) -> list[int]:
        """The same for each of its replicas, those that are not up yet included; []: it has none."""

    def evict(self, reason: str) -> asyncio.Task[None]: ...
    def load_on_demand(self) -> None: ...


class Group:
    """The versions of one group. All on the event loop; `room` is what waits."""

    def __init__(self, settings: GroupSettings, book: Sizes) -> None:
        self.settings = settings
        self.name = settings.name
        self.members: list[Member] = []
        self.loads = asyncio.Semaphore(settings.parallel_loads)
        self.evictions = 0
        #: Seconds that evicted models had been loaded.
        self.ages: deque[float] = deque(maxlen=1000)
        self._thrashing: Reloads[Member] = Reloads(settings.name)
        self._book = book
        #: Bytes kept for each version that is loaded, loads or leaves; what is measured counts where it is more.
        self._reserved: dict[Member, int] = {}
        self._peaks: dict[Member, int] = {}
        self._admission = asyncio.Lock()
        self._unknown = asyncio.Lock()
        self._changed = asyncio.Event()
        self._said_full = False

    def reconfigure(self, settings: GroupSettings) -> None:
        """New limits hold from the next look on; what is loaded stays loaded within them."""
        if settings.parallel_loads != self.settings.parallel_loads:
            self.loads = asyncio.Semaphore(settings.parallel_loads)
        self.settings = settings
        if self.lazy:  # what an eager group has let go comes back by a request in any case
            for member in self.members:
                member.load_on_demand()
        self.changed()

    def enrol(self, version: Member) -> None:
        """It is a member from now on."""
        self.members.append(version)

    def forget(self, version: Member) -> None:
        """It is no member any more."""
        self.members.remove(version)
        self._thrashing.forget(version)
        self._peaks.pop(version, None)  # of a load that failed
        self.changed()

    @property
    def lazy(self) -> bool:
        return self.settings.load == "lazy"

    @property
    def thrashing(self) -> int:
        """Loads within a minute of the model's eviction."""
        return self._thrashing.reloads

    def used(self) -> int:
        """Bytes: what is measured, or reserved where that is more."""
        return sum(self._size(member) for member in self._reserved)

    def loaded(self) -> int:
        """Models that are loaded, load or leave."""
        return len(self._reserved)

    def changed(self) -> None:
        """Somebody became idle or left: whoever waits for room may look again."""
        self._changed.set()

    def _size(self, member: Member) -> int:
        return max(member.memory_private, self._reserved.get(member, 0))

    def _known(self, version: Member) -> int | None:
        """Bytes that all its replicas needed last time."""
        known = self._book.size(version.source)
        return None if known is None else known * version.entry.replicas

    # ---- before and after a load ----------------------------------------------------------------

    @asynccontextmanager
    async def room(self, version: Member) -> AsyncIterator[None]:
        """A place among the loads of the group and room in its budget, made by evictions where need be.

        At its end the version has replicas, and keeps its room until it has `left`; or none, and gives it back.
        Raises NoRoom, naming what holds the budget.
        """
        async with AsyncExitStack() as stack:
            if self.settings.memory_budget and self._known(version) is None:
                await stack.enter_async_context(slot(self._unknown))
            await stack.enter_async_context(slot(self.loads))
            await self._admit(version)
            try:
                yield
            finally:
                self._settle(version)

    def _settle(self, version: Member) -> None:
        sizes = version.memory_of_replicas
        if not sizes:
            self._reserved.pop(version, None)
        elif version in self._reserved:
            # not all replicas need be up yet, and what the content grew to last time it may grow to again
            measured = max(sizes) * len(sizes)
            known = self._known(version)
            if known is None and version.source and measured:
                self._book.remember(version.source, max(sizes))
            self._reserved[version] = max(measured, known or 0)
        self.changed()

    def leaves(self, version: Member) -> None:
        """Its processes are about to end: until they have, what they hold is not free."""
        if version in self._reserved:
            self._reserved[version] = self._size(version)
            self._note_peak(version)

    def left(self, version: Member) -> None:
        """Its processes are gone."""
        self._reserved.pop(version, None)
        peak = self._peaks.pop(version, 0) // max(version.entry.replicas, 1)
        if peak and version.source:
            # up at once, down slowly: how much a model grows depends on the requests that it got
            known = self._book.size(version.source) or 0
            self._book.remember(version.source, peak if peak >= known else (3 * known + peak) // 4)
        self.changed()

    def _note_peak(self, version: Member) -> None:
        self._peaks[version] = max(self._peaks.get(version, 0), version.memory_private)

    async def _admit(self, version: Member) -> None:
        """Reserve room, waiting for busy models where that helps. Raises NoRoom."""
        deadline = time.monotonic() + ADMISSION_WAIT
        while True:
            async with self._admission:
                known = self._known(version)
                need = known if known is not None else self._book.typical() * version.entry.replicas
                if await self._make_room(version, need):
                    self._reserved[version] = need
                    break
            left = deadline - time.monotonic()
            if not version.wanted or not self._someone_may_leave(version) or left <= 0:
                self._say_full(version)
                raise NoRoom(self._why_full(version, need), retry_after=5.0)
            self._changed.clear()
            try:
                async with timeout(left):
                    await self._changed.wait()
            except asyncio.TimeoutError:
                continue
        self._thrashing.loaded(version, self._enough)

    async def _make_room(self, version: Member, need: int) -> bool:
        """Evict as many as it takes; none where all that may go would not be enough."""
        while not self._fits(version, need, self.loaded(), self.used()):
            victims = self._victims(version, need) if version.wanted else []
            if not victims:
                return False
            await self._evict(victims, f"evicted to make room for {version.label}")
        budget = self.settings.memory_budget
        if budget and need > budget:
            size = f"{human_size(need)} of memory, more than the memory_budget of {human_size(budget)}"
            log.warning("%s needs %s of group %s: it is loaded alone", version.label, size, self.name)
        return True

    def _fits(self, version: Member, need: int, loaded: int, used: int) -> bool:
        """Whether one more of this size may load. One that is larger than the whole budget may when it is alone."""
        settings = self.settings
        # the next version of a model is loaded beside it: for that moment the two count as one
        most = None if settings.max_loaded is None else settings.max_loaded + (version.beside in self._reserved)
        if most is not None and loaded >= most:
            return False
        return settings.memory_budget is None or loaded == 0 or used + need <= settings.memory_budget

    def _idle(self) -> list[Member]:
        """Those that may go, the least recently used first."""
        return sorted((member for member in self._reserved if member.evictable), key=lambda member: member.last_used)

    def _victims(self, version: Member, need: int) -> list[Member]:
        """Who has to go so that it fits; nobody where that cannot be reached now."""
        loaded, used = self.loaded(), self.used()
        victims: list[Member] = []
        for member in self._idle():
            if member is version.beside:
                continue  # it goes on answering until this one takes over
            victims.append(member)
            loaded, used = loaded - 1, used - self._size(member)
            if self._fits(version, need, loaded, used):
                return victims
        return []

    def _someone_may_leave(self, version: Member) -> bool:
        """A busy, loading or leaving model that is not pinned: waiting for it makes sense."""
        return any(
            member is not version and member is not version.beside and not member.entry.pinned
            for member in self._reserved
        )

    def _why_full(self, version: Member, need: int) -> str:
        holders = sorted(self._reserved, key=self._size, reverse=True)
        held = ", ".join(
            f"{member.label} {human_size(self._size(member))}{' (pinned)' if member.entry.pinned else ''}"
            for member in holders[:5]
        )
        more = f" and {len(holders) - 5} more" if len(holders) > 5 else ""
        limit = f"memory_budget {human_size(self.settings.memory_budget)}" if self.settings.memory_budget else ""
        if self.settings.max_loaded is not None:
            limit = " and ".join(filter(None, [limit, f"max_loaded {self.settings.max_loaded}"]))
        wants = f" of about {human_size(need)}" if need else ""
        return (
            f"no room for {version.label}{wants} in group {self.name} ({limit}), "
            f"which is held by {held or 'nobody'}{more}"
        )

    def _say_full(self, version: Member) -> None:
        if not version.wanted and not self._said_full:
            self._said_full = True
            log.warning(
                "group %s: not all that is to be loaded at start has room; the rest, %s first, is loaded by requests",
                self.name,
                version.label,
            )

    async def _evict(self, victims: list[Member], reason: str) -> None:
        for victim in victims:
            self.evictions += 1
            self.ages.append(victim.phase_seconds)
            self._thrashing.evicted(victim)
            # in a lazy group that is how it works, in an eager one nobody expects it
            log.log(logging.DEBUG if self.lazy else logging.INFO, "%s leaves: %s", victim.label, reason)
        if victims:
            await asyncio.wait([victim.evict(reason) for victim in victims])

    def _enough(self) -> str:
        """The limits that would hold what was used in the last minute, for people."""
        wanted = self._thrashing.wanted(self._reserved)
        size = human_size(sum(max(self._size(member), self._known(member) or 0) for member in wanted))
        limits = []
        if self.settings.memory_budget is not None:
            limits.append(f"a memory_budget of about {size}")
        if self.settings.max_loaded is not None:
            limits.append(f"max_loaded {len(wanted)}")
        return " and ".join(limits) or "a longer idle_timeout"

    # ---- each second ----------------------------------------------------------------------------

    async def tick(self) -> None:
        """Evict what was idle for too long, and what has grown over the budget."""
        settings = self.settings
        for member in self._reserved:
            self._note_peak(member)
        if settings.idle_timeout is not None and self.lazy:
            limit = time.monotonic() - settings.idle_timeout
            idle = [member for member in self._idle() if member.last_used < limit]
            await self._evict(idle, f"idle for {settings.idle_timeout:g} s")
        if settings.memory_budget and not self._admission.locked():
            async with self._admission:
                while self.used() > settings.memory_budget and self.loaded() > 1:
                    victims = self._idle()[:1]
                    if not victims:
                        break
                    await self._evict(victims, "evicted: the group is over its memory budget")

    def idlest(self) -> Member | None:
        """The least recently used of those that may go."""
        return next(iter(self._idle()), None) if self.lazy else None

    async def evict(self, victim: Member, reason: str) -> None:
        """Let it go because the whole container needs room."""
        await self._evict([victim], reason)
