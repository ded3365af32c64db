"""What a client is sent on one stream: header fields, messages, trailers; as fast as it reads.

Small messages go to HTTP/2 at once; of large ones it is given the next part when it has sent the one before.
Part of a call (`call.py`), driven by `connection.py`.
"""

from __future__ import annotations

import asyncio
from collections import deque

from ...protocol.codec import Body
from .compression import WORTH, deflate
from .http2 import Gone, Headers
from .incoming import Incoming

#: Bytes that HTTP/2 is given of one call's answers at a time.
CHUNK = 64 << 10

_HEAD = [
    (b":status", b"200"),
    (b"content-type", b"application/grpc"),
    (b"grpc-accept-encoding", b"identity,deflate,gzip"),
]


class Stream(Incoming):
    """Both directions of one stream."""

    #: How answers are compressed, if they are worth it.
    encoding = b""
    #: The header fields are sent; the trailers are, or wait.
    begun = finished = False
    #: The trailers are all of the answer.
    without_body = False
    _trailers: Headers = ()
    _drained: asyncio.Future[None] | None = None
    #: Bytes that waited at the last look, and since when none of them has gone.
    stalled = (0, 0.0)
    #: Answers so large that only a part of them is HTTP/2's.
    _pieces: deque[Body] | None = None

    def begin(self, more: Headers = ()) -> None:
        """The header fields of the answer, once."""
        if not self.begun and not self.closed:
            self.begun = True
            head = _HEAD
            if more or self.encoding:
                head = [*_HEAD, *more]
                if self.encoding:
                    head.append((b"grpc-encoding", self.encoding))
            self.connection.http2.send_head(self.number, head)

    async def pack(self, parts: list[Body]) -> list[Body]:
        """A message as it is sent: its prefix and its bytes, compressed as those of the client were."""
        size = sum(map(len, parts))
        if self.encoding and size > WORTH:
            parts = [await asyncio.to_thread(deflate, parts, self.encoding)]
            return [b"\1" + len(parts[0]).to_bytes(4, "big"), *parts]
        return [b"\0" + size.to_bytes(4, "big"), *parts]

    def send(self, parts: list[Body]) -> None:
        """A message that was packed."""
        if self._pieces or sum(map(len, parts)) > CHUNK:
            if self._pieces is None:
                self._pieces = deque()
            self._pieces.extend(parts)
            self.connection.unsent.add(self)
            self.feed()
        else:
            self.connection.http2.send_data(self.number, b"".join(parts))

    async def write(self, parts: list[Body]) -> None:
        """A message of a stream's answers; waits while the client does not read."""
        packed = await self.pack(parts)
        if self.closed or self.finished:
            return
        self.begin()
        self.send(packed)
        self.connection.flush_soon()
        while not self.closed and self._waiting():
            self.connection.unsent.add(self)
            self._drained = asyncio.get_running_loop().create_future()
            await self._drained

    def _waiting(self) -> bool:
        return bool(self._pieces) or self.connection.http2.queued(self.number) > CHUNK

    def finish(self, trailers: Headers) -> None:
        """The call has ended: its code and what else is said, after all messages; without any, at once."""
        if self.closed or self.finished:
            return
        self.finished, connection = True, self.connection
        try:
            if not self.begun:
                self.begun = self.without_body = True
                connection.http2.send_head(self.number, [*_HEAD, *trailers], end_stream=True)
            elif self._pieces:
                self._trailers = trailers
            else:
                connection.http2.send_trailers(self.number, trailers)
        except Gone:
            return  # it was reset meanwhile
        if not self.half_closed:
            connection.to_reset.add(self)
        connection.flush_soon()

    def feed(self) -> bool:
        """Give HTTP/2 more of what waits; False: there is nothing to give now."""
        try:
            return self._feed()
        except Gone:  # it was reset meanwhile
            self._pieces, self._trailers = None, ()
            self.connection.unsent.discard(self)
            return False

    def _feed(self) -> bool:
        fed, http, pieces = False, self.connection.http2, self._pieces
        while pieces and http.queued(self.number) < CHUNK:
            piece = pieces.popleft()
            if len(piece) > CHUNK:
                view = memoryview(piece)
                pieces.appendleft(view[CHUNK:])
                piece = view[:CHUNK]
            http.send_data(self.number, piece)
            fed = True
        if self._trailers and not pieces:
            http.send_trailers(self.number, self._trailers)
            self._trailers, fed = (), True
        if self._drained is not None and not self._waiting():
            if not self._drained.done():
                self._drained.set_result(None)
            self._drained = None
        if not pieces and self._drained is None:
            self.connection.unsent.discard(self)
        return fed

    def unsent(self) -> int:
        """Bytes that wait, here and in HTTP/2."""
        return sum(map(len, self._pieces or ())) + int(self.connection.http2.queued(self.number))

    def drop(self) -> None:
        super().drop()
        if self._pieces is not None:
            self._pieces.clear()
        self._trailers = ()
        self.connection.unsent.discard(self)
        self.connection.to_reset.discard(self)
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
