"""What is done about too much memory, each second.

Every worker is measured by its place. One over its `limits.memory` is killed and replaced. Kubernetes ends the
whole container when its cgroup is full, so before that something leaves: a fork server without workers, else an idle
lazy model, else the worker that has grown most since it became ready.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from ...config.quantities import human_size
from ..places.place import Place, StartedWorker
from ..system.container import POD_LIMIT, PodMemory
from ..system.processes import Memory

INTERVAL = 1.0  # seconds


class Watched(Protocol):
    """A worker slot as this file sees it."""

    baseline: Memory

    @property
    def place(self) -> Place: ...
    @property
    def worker(self) -> StartedWorker | None: ...
    @property
    def memory_limit(self) -> int: ...
    def kill(self, reason: str, cause: str) -> None: ...


class MemoryWatch:
    """Runs as a task beside the server."""

    def __init__(
        self, pod: PodMemory, evict: Callable[[str], Awaitable[bool]], spare: Callable[[], bool] = lambda: False
    ) -> None:
        """`spare` ends what starts workers and has none, `evict` lets an idle lazy model go; false: there is none."""
        self._pod = pod
        self._evict = evict
        self._spare = spare

    async def look(self, slots: Sequence[Watched]) -> None:
        """Measure what runs, then enforce the limits."""
        present = [(slot, worker) for slot in slots if (worker := slot.worker) is not None]
        places: dict[int, tuple[Place, list[StartedWorker]]] = {}
        for slot, worker in present:
            places.setdefault(id(slot.place), (slot.place, []))[1].append(worker)
        await asyncio.gather(*(place.measure(workers) for place, workers in places.values()))
        used, limit = await asyncio.to_thread(self._pod.used_and_limit)
        alive: list[tuple[int, Watched]] = []
        for slot, worker in present:
            if slot.worker is not worker:
                continue  # replaced meanwhile
            memory = worker.memory
            if not slot.baseline.rss:
                slot.baseline = memory
            alive.append((memory.private - slot.baseline.private, slot))
            if slot.memory_limit and memory.private > slot.memory_limit:
                limit_text = human_size(slot.memory_limit)
                slot.kill(
                    f"was killed: it used {human_size(memory.private)} of memory, its limit is {limit_text}", "memory"
                )
        if limit and used > POD_LIMIT * limit:
            await self._make_room(alive, human_size(used), human_size(limit))

    async def _make_room(self, alive: list[tuple[int, Watched]], used: str, limit: str) -> None:
        if self._spare():
            return
        if await self._evict(f"evicted: the container uses {used} of its {limit}") or not alive:
            return
        grown, worst = max(alive, key=lambda each: each[0])
        worst.kill(
            f"was killed: the container uses {used} of its {limit}, "
            f"and this worker has grown most since it became ready ({human_size(max(grown, 0))})",
            "memory",
        )
