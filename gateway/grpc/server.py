"""The gRPC port: `server.py` opens it when `server.grpc_port` is set, and imports this module only then."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from ...config.addresses import UNIX
from ...config.server import ServerSettings
from ...protocol.errors import ConfigError
from ..dataplane.control import Control
from ..dataplane.descriptions import Descriptions
from ..dataplane.inference import Inference
from ..system.sockets import clear_stale, in_url, reached_by
from ..telemetry.counters import Counters
from .health import Health
from .service import SERVICE, InferenceService

#: Protobuf's own limit, and that of gRPC's setting.
MAX_MESSAGE = (1 << 31) - 1
#: Seconds that calls are given to end once the port closes; requests were drained before.
CLOSE_GRACE = 1.0
#: Seconds that calls may take whose clients were let go: until the gateway's own end ends them.
LET_GO = 24 * 3600.0


class GrpcPort:
    """The server behind the port, and where it is."""

    def __init__(self, server: grpc.aio.Server, address: str) -> None:
        self.address = address
        self._server = server
        self._letting_go: asyncio.Task[None] | None = None

    def refuse(self) -> None:
        """Clients are told to go elsewhere (GOAWAY), and nothing new is begun; calls that run go on.

        gRPC's core cancels a call that arrives in the very moment of this. Who watches the health, which has said so,
        has left by then.
        """
        if self._letting_go is None:
            self._letting_go = asyncio.create_task(self._server.stop(LET_GO), name="gRPC clients are let go")

    async def close(self) -> None:
        """All calls have ended, or had their time."""
        await self._server.stop(CLOSE_GRACE)
        if self._letting_go is not None:
            await self._letting_go


@asynccontextmanager
async def listening(
    settings: ServerSettings,
    inference: Inference,
    about: Descriptions,
    counters: Counters,
    control: Control,
    max_connections: int = 10_000,
) -> AsyncIterator[GrpcPort]:
    """A gRPC server on `grpc_port`. Raises ConfigError if the port is taken."""
    assert settings.grpc_port is not None
    server = grpc.aio.server(options=_options(settings, max_connections))
    service = InferenceService(inference, about, counters, control)
    handlers = service.handlers()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE.full_name, handlers),))
    health_pb2_grpc.add_HealthServicer_to_server(Health(about.registry), server)
    names = (SERVICE.full_name, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    address = await _open(server, settings)
    await server.start()
    opened = GrpcPort(server, address)
    try:
        yield opened
    finally:
        await opened.close()


async def _open(server: grpc.aio.Server, settings: ServerSettings) -> str:
    """Where clients on this machine reach it. Raises ConfigError."""
    place, path = settings.grpc_port, ""
    if isinstance(place, str):
        path = place.removeprefix(UNIX)
    else:
        place = f"{in_url(settings.host)}:{place}"
    try:
        if path:
            await asyncio.to_thread(clear_stale, path)
        port = server.add_insecure_port(place)
        if path:  # nobody can connect to it before the server starts
            await asyncio.to_thread(os.chmod, path, int(settings.socket_mode, 8))
            return place
    except (RuntimeError, OSError) as error:
        why = f" ({error.strerror})" if isinstance(error, OSError) else ""
        hint = "choose another with --server.grpc_port" + ("" if path else ", or 0 for any free one")
        raise ConfigError(f"cannot listen on {place} for gRPC{why}: {hint}") from None
    return f"{in_url(reached_by(settings.host))}:{port}"


def _options(settings: ServerSettings, max_connections: int) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", min(settings.max_body, MAX_MESSAGE)),
        # between the two gRPC refuses at random, the more likely the more there is
        ("grpc.max_metadata_size", settings.max_headers),
        ("grpc.absolute_max_metadata_size", settings.max_headers),
        ("grpc.max_allowed_incoming_connections", max_connections),
        ("grpc.max_send_message_length", -1),
        ("grpc.so_reuseport", 0),  # or a second gateway would silently share the port
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.keepalive_time_ms", 60_000),  # a client that is stopped, or gone without a word, holds nothing
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 1),
    ]
