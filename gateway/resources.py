"""What the whole gateway shares: made once at start, handed to every model version."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from .artifacts import ArtifactStore
from .channel import Channel
from .environments import Environments
from .fetch import Fetcher
from .fork_server import ForkServers
from .metrics import Metrics

if TYPE_CHECKING:
    from .model import ModelVersion
    from .script_services import Script


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
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    #: Loads that may run at once: a load is CPU work, and more of them than cores slow each other.
    loads: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(max(2, os.cpu_count() or 2)))
    #: The server ends: nothing is loaded any more.
    stopping: bool = False
    #: The user's script that this gateway was started by; None for a gateway that was started by itself.
    script: Script | None = None
    #: Called after every change of state.
    on_change: Callable[[ModelVersion], None] = lambda version: None
