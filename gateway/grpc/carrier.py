"""What a call needs of the connection that carries it (`connection.py`), and that of the front (`front.py`).

Both know in turn what needs them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from ..dataplane.budget import Budget
from ..telemetry.counters import Counters
from .http2 import Headers, Http2


class Carrier(Protocol):
    """One connection."""

    http2: Http2
    budget: Budget
    counters: Counters
    loop: asyncio.AbstractEventLoop
    #: Bytes of one message at most.
    most: int
    #: When the client was heard last, by the loop's clock.
    heard_at: float
    #: Large messages that are coming.
    large: int
    #: It came by a Unix socket.
    is_unix: bool
    #: Calls of which something waits that HTTP/2 has not been given.
    unsent: set[Any]
    #: Calls that are reset once all is sent: the client goes on, and nobody listens.
    to_reset: set[Any]
    #: So many bytes of this stream have been dealt with: the client may send more.
    taken: Callable[[int, int], None]

    def count(self, size: int) -> None:
        """Of small messages that wait in calls so many bytes come, or go."""

    def admit_small(self) -> None:
        """Raises QueueFull where many small messages wait, and there is no room for more."""

    def flush_soon(self) -> None:
        """Write, in this turn of the loop, what was given to HTTP/2."""

    def flush(self) -> None:
        """The same at once."""

    def reset(self, stream: Any, code: int) -> None:
        """RST_STREAM."""

    def call_ended(self) -> None:
        """There is a place for another one."""


class Front(Protocol):
    """What a connection needs of the front."""

    loop: asyncio.AbstractEventLoop
    budget: Budget
    counters: Counters
    #: Bytes of one message at most.
    most: int
    #: Bytes of the header fields of one request.
    max_headers: int
    #: What all connections read into, and the part that is enough for small messages.
    buffer: memoryview
    small_buffer: memoryview

    def enter(self, connection: Any, transport: asyncio.Transport) -> bool:
        """Whether there is a place for it."""

    def leave(self, connection: Any) -> None: ...

    def has_place(self) -> bool:
        """For one more call."""

    def open(self, connection: Any, stream: int, headers: Headers) -> Any:
        """The call of a request; None for one that is none, which is told so."""

    def closed(self) -> None:
        """A call has ended."""
