"""What all model versions share: made once at start by the server, handed to each by the catalog."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Protocol

from ...config.settings import ModelSettings
from ..dispatch.channel import Channel
from ..telemetry.counters import Counters
from .preparation import Prepared
from .slots import slot


class Prepare(Protocol):
    """Brings an entry's files and environment here; `version` "": any; `anew`: also files that are here."""

    async def __call__(self, entry: ModelSettings, version: str, *, anew: bool = False) -> Prepared: ...


class Resources:
    """Lives as long as the gateway's event loop."""

    def __init__(
        self,
        channel: Channel,
        counters: Counters,
        prepare: Prepare,
        left_behind: Callable[[int], None] = lambda size: None,
    ) -> None:
        """`left_behind`: told of the bytes, more or less, that workers hold for clients that have left."""
        self.channel = channel
        self.counters = counters
        self.prepare = prepare
        self.left_behind = left_behind
        #: The server ends: nothing is loaded any more.
        self.stopping = False
        #: Loads that may run at once: a load is CPU work, and more of them than cores slow each other.
        self._loads = asyncio.Semaphore(max(2, os.cpu_count() or 2))

    @asynccontextmanager
    async def load_slot(self) -> AsyncIterator[None]:
        """A place among the loads that run at once; one that takes long gives its place to others and goes on."""
        async with slot(self._loads):
            yield
