"""The gRPC front: its methods, its connections, who looks after them, and how they are let go.

Connections come to it from its own port (`server.py`) and, those that speak HTTP/2, from the port of HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

from ..dataplane.budget import Budget
from ..system.crowd import LOOKS, Crowd, Readers
from ..telemetry.counters import Counters
from . import http2
from .call import Call, Method
from .connection import LAST_WORDS, Connection
from .http2 import Headers

log = logging.getLogger("modelhub.grpc")

#: Protobuf's own limit, and that of gRPC's setting.
MAX_MESSAGE = (1 << 31) - 1
#: Bytes that are read at a time: from connections with a large message under way, from others.
READ, READ_SMALL = 256 << 10, 64 << 10
#: Calls that are open, for each connection that there may be: most have one.
CALLS_A_CONNECTION = 4
#: Seconds between two looks at all connections, at most.
LOOK_EVERY = 5.0
#: Seconds between two looks for what the end waits for.
LOOKS_AT_END = 0.02
#: Seconds after which a client that was told of the end is held to it, whether or not it has said that it knows.
KNOWS_WITHIN = 1.0


class GrpcFront:
    """One for all ports. Made in the loop that it lives in."""

    def __init__(
        self,
        methods: dict[bytes, Method],
        budget: Budget,
        counters: Counters,
        *,
        max_connections: int,
        write_timeout: float,
        max_headers: int = 64 << 10,
    ) -> None:
        """`methods`: by their path; `max_headers`: bytes of a call's metadata."""
        self.loop = asyncio.get_running_loop()
        self.budget = budget
        self.counters = counters
        self.most = min(budget.largest, MAX_MESSAGE)
        self.buffer = memoryview(bytearray(READ))
        self.small_buffer = self.buffer[:READ_SMALL]
        self.max_headers = max_headers
        self.ending = False
        self._methods = methods
        self._connections: dict[Connection, asyncio.Transport] = {}
        connections: Any = self._connections
        self._crowd = Crowd(connections, max_connections)
        self._readers = Readers(connections, write_timeout)
        self._write_timeout = write_timeout
        self._open, self._most_open = 0, max_connections * CALLS_A_CONNECTION
        self._watching = self.loop.create_task(self._watch(), name="gRPC connections")

    # ---- connections -------------------------------------------------------------------------------

    def connection(self) -> Connection:
        """A new one, as a server of the loop wants it."""
        return Connection(self)

    def adopt(self, transport: asyncio.Transport, data: bytes) -> None:
        """A connection of another port that has begun to speak HTTP/2; `data`: what it has said so far."""
        connection = Connection(self)
        transport.pause_reading()
        transport.set_protocol(connection)
        transport.resume_reading()  # uvloop looks now how its protocol wants to read
        connection.connection_made(transport)
        connection.receive(data)

    def enter(self, connection: Connection, transport: asyncio.Transport) -> bool:
        """Whether there is a place for it: idle ones leave for it."""
        self._connections[connection] = transport
        return not self.ending and self._crowd.has_place()

    def leave(self, connection: Connection) -> None:
        self._connections.pop(connection, None)

    async def _watch(self) -> None:
        every = min(self._write_timeout / LOOKS, LOOK_EVERY)
        while True:
            await asyncio.sleep(every)
            self._readers.look(self._connections.values(), time.monotonic())
            now = self.loop.time()
            for connection in tuple(self._connections):
                try:
                    connection.look(now, self._write_timeout)
                except Exception:
                    log.exception("a gRPC connection could not be looked after")

    # ---- calls -------------------------------------------------------------------------------------

    def has_place(self) -> bool:
        """For one more call."""
        return self._open < self._most_open

    def open(self, connection: Connection, stream: int, headers: Headers) -> Call | None:
        """The call of a request; None for one that is none, which is told so."""
        fields = dict(headers)
        if not fields.get(b"content-type", b"").startswith(b"application/grpc") or fields.get(b":method") != b"POST":
            _refuse_other(connection, stream, fields)
            return None
        self._open += 1
        return Call(connection, stream, headers, fields, self._methods.get(fields.get(b":path", b"")))

    def closed(self) -> None:
        """A call has ended."""
        self._open -= 1

    # ---- the end -----------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether a call is answered."""
        return any(each.busy for each in self._connections)

    def let_go(self) -> None:
        """Clients are told to go elsewhere (GOAWAY); their calls go on, and connections that come are taken."""
        told = tuple(self._connections)
        for connection in told:
            connection.let_go()
        self.loop.call_later(KNOWS_WITHIN, _say_last, told)

    def refuse(self) -> None:
        """The same, and nothing new is begun."""
        if not self.ending:
            self.ending = True
            self.let_go()

    async def close(self, grace: float) -> None:
        """All calls have ended, or had their time: `grace` seconds more."""
        self.refuse()
        await self._until(lambda: not self.busy, grace)
        for connection in tuple(self._connections):
            connection.end(http2.NO_ERROR)
        await self._until(lambda: not self._connections, LAST_WORDS)
        for transport in tuple(self._connections.values()):
            transport.abort()
        self._watching.cancel()
        await asyncio.gather(self._watching, return_exceptions=True)

    async def _until(self, done: Callable[[], bool], seconds: float) -> None:
        for _ in range(int(seconds / LOOKS_AT_END)):
            if done():
                return
            await asyncio.sleep(LOOKS_AT_END)


def _say_last(told: tuple[Connection, ...]) -> None:
    for connection in told:
        connection.say_last()


def _refuse_other(connection: Connection, stream: int, fields: dict[bytes, bytes]) -> None:
    """HTTP/2 for anything but gRPC: the rest of the gateway is reached over HTTP/1.1."""
    if fields.get(b":method") != b"POST":
        connection.http2.reset(stream, http2.HTTP_1_1_REQUIRED)
        return
    body = b'{"error":"over HTTP/2 this port speaks gRPC (content-type: application/grpc): send this over HTTP/1.1"}'
    head = [(b":status", b"415"), (b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    connection.http2.send_head(stream, head)
    connection.http2.send_data(stream, body, last=True)
