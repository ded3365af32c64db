"""The ports of the gateway: HTTP and gRPC on one, perhaps others; and the note that says where they are."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, Protocol

from aiohttp import web

from .. import __version__
from ..config.addresses import UNIX, is_local
from ..config.server import ServerSettings
from ..protocol.errors import ConfigError
from .dataplane.control import Control
from .dataplane.descriptions import Descriptions
from .dataplane.inference import Inference
from .http.app import make_admin_app, make_app
from .http.connection import TakesOver
from .http.runner import HttpRunner, UnixSite, make_runner
from .metrics.scrape import Metrics
from .security.guard import ControlGuard, guard_of
from .security.tokens import leave_token
from .system import sockets
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


#: As most gateways are started.
_NONE_PASSED: Mapping[str, list[socket.socket]] = MappingProxyType({})


class GrpcPort(Protocol):
    """As its module makes it, which is imported when ports are opened: commands need none of it."""

    #: Of its own port; "" without one.
    address: str

    @property
    def busy(self) -> bool: ...

    def adopt(self, transport: asyncio.Transport, data: bytes) -> None: ...

    def let_go(self) -> None: ...

    def refuse(self) -> None: ...


class Ports:
    """The open ports; `url` is the main one's."""

    def __init__(self, url: str, runners: list[HttpRunner], grpc: GrpcPort) -> None:
        self.url = url
        self._runners = runners
        self._grpc = grpc

    def let_go(self) -> None:
        """Clients are told to go elsewhere, HTTP's with their next answers. New connections are still taken."""
        for runner in self._runners:
            runner.let_go()
        self._grpc.let_go()

    async def refuse(self) -> None:
        """No connection is taken any more."""
        for runner in self._runners:
            await runner.refuse()
        self._grpc.refuse()

    @property
    def busy(self) -> bool:
        """Whether a connection has a request."""
        return self._grpc.busy or any(runner.busy for runner in self._runners)


@asynccontextmanager
async def listening(
    server: ServerSettings, doors: Doors, passed: Mapping[str, list[socket.socket]] = _NONE_PASSED
) -> AsyncIterator[Ports]:
    """Open the ports, say where, leave a note of it for `modelhub status`.

    `passed`: sockets that are listened on already, by their names: those called `admin` are operators', all others
    take the place of `host` and `port`.
    """
    place = server.admin_place
    runners: list[HttpRunner] = []
    async with AsyncExitStack() as stack:
        token_file = _own_file(server, ".token") if place != "off" and server.admin_auth == "token" else None
        token = leave_token(token_file) if token_file is not None else None
        if token_file is not None:
            stack.callback(token_file.unlink, missing_ok=True)

        def control(listeners: Sequence[str], *, is_open: bool) -> Control:
            guard = guard_of(listeners, token, hosts=server.admin_hosts, overrides=server.load_overrides)
            return doors.control(guard, is_open)

        async def serve(app: web.Application, listened_on: list[socket.socket], http2: TakesOver | None = None) -> str:
            runner = make_runner(
                app,
                grace=server.shutdown_grace,
                max_connections=most_connections(server),
                count=doors.counters.error,
                write_timeout=server.write_timeout,
                max_headers=server.max_headers,
                http2=http2,
            )
            runners.append(runner)
            return await _serve(runner, listened_on, stack)

        main, operators = await _sockets(server, passed, stack)
        addresses = [sockets.address_of(each) for each in main]
        if server.grpc_port is not None:
            addresses.append(server.host)
        here = control(addresses, is_open=place == "same")
        about = doors.about.open_to_control(here.is_open)
        grpc = await stack.enter_async_context(_grpc(server, doors.inference, about, doors.counters, here))
        app = make_app(doors.inference, about, doors.metrics, doors.counters, here)
        url = await serve(app, main, grpc.adopt)
        admin_url = url if place == "same" else ""
        if operators:
            guarded = control([sockets.address_of(each) for each in operators], is_open=True)
            admin_url = await serve(make_admin_app(doors.about, guarded), operators)
        urls = {"url": url, "admin_url": admin_url, "grpc_url": grpc.address or url.removeprefix("http://")}
        _leave_note(server, {**urls, "token_file": str(token_file or "")}, stack)
        _say_where(server, urls, token_file, [each for each in addresses if not is_local(each)])
        yield Ports(url, runners, grpc)


def most_connections(server: ServerSettings) -> int:
    """Of HTTP, and as many of gRPC."""
    return min(server.max_connections, files_for_connections(2))


def _say_where(server: ServerSettings, urls: dict[str, str], token_file: Path | None, exposed: list[str]) -> None:
    """`exposed`: addresses that others than this machine can reach."""
    grpc, admin = urls["grpc_url"], urls["admin_url"]
    more = f" and {grpc if grpc.startswith(UNIX) else f'grpc://{grpc}'}"
    if urls["url"].endswith(grpc):
        more = " (gRPC too)"
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
    if exposed:
        log.warning(
            "%s is open to the network and there is no authentication: whoever reaches the port can use "
            "the models (--server.host=127.0.0.1 keeps it to this machine)",
            exposed[0],
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


async def _sockets(
    server: ServerSettings, passed: Mapping[str, list[socket.socket]], stack: AsyncExitStack
) -> tuple[list[socket.socket], list[socket.socket]]:
    """The main ones, and the operators' own (none where these are elsewhere, or nowhere). Raises ConfigError."""
    place = server.admin_place
    if "admin" in passed and not isinstance(place, int):
        raise ConfigError(f"a socket called admin was passed by systemd, and server.admin is {place}: leave one out")
    if "grpc" in passed:
        raise ConfigError("a socket called grpc was passed by systemd: gRPC opens its own (server.grpc_port)")
    main = [each for name, found in passed.items() if name != "admin" for each in found]
    main.sort(key=lambda each: each.family == socket.AF_UNIX)  # the first is the one that is announced
    main = main or await _bind(server.host, server.port, int(server.socket_mode, 8), stack)
    operators = passed.get("admin", [])
    if not operators and isinstance(place, int):
        operators = await _bind(ADMIN_HOST, place, 0, stack, or_another=server.admin is None)
    stack.callback(sockets.close, [*main, *operators])
    return main, operators


async def _bind(
    host: str, port: int, mode: int, stack: AsyncExitStack, *, or_another: bool = False
) -> list[socket.socket]:
    """Raises ConfigError; `or_another`: of any free port where this one is taken. `mode`: of a Unix socket."""
    path = host.removeprefix(UNIX) if host.startswith(UNIX) else ""
    try:
        if path:
            made = [await asyncio.to_thread(sockets.bind_unix, path, mode)]
            stack.callback(sockets.remover(path))
            return made
        return await asyncio.to_thread(sockets.bind, host, port)
    except OSError as error:
        if or_another and error.errno == errno.EADDRINUSE:
            log.info("port %d of %s is taken: another one is used", port, host)
            return await _bind(host, 0, mode, stack)
        hint = "choose another with --server.port (or --server.admin), or 0 for any free one"
        if path:
            hint = "choose another path with --server.host"
        where = host if path else f"{sockets.in_url(host)}:{port}"
        raise ConfigError(f"cannot listen on {where}: {error.strerror or error}; {hint}") from None


async def _serve(runner: HttpRunner, listened_on: list[socket.socket], stack: AsyncExitStack) -> str:
    """Take connections from these sockets; the URL of the first."""
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    url = sockets.url_of(listened_on[0])
    for each in listened_on:
        kind = UnixSite if each.family == socket.AF_UNIX else web.SockSite
        await kind(runner, each, backlog=sockets.BACKLOG).start()
    return url


@asynccontextmanager
async def _grpc(
    server: ServerSettings, inference: Inference, about: Descriptions, counters: Counters, control: Control
) -> AsyncIterator[GrpcPort]:
    """The gRPC front. Imported here: commands need neither protobuf nor HTTP/2."""
    from .grpc.server import listening as listening_grpc

    async with listening_grpc(server, inference, about, counters, control, most_connections(server)) as opened:
        yield opened
