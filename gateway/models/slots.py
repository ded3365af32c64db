"""Places among loads that run at once, which one that takes long gives to others, and goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

#: A load that waits for something (a network, a lock, a large file) must not hold up those that would be done by now.
SLOT_SECONDS = 10.0


@asynccontextmanager
async def slot(places: asyncio.Semaphore | asyncio.Lock) -> AsyncIterator[None]:
    """One of these places, for SLOT_SECONDS at most."""
    await places.acquire()
    released = False

    def release() -> None:
        nonlocal released
        if not released:
            released = True
            places.release()

    timer = asyncio.get_running_loop().call_later(SLOT_SECONDS, release)
    try:
        yield
    finally:
        timer.cancel()
        release()
