"""Makes the gRPC front, and opens the port of its own where `server.grpc_port` asks for one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from ...config.addresses import UNIX
from ...config.server import ServerSettings
from ...protocol.errors import ConfigError
from ..dataplane.control import Control
from ..dataplane.descriptions import Descriptions
from ..dataplane.inference import Inference
from ..system import sockets
from ..telemetry.counters import Counters
from . import reflection
from .front import GrpcFront
from .health import Health
from .service import InferenceService

#: Seconds that calls are given to end once the gateway does; requests were drained before.
CLOSE_GRACE = 1.0


Listener = asyncio.Server


class GrpcPort:
    """The front, and where its own port is: "" without one."""

    def __init__(self, front: GrpcFront) -> None:
        self.front = front
        self.address = ""
        self.servers: list[Listener] = []

    def adopt(self, transport: asyncio.Transport, data: bytes) -> None:
        """A connection of another port that has begun to speak HTTP/2."""
        self.front.adopt(transport, data)

    @property
    def busy(self) -> bool:
        """Whether a call is answered."""
        return self.front.busy

    def let_go(self) -> None:
        """Clients are told to go elsewhere; connections that come are taken all the same."""
        self.front.let_go()

    def refuse(self) -> None:
        """No connection is taken any more, and clients are told to go elsewhere; calls that run go on."""
        for server in self.servers:
            server.close()
        self.front.refuse()

    async def close(self) -> None:
        """All calls have ended, or had their time."""
        self.refuse()
        await self.front.close(CLOSE_GRACE)


@asynccontextmanager
async def listening(
    settings: ServerSettings,
    inference: Inference,
    about: Descriptions,
    counters: Counters,
    control: Control,
    max_connections: int = 10_000,
) -> AsyncIterator[GrpcPort]:
    """A gRPC front, on `grpc_port` where it is set. Raises ConfigError if the port is taken."""
    methods = {
        **InferenceService(inference, about, counters, control).methods(),
        **Health(about.registry).methods(),
        **reflection.methods(),
    }
    front = GrpcFront(
        methods,
        inference.budget,
        counters,
        max_connections=max_connections,
        write_timeout=settings.write_timeout,
        max_headers=settings.max_headers,
    )
    async with AsyncExitStack() as stack:
        opened = GrpcPort(front)
        stack.push_async_callback(opened.close)
        if settings.grpc_port is not None:
            opened.servers, opened.address = await _listen(front, settings, stack)
        yield opened


async def _listen(front: GrpcFront, settings: ServerSettings, stack: AsyncExitStack) -> tuple[list[Listener], str]:
    """The port of its own, and where clients on this machine reach it. Raises ConfigError."""
    place = settings.grpc_port
    path = place.removeprefix(UNIX) if isinstance(place, str) else ""
    try:
        if isinstance(place, str):
            bound = [await asyncio.to_thread(sockets.bind_unix, path, int(settings.socket_mode, 8))]
            stack.callback(sockets.remover(path))
            return [await front.loop.create_unix_server(front.connection, sock=each) for each in bound], place
        assert place is not None
        bound = await asyncio.to_thread(sockets.bind, settings.host, place)
        servers = [await front.loop.create_server(front.connection, sock=each) for each in bound]
        shown = sockets.reached_by(settings.host, bound[0] if settings.host == "::" else None)
        return servers, f"{sockets.in_url(shown)}:{bound[0].getsockname()[1]}"
    except OSError as error:
        where = place if path else f"{sockets.in_url(settings.host)}:{place}"
        hint = "choose another with --server.grpc_port" + ("" if path else ", or 0 for any free one")
        raise ConfigError(f"cannot listen on {where} for gRPC ({error.strerror or error}): {hint}") from None
