"""Many connections at once: who may come in, who goes for it, and who has stopped reading.

Looked at when one arrives near the limit, and a few times within `server.write_timeout`; requests pay nothing.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import socket
import struct
import time
from collections.abc import Iterable, Mapping
from typing import Protocol

log = logging.getLogger("modelhub.http")

#: One place in so many is kept free of idle connections.
SPARE = 16
#: Places beyond the limit, for probes and scrapes alone.
PROBES = 32
#: What these may ask for, whatever else is going on.
FOR_PROBES = frozenset({"/v2/health/live", "/v2/health/ready", "/metrics", "/ping", "/health"})
#: Seconds between two looks for idle connections that find none.
LOOK_EVERY = 0.05
#: Looks within the time that a client may take to read something.
LOOKS = 8

_BYTES_ACKED = struct.Struct("<Q")  # in Linux' tcp_info
_AT, _INFO_SIZE = 120, 192


class Connection(Protocol):
    """As its server sees it."""

    @property
    def idle_since(self) -> float | None:
        """Since when nothing has been asked over it, by the loop's clock; None: something is, or it closes."""

    def force_close(self) -> None: ...


class Crowd:
    """The connections of one server, `limit` at most."""

    def __init__(self, connections: Mapping[Connection, asyncio.Transport], limit: int) -> None:
        self._connections = connections
        self.limit = limit
        self._looked = 0.0

    def has_place(self) -> bool:
        """Whether the one that has just come may stay: idle ones leave for it, the longest idle first."""
        count = len(self._connections)
        spare = max(self.limit // SPARE, 1)
        if count <= self.limit - spare:
            return True
        now = time.monotonic()
        if count > self.limit or now - self._looked >= LOOK_EVERY:
            self._looked = now
            left = self._close_idle(count - (self.limit - spare))
            return left or count <= self.limit
        return True

    def has_place_for_probe(self) -> bool:
        return len(self._connections) <= self.limit + PROBES

    def _close_idle(self, count: int) -> bool:
        """Close so many; whether there was one at least."""
        idle = [(since, number, each) for number, each in enumerate(self._connections) if (since := each.idle_since)]
        for _, _, connection in (found := heapq.nsmallest(count, idle)):
            connection.force_close()
        return bool(found)


class Readers:
    """Clients that take nothing of what is written to them lose their connections."""

    def __init__(self, connections: Mapping[object, asyncio.Transport], seconds: float) -> None:
        """`seconds`: how long one may take nothing."""
        self._connections = connections
        self._seconds = seconds
        #: What had been taken when a client last took something, and when that was seen.
        self._taken: dict[asyncio.Transport, tuple[int, float]] = {}

    async def watch(self) -> None:
        """Look for ever."""
        while True:
            await asyncio.sleep(self._seconds / LOOKS)
            self.look(self._connections.values(), time.monotonic())

    def look(self, transports: Iterable[asyncio.Transport], now: float) -> None:
        """Abort those that have taken nothing for too long."""
        before, self._taken = self._taken, {}
        for transport in list(transports):
            waiting = transport.get_write_buffer_size()
            if not waiting:
                continue
            taken = _acknowledged(transport, waiting)
            known, since = before.get(transport, (taken, now))
            if taken != known:
                since = now
            if now - since >= self._seconds:
                log.warning(
                    "a client has read nothing for %g s (server.write_timeout): its connection ends", now - since
                )
                transport.abort()
            else:
                self._taken[transport] = (taken, since)


def _acknowledged(transport: asyncio.Transport, waiting: int) -> int:
    """Changes when the client's side takes something: bytes that its kernel has confirmed, or those that still wait."""
    found = transport.get_extra_info("socket")
    try:
        info = found.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_SIZE)
        return int(_BYTES_ACKED.unpack_from(info, _AT)[0])
    except (OSError, AttributeError, struct.error):
        return -waiting  # no TCP, or a system that does not tell
