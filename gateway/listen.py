"""The ports of the gateway: HTTP, perhaps an admin port, perhaps gRPC; and the note that says where they are."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from aiohttp import web

from .. import __version__
from ..config.server import ServerSettings
from ..protocol.errors import ConfigError
from .app import make_admin_app, make_app, make_runner
from .bodies import Bodies, max_buffered
from .metrics import Metrics
from .registry import Registry
from .routes_control import Control

log = logging.getLogger("modelhub.server")


@asynccontextmanager
async def listening(
    server: ServerSettings, registry: Registry, metrics: Metrics, control: Control
) -> AsyncIterator[str]:
    """Open the ports, say where, leave a note of it for `modelhub status`. Yields the main port's URL."""
    place = server.admin_place
    bodies = Bodies(server.max_body, await asyncio.to_thread(max_buffered, server))
    metrics.watch_bodies(bodies)
    async with AsyncExitStack() as stack:
        app = make_app(registry, server, metrics, bodies, control if place == "same" else None)
        url = await _listen(app, server.host, server.port, stack)
        admin_url = url if place == "same" else ""
        if isinstance(place, int):
            admin = make_admin_app(registry, server, metrics, control)
            admin_url = await _listen(admin, "127.0.0.1", place, stack)
        grpc_url = await stack.enter_async_context(_listen_grpc(server, registry, metrics, bodies, control))
        pid, host = os.getpid(), os.uname().nodename  # containers that share the folder have the same process ids
        note = Path(server.state_dir) / "gateways" / f"{pid}@{host}.json"
        note.parent.mkdir(parents=True, exist_ok=True)
        facts = {"pid": pid, "host": host, "url": url, "admin_url": admin_url, "grpc_url": grpc_url}
        facts["started"] = time.time()
        part = note.with_name(f"{note.name}.part")
        part.write_text(json.dumps(facts), encoding="utf-8")
        part.replace(note)  # whole or not at all
        stack.callback(note.unlink, missing_ok=True)
        log.info("modelhub-serving %s listens on %s%s", __version__, url, f" and grpc://{grpc_url}" if grpc_url else "")
        if not server.is_loopback:
            log.warning(
                "%s is open to the network and there is no authentication: whoever reaches the port can use "
                "the models (--server.host=127.0.0.1 keeps it to this machine)",
                server.host,
            )
        yield url


async def _listen(app: web.Application, host: str, port: int, stack: AsyncExitStack) -> str:
    runner = make_runner(app)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    site = web.TCPSite(runner, host, port, backlog=1024)
    try:
        await site.start()
    except OSError as error:
        hint = "choose another with --server.port (or --server.admin), or 0 for any free one"
        raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror or error}; {hint}") from None
    shown = "127.0.0.1" if host in ("0.0.0.0", "::") else host
    return f"http://{f'[{shown}]' if ':' in shown else shown}:{runner.addresses[0][1]}"


@asynccontextmanager
async def _listen_grpc(
    server: ServerSettings, registry: Registry, metrics: Metrics, bodies: Bodies, control: Control
) -> AsyncIterator[str]:
    """Yields host:port of gRPC; "" without one: then grpc is not even imported."""
    if server.grpc_port is None:
        yield ""
        return
    from .grpc_server import listening as listening_grpc

    open_control = control if server.admin_place == "same" else None
    async with listening_grpc(server, registry, metrics, bodies, open_control) as address:
        yield address
