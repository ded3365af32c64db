"""Memory of workers, measured off the event loop, and what is done about too much of it.

Each second every worker's resident size is read (cheap); its private and proportional sizes
(`smaps_rollup`, a walk over its page tables) only when the resident size has moved or is old. A worker
over its `limits.memory` is killed and replaced. Kubernetes ends the whole container when its cgroup is
full, so before that the worker that has grown most since it became ready is killed instead.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Protocol

from ..config.quantities import human_size
from .processes import Memory, read_memory, read_rss

INTERVAL = 1.0  # seconds
REFRESH = 30.0  # seconds after which the exact sizes are read again even if nothing seems to have changed
MOVED = 0.02  # a resident size that changed by this part is read exactly
POD_LIMIT = 0.95  # of the cgroup's limit


class Watched(Protocol):
    """A worker slot as this file sees it."""

    memory: Memory
    baseline: Memory

    @property
    def memory_limit(self) -> int: ...
    @property
    def label(self) -> str: ...
    @property
    def pid(self) -> int: ...
    def kill(self, reason: str, cause: str) -> None: ...


class PodMemory:
    """The memory limit of the container that the gateway runs in (cgroup v2)."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder if folder is not None else _own_cgroup()

    def used_and_limit(self) -> tuple[int, int]:
        """Bytes; limit 0 where there is none."""
        if self._folder is None:
            return 0, 0
        try:
            limit = (self._folder / "memory.max").read_text().strip()
            if limit == "max":
                return 0, 0
            used = int((self._folder / "memory.current").read_text())
            stat = dict(line.split() for line in (self._folder / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):
            return 0, 0
        return used - int(stat.get("inactive_file", 0)), int(limit)


def _own_cgroup() -> Path | None:
    try:
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            if line.startswith("0::"):
                folder = Path("/sys/fs/cgroup") / line[3:].lstrip("/")
                return folder if (folder / "memory.max").exists() else None
    except OSError:
        return None
    return None


class MemoryWatch:
    """Runs as a task beside the server."""

    def __init__(self, pod: PodMemory, evict: Callable[[str], Awaitable[bool]]) -> None:
        """`evict` lets an idle lazy model go; false when there is none."""
        self._pod = pod
        self._evict = evict

    async def look(self, workers: Sequence[Watched]) -> None:
        """Read what has moved, then enforce the limits."""
        present = [(worker, worker.pid) for worker in workers if worker.pid]
        sizes, (used, limit) = await asyncio.to_thread(self._read, [(worker.memory, pid) for worker, pid in present])
        alive: list[Watched] = []
        for (worker, pid), memory in zip(present, sizes, strict=True):
            if worker.pid != pid:
                continue  # replaced meanwhile
            worker.memory = memory
            if not worker.baseline.rss:
                worker.baseline = memory
            alive.append(worker)
            if worker.memory_limit and memory.private > worker.memory_limit:
                limit_text = human_size(worker.memory_limit)
                worker.kill(
                    f"was killed: it used {human_size(memory.private)} of memory, its limit is {limit_text}", "memory"
                )
        if not limit or used <= POD_LIMIT * limit:
            return
        if await self._evict(f"evicted: the container uses {human_size(used)} of its {human_size(limit)}"):
            return
        if alive:
            worst = max(alive, key=lambda worker: worker.memory.private - worker.baseline.private)
            grown = worst.memory.private - worst.baseline.private
            worst.kill(
                f"was killed: the container uses {human_size(used)} of its {human_size(limit)}, "
                f"and this worker has grown most since it became ready ({human_size(max(grown, 0))})",
                "memory",
            )

    def _read(self, known: list[tuple[Memory, int]]) -> tuple[list[Memory], tuple[int, int]]:
        found = []
        now = time.monotonic()
        for memory, pid in known:
            rss = read_rss(pid)
            same = memory.rss and abs(rss - memory.rss) < MOVED * memory.rss and now - memory.read_at < REFRESH
            found.append(memory if same else read_memory(pid))
        return found, self._pod.used_and_limit()
