"""A group of models that share a memory budget: who may load now, and who has to leave for it.

What counts is measured: the private bytes of the group's workers. A load is admitted with the size that
the same content needed last time, so that two loads at once do not overshoot together; a content that was
never seen loads alone. Only idle models that are not pinned are evicted, the least recently used first.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from typing import TYPE_CHECKING

from ..config.settings import GroupSettings
from ..protocol.errors import NotReady
from .lifecycle import ModelState
from .memory import human
from .memory_book import MemoryBook
from .timeouts import timeout

if TYPE_CHECKING:
    from .model import ModelVersion

log = logging.getLogger(__name__)

#: Seconds that a load waits for a busy model to become idle before it is refused.
ADMISSION_WAIT = 20.0
#: A model that is loaded again within this many seconds of its eviction is a sign of thrashing,
THRASH_WINDOW = 60.0
#: and this many of them in that time are worth a warning, said again after REPEAT_WARNING.
THRASH_RELOADS = 10
REPEAT_WARNING = 600.0


class NoRoom(NotReady):
    """The group's budget is taken by models that cannot leave."""


class Group:
    """The versions of one group. All on the event loop; `admit` is the only thing that waits."""

    def __init__(self, settings: GroupSettings, book: MemoryBook) -> None:
        self.settings = settings
        self.name = settings.name
        self.members: list[ModelVersion] = []
        self.loads = asyncio.Semaphore(settings.parallel_loads)
        self.evictions = 0
        self.thrashing = 0
        #: Seconds that evicted models had been loaded.
        self.ages: deque[float] = deque(maxlen=1000)
        self._book = book
        self._reserved: dict[ModelVersion, int] = {}
        self._admission = asyncio.Lock()
        self._unknown = asyncio.Lock()
        self._changed = asyncio.Event()
        self._evicted: dict[ModelVersion, float] = {}
        self._reloads: deque[float] = deque()
        self._warned = float("-inf")

    def reconfigure(self, settings: GroupSettings) -> None:
        """New limits hold from the next look on; what is loaded stays loaded within them."""
        if settings.parallel_loads != self.settings.parallel_loads:
            self.loads = asyncio.Semaphore(settings.parallel_loads)
        self.settings = settings
        for member in self.members:
            member.lazy = self.lazy
        self.changed()

    @property
    def lazy(self) -> bool:
        return self.settings.load == "lazy"

    def used(self) -> int:
        """Bytes: what is measured, or reserved where there is no measurement yet."""
        return sum(self._size(member) for member in self.members)

    def loaded(self) -> int:
        return sum(1 for member in self.members if member in self._reserved or member.replicas)

    def changed(self) -> None:
        """Somebody became idle or left: whoever waits for room may look again."""
        self._changed.set()

    def _size(self, member: ModelVersion) -> int:
        return max(member.memory_private, self._reserved.get(member, 0))

    # ---- before and after a load ----------------------------------------------------------------

    async def admit(self, version: ModelVersion, source: str) -> None:
        """Make room for a load and reserve it. Raises NoRoom, naming what holds the budget."""
        known = self._book.size(source)
        if known is None and self.settings.memory_budget:
            await self._unknown.acquire()
        try:
            need = (known if known is not None else self._book.typical()) * version.entry.replicas
            async with self._admission:
                await self._make_room(version, need)
                self._reserved[version] = need
        except BaseException:
            if known is None and self.settings.memory_budget:
                self._unknown.release()
            raise
        version.unknown_size = known is None and bool(self.settings.memory_budget)
        self._note_reload(version)

    def settle(self, version: ModelVersion, source: str, measured: int) -> None:
        """The load is over; `measured` 0: it failed."""
        if measured and source:
            self._book.remember(source, measured // max(version.entry.replicas, 1))
        if version.unknown_size:
            version.unknown_size = False
            self._unknown.release()
        if not measured:
            self._reserved.pop(version, None)
        else:
            self._reserved[version] = measured
        self.changed()

    def left(self, version: ModelVersion, source: str, measured: int) -> None:
        """Its processes are gone."""
        known = self._book.size(source)
        if source and measured > (known or 0):
            self._book.remember(source, measured)
        self._reserved.pop(version, None)
        self.changed()

    async def _make_room(self, version: ModelVersion, need: int) -> None:
        deadline = time.monotonic() + ADMISSION_WAIT
        while self._lacks(need):
            victim = self._victim(version)
            if victim is not None:
                await self._evict(victim, f"evicted to make room for {version.label}")
                continue
            if not self._someone_may_leave(version) or time.monotonic() > deadline:
                raise NoRoom(self._why_full(version, need), retry_after=5.0)
            self._changed.clear()
            try:
                async with timeout(deadline - time.monotonic()):
                    await self._changed.wait()
            except asyncio.TimeoutError:
                continue

    def _lacks(self, need: int) -> bool:
        settings = self.settings
        if settings.max_loaded is not None and self.loaded() >= settings.max_loaded:
            return True
        budget = settings.memory_budget
        # a model larger than the whole budget is let in when it would be alone, and said so
        return bool(budget) and self.used() + need > (budget or 0) and self.used() > 0

    def _victim(self, besides: ModelVersion | None = None) -> ModelVersion | None:
        idle = [member for member in self.members if member is not besides and member.evictable]
        return min(idle, key=lambda member: member.last_used, default=None)

    def _someone_may_leave(self, besides: ModelVersion) -> bool:
        """A busy, loading or draining model that is not pinned: waiting for it makes sense."""
        return any(
            member is not besides
            and not member.entry.pinned
            and member.state not in (ModelState.UNLOADED, ModelState.FAILED)
            for member in self.members
        )

    def _why_full(self, version: ModelVersion, need: int) -> str:
        holders = sorted(self.members, key=self._size, reverse=True)
        held = ", ".join(
            f"{member.label} {human(self._size(member))}{' (pinned)' if member.entry.pinned else ''}"
            for member in holders[:5]
            if self._size(member) or member.replicas
        )
        limit = f"memory_budget {human(self.settings.memory_budget)}" if self.settings.memory_budget else ""
        if self.settings.max_loaded is not None:
            limit = " and ".join(filter(None, [limit, f"max_loaded {self.settings.max_loaded}"]))
        wants = f" of about {human(need)}" if need else ""
        return f"no room for {version.label}{wants} in group {self.name} ({limit}), which is held by {held or 'nobody'}"

    async def _evict(self, victim: ModelVersion, reason: str) -> None:
        self.evictions += 1
        self.ages.append(victim.phase_seconds)
        self._evicted[victim] = time.monotonic()
        await victim.unload(0.5, reason)

    # ---- each second ----------------------------------------------------------------------------

    async def tick(self) -> None:
        """Evict what was idle for too long, and what has grown over the budget."""
        settings = self.settings
        if settings.idle_timeout is not None and self.lazy:
            limit = time.monotonic() - settings.idle_timeout
            for member in [member for member in self.members if member.evictable and member.last_used < limit]:
                await self._evict(member, f"idle for {settings.idle_timeout:g} s")
        if settings.memory_budget and not self._admission.locked():
            async with self._admission:
                while self.used() > settings.memory_budget and self.loaded() > 1:
                    victim = self._victim()
                    if victim is None:
                        break
                    await self._evict(victim, "evicted: the group is over its memory budget")

    async def evict_one(self, reason: str) -> bool:
        """Let the least recently used idle model go, because the whole container needs room."""
        victim = self._victim() if self.lazy else None
        if victim is None:
            return False
        await self._evict(victim, reason)
        return True

    def _note_reload(self, version: ModelVersion) -> None:
        now = time.monotonic()
        if now - self._evicted.pop(version, float("-inf")) > THRASH_WINDOW:
            return
        self.thrashing += 1
        self._reloads.append(now)
        while self._reloads and now - self._reloads[0] > THRASH_WINDOW:
            self._reloads.popleft()
        if len(self._reloads) >= THRASH_RELOADS and now - self._warned > REPEAT_WARNING:
            self._warned = now
            wanted = [member for member in self.members if now - member.last_used < THRASH_WINDOW]
            enough = sum(max(self._size(member), self._book.size(member.source) or 0) for member in wanted)
            log.warning(
                "group %s is thrashing: %d models were loaded again within a minute of their eviction; the %d models "
                "used in the last minute need a memory_budget of about %s",
                self.name,
                len(self._reloads),
                len(wanted),
                human(enough),
            )
