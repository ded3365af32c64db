"""What the whole gateway shares: made once at start, handed to every model version."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from .artifacts import ArtifactStore
from .channel import Channel
from .environments import Environments
from .fetch import Fetcher
from .fork_server import ForkServers
from .metrics import Metrics
from .progress import Display

if TYPE_CHECKING:
    from .model import ModelVersion
    from .script_services import Script

#: A load that waits for something (a network, a lock) must not hold up those that would be done by now.
SLOT_SECONDS = 10.0


@dataclass
class Resources:
    """Lives as long as the gateway's event loop."""

    runtime_dir: Path
    channel: Channel
    fork_servers: ForkServers
    environments: Environments
    fetcher: Fetcher
    artifacts: ArtifactStore
    metrics: Metrics
    max_inflated: int
    display: Display
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    #: Loads that may run at once: a load is CPU work, and more of them than cores slow each other.
    _loads: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(max(2, os.cpu_count() or 2)))
    #: The server ends: nothing is loaded any more.
    stopping: bool = False
    #: The user's script that this gateway was started by; None for a gateway that was started by itself.
    script: Script | None = None
    #: Called after every change of state.
    on_change: Callable[[ModelVersion], None] = lambda version: None

    @asynccontextmanager
    async def load_slot(self) -> AsyncIterator[None]:
        """A place among the loads that run at once; one that takes long gives its place to others and goes on."""
        await self._loads.acquire()
        released = False

        def release() -> None:
            nonlocal released
            if not released:
                released = True
                self._loads.release()

        timer = asyncio.get_running_loop().call_later(SLOT_SECONDS, release)
        try:
            yield
        finally:
            timer.cancel()
            release()
