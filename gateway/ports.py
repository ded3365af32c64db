"""The ports of the gateway: HTTP, perhaps an admin port, perhaps gRPC; and the note that says where they are."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from aiohttp import web

from .. import __version__
from ..config.server import ServerSettings
from ..protocol.errors import ConfigError
from .dataplane.control import Control
from .dataplane.descriptions import Descriptions
from .dataplane.inference import Inference
from .http.app import make_admin_app, make_app
from .http.connection import make_runner
from .metrics.scrape import Metrics
from .telemetry.counters import Counters

log = logging.getLogger("modelhub.server")


class Doors(NamedTuple):
    """What stands behind the ports, for every front."""

    inference: Inference
    about: Descriptions
    metrics: Metrics
    counters: Counters
    control: Control


@asynccontextmanager
async def listening(server: ServerSettings, doors: Doors) -> AsyncIterator[str]:
    """Open the ports, say where, leave a note of it for `modelhub status`. Yields the main port's URL."""
    place = server.admin_place
    control = doors.control if place == "same" else None
    about = doors.about.open_to_control(control is not None)
    async with AsyncExitStack() as stack:

        async def listen(app: web.Application, host: str, port: int) -> str:
            limit, count = server.max_connections, doors.counters.error
            runner = make_runner(app, grace=server.shutdown_grace, max_connections=limit, count=count)
            return await _listen(runner, host, port, stack)

        main = make_app(doors.inference, about, doors.metrics, doors.counters, control)
        url = await listen(main, server.host, server.port)
        admin_url = url if place == "same" else ""
        if isinstance(place, int):
            admin_url = await listen(make_admin_app(doors.about, doors.control), "127.0.0.1", place)
        grpc_url = await stack.enter_async_context(
            _listen_grpc(server, doors.inference, about, doors.counters, control)
        )
        _leave_note(server, {"url": url, "admin_url": admin_url, "grpc_url": grpc_url}, stack)
        log.info("modelhub-serving %s listens on %s%s", __version__, url, f" and grpc://{grpc_url}" if grpc_url else "")
        if not server.is_loopback:
            log.warning(
                "%s is open to the network and there is no authentication: whoever reaches the port can use "
                "the models (--server.host=127.0.0.1 keeps it to this machine)",
                server.host,
            )
        yield url


def _leave_note(server: ServerSettings, urls: dict[str, str], stack: AsyncExitStack) -> None:
    """`<state_dir>/gateways/<pid>@<host>.json`, whole or not at all; it goes when the stack is closed."""
    pid, host = os.getpid(), os.uname().nodename  # containers that share the folder have the same process ids
    note = Path(server.state_dir) / "gateways" / f"{pid}@{host}.json"
    note.parent.mkdir(parents=True, exist_ok=True)
    facts = {"pid": pid, "host": host, **urls, "started": time.time()}
    part = note.with_name(f"{note.name}.part")
    part.write_text(json.dumps(facts), encoding="utf-8")
    part.replace(note)
    stack.callback(note.unlink, missing_ok=True)


async def _listen(runner: web.AppRunner, host: str, port: int, stack: AsyncExitStack) -> str:
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
    server: ServerSettings, inference: Inference, about: Descriptions, counters: Counters, control: Control | None
) -> AsyncIterator[str]:
    """Yields host:port of gRPC; "" without one: then grpc is not even imported."""
    if server.grpc_port is None:
        yield ""
        return
    from .grpc.server import listening as listening_grpc

    async with listening_grpc(server, inference, about, counters, control) as address:
        yield address
