"""The ports of the gateway: HTTP, perhaps an admin port, perhaps gRPC; and the note that says where they are."""

from __future__ import annotations

import errno
import json
import logging
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

from aiohttp import web

from .. import __version__
from ..config.server import ServerSettings
from ..protocol.errors import ConfigError
from .dataplane.control import Control
from .dataplane.descriptions import Descriptions
from .dataplane.inference import Inference
from .http.app import make_admin_app, make_app
from .http.connection import HttpRunner, make_runner
from .metrics.scrape import Metrics
from .security.guard import ControlGuard, guard_of
from .security.tokens import leave_token
from .system.descriptors import files_for_connections
from .telemetry.counters import Counters

log = logging.getLogger("modelhub.server")

#: Where an admin port of its own listens.
ADMIN_HOST = "127.0.0.1"


class Doors(NamedTuple):
    """What stands behind the ports, for every front."""

    inference: Inference
    about: Descriptions
    metrics: Metrics
    counters: Counters
    #: Makes the door to what changes the server, for a listener with this guard; open there, or not.
    control: Callable[[ControlGuard, bool], Control]


class GrpcPort(Protocol):
    """As its module makes it: grpc is imported only where there is one."""

    address: str

    def refuse(self) -> None: ...


class Ports:
    """The open ports; `url` is the main one's."""

    def __init__(self, url: str, runners: list[HttpRunner], grpc: GrpcPort | None) -> None:
        self.url = url
        self._runners = runners
        self._grpc = grpc

    def let_go(self) -> None:
        """HTTP's clients are told with their next answers to go elsewhere. New ones are still taken."""
        for runner in self._runners:
            runner.let_go()

    async def refuse(self) -> None:
        """No connection is taken any more; gRPC's clients are told so at once."""
        for runner in self._runners:
            await runner.refuse()
        if self._grpc is not None:
            self._grpc.refuse()

    @property
    def busy(self) -> bool:
        """Whether an HTTP connection has a request."""
        return any(runner.busy for runner in self._runners)


@asynccontextmanager
async def listening(server: ServerSettings, doors: Doors) -> AsyncIterator[Ports]:
    """Open the ports, say where, leave a note of it for `modelhub status`."""
    place = server.admin_place
    runners: list[HttpRunner] = []
    async with AsyncExitStack() as stack:
        token_file = _own_file(server, ".token") if place != "off" and server.admin_auth == "token" else None
        token = leave_token(token_file) if token_file is not None else None
        if token_file is not None:
            stack.callback(token_file.unlink, missing_ok=True)

        def control(listener: str, *, is_open: bool) -> Control:
            guard = guard_of(listener, token, hosts=server.admin_hosts, overrides=server.load_overrides)
            return doors.control(guard, is_open)

        async def listen(app: web.Application, host: str, port: int, *, or_another: bool = False) -> str:
            runner = make_runner(
                app,
                grace=server.shutdown_grace,
                max_connections=most_connections(server),
                count=doors.counters.error,
                write_timeout=server.write_timeout,
            )
            runners.append(runner)
            return await _listen(runner, host, port, stack, or_another=or_another)

        here = control(server.host, is_open=place == "same")
        about = doors.about.open_to_control(here.is_open)
        url = await listen(
            make_app(doors.inference, about, doors.metrics, doors.counters, here), server.host, server.port
        )
        admin_url = url if place == "same" else ""
        if isinstance(place, int):
            app = make_admin_app(doors.about, control(ADMIN_HOST, is_open=True))
            admin_url = await listen(app, ADMIN_HOST, place, or_another=server.admin is None)
        grpc = await stack.enter_async_context(_listen_grpc(server, doors.inference, about, doors.counters, here))
        grpc_url = grpc.address if grpc is not None else ""
        urls = {"url": url, "admin_url": admin_url, "grpc_url": grpc_url}
        _leave_note(server, {**urls, "token_file": str(token_file or "")}, stack)
        _say_where(server, urls, token_file)
        yield Ports(url, runners, grpc)


def most_connections(server: ServerSettings) -> int:
    """Of HTTP, and as many of gRPC."""
    return min(server.max_connections, files_for_connections(1 if server.grpc_port is None else 2))


def _say_where(server: ServerSettings, urls: dict[str, str], token_file: Path | None) -> None:
    grpc, admin = urls["grpc_url"], urls["admin_url"]
    more = f" and grpc://{grpc}" if grpc else ""
    if admin and admin != urls["url"]:
        more += f", for operators on {admin}"
    log.info("modelhub-serving %s listens on %s%s", __version__, urls["url"], more)
    if token_file is not None:
        log.info("operators' requests need the token in %s", token_file)
    elif admin:
        log.warning(
            "server.admin_auth is off: whoever reaches %s, every model's code and whatever a proxy lets through "
            "among them, can load, unload and reload (a token is the default)",
            admin,
        )
    if not server.is_loopback:
        log.warning(
            "%s is open to the network and there is no authentication: whoever reaches the port can use "
            "the models (--server.host=127.0.0.1 keeps it to this machine)",
            server.host,
        )


def _own_file(server: ServerSettings, suffix: str) -> Path:
    """`<state_dir>/gateways/<pid>@<host>` and this suffix."""
    pid, host = os.getpid(), os.uname().nodename  # containers that share the folder have the same process ids
    file = Path(server.state_dir) / "gateways" / f"{pid}@{host}{suffix}"
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


def _leave_note(server: ServerSettings, facts: dict[str, str], stack: AsyncExitStack) -> None:
    """`<state_dir>/gateways/<pid>@<host>.json`, whole or not at all; it goes when the stack is closed."""
    note = _own_file(server, ".json")
    said = {"pid": os.getpid(), "host": os.uname().nodename, **facts, "started": time.time()}
    part = note.with_name(f"{note.name}.part")
    part.write_text(json.dumps(said), encoding="utf-8")
    part.replace(note)
    stack.callback(note.unlink, missing_ok=True)


async def _listen(
    runner: web.AppRunner, host: str, port: int, stack: AsyncExitStack, *, or_another: bool = False
) -> str:
    """Its URL. Raises ConfigError; `or_another`: on any free port where this one is taken."""
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    site = web.TCPSite(runner, host, port, backlog=1024)
    try:
        await site.start()
    except OSError as error:
        if or_another and error.errno == errno.EADDRINUSE:
            await site.stop()
            log.info("port %d of %s is taken: another one is used", port, host)
            return await _listen_on_any(runner, host)
        hint = "choose another with --server.port (or --server.admin), or 0 for any free one"
        raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror or error}; {hint}") from None
    return _url(runner, host)


async def _listen_on_any(runner: web.AppRunner, host: str) -> str:
    await web.TCPSite(runner, host, 0, backlog=1024).start()
    return _url(runner, host)


def _url(runner: web.AppRunner, host: str) -> str:
    shown = "127.0.0.1" if host in ("0.0.0.0", "::") else host
    return f"http://{f'[{shown}]' if ':' in shown else shown}:{runner.addresses[0][1]}"


@asynccontextmanager
async def _listen_grpc(
    server: ServerSettings, inference: Inference, about: Descriptions, counters: Counters, control: Control
) -> AsyncIterator[GrpcPort | None]:
    """None without one: then grpc is not even imported."""
    if server.grpc_port is None:
        yield None
        return
    from .grpc.server import listening as listening_grpc

    most = most_connections(server)
    async with listening_grpc(server, inference, about, counters, control, most) as opened:
        yield opened
