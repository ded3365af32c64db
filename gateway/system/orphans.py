"""Process 1 of a container is the parent of every orphan in it: the gateway waits for those that nobody else waits for.

What the gateway itself has started (fork servers, the fetcher, uv) is waited for by whoever started it, at
once; only what has been a zombie for a while is taken here, so that no exit code is stolen.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time

from ...workers import linux

log = logging.getLogger("modelhub.workers")

#: Seconds between two looks, and for which a zombie is left to whoever may wait for it.
INTERVAL = 5.0
PATIENCE = 10.0


class Orphans:
    """Remembers since when each zombie has been one."""

    def __init__(self, patience: float = PATIENCE) -> None:
        self._patience = patience
        self._since: dict[int, float] = {}

    def reap(self) -> list[int]:
        """Wait for the zombies among this process's children that have been there for so long; their ids."""
        mine, now = os.getpid(), time.monotonic()
        zombies = [pid for pid, facts in linux.all_processes().items() if facts.zombie and facts.parent == mine]
        self._since = {pid: self._since.get(pid, now) for pid in zombies}
        reaped = []
        for pid, since in self._since.items():
            if now - since < self._patience:
                continue
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                continue  # somebody waited for it after all
            reaped.append(pid)
        return reaped


async def reap_orphans() -> None:
    """Runs beside the server until it is cancelled; returns at once where this process is not process 1."""
    if os.getpid() != 1:
        return
    orphans = Orphans()
    while True:
        await asyncio.sleep(INTERVAL)
        reaped = await asyncio.to_thread(orphans.reap)
        if reaped:
            log.debug("waited for orphans: %s", reaped)
