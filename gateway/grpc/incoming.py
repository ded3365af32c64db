"""Messages out of the bytes that a client sends on one stream.

A message is judged by its first five bytes: one that is too large, or has no room in the budget, is refused before it
is received. What comes of it all the same is thrown away. Part of a call (`call.py`), fed by `connection.py`.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque

from ...protocol.errors import InvalidRequest, NotSupported, ServingError
from ..dataplane.budget import SMALL
from .carrier import Carrier
from .compression import KNOWN, inflate, too_large
from .http2 import STREAM_WINDOW
from .message import GAP, PREFIX, Message

#: Bytes of a large message that may be under way.
LARGE_WINDOW = 4 << 20
#: Bytes of a refused message that are looked at for what it is called.
LOOKED_AT = 8 << 10
#: Seconds that a message may take to come: so many, and one for each so many bytes.
FIRST_SECONDS, BYTES_A_SECOND = 60.0, 64 << 10


class Incoming(ABC):
    """One stream's; a `unary` call has one message, others any number, which wait here until they are taken."""

    #: The call has one message.
    unary = True
    #: The client has ended its side; the stream is closed.
    half_closed = closed = False

    def __init__(self, connection: Carrier, number: int, encoding: bytes) -> None:
        """`encoding`: how the client says that it compresses."""
        self.connection = connection
        self.number = number
        #: When what has begun must be here, by the loop's clock; 0: nothing has.
        self.due = connection.heard_at + FIRST_SECONDS
        self._encoding = encoding
        #: Nothing has begun: what comes is the start of a message.
        self._between = True
        #: Nothing is listened to any more.
        self._deaf = False
        self._prefix = b""
        self._buffer: bytearray | None = None
        #: The message in the buffer if it is large, or the one that was refused.
        self._message: Message | None = None
        self._compressed = False
        self._missing = 0
        self._arrived: deque[Message] = deque()
        self._waiter: asyncio.Future[None] | None = None

    @abstractmethod
    def on_message(self, message: Message) -> None:
        """The one of a unary call."""

    @abstractmethod
    def on_broken(self, error: ServingError) -> None:
        """No further message can be found: the call ends with this."""

    def receive(self, data: bytes, ended: bool) -> None:
        """A part of what the client sends; `ended`: the last one."""
        size = len(data)
        if (
            self._between
            and PREFIX <= size <= SMALL
            and data[0] == 0
            and size == PREFIX + int.from_bytes(data[1:PREFIX], "big")
        ):
            if self.unary:
                self.connection.taken(size, self.number)
            else:
                self.connection.count(size)
            self._deliver(Message(data, PREFIX))
        elif size:
            self._receive(memoryview(data))
        if ended:
            self.end()

    def end(self) -> None:
        """The client sends no more."""
        self.half_closed = True
        if not self._between and not self._deaf:
            self._break(InvalidRequest("the call ended within a message"))
        elif self.unary and not self._deaf:
            self._break(InvalidRequest("the call ended without a message"))
        self._wake()

    # ---- the parts of a message --------------------------------------------------------------------

    def _receive(self, view: memoryview) -> None:
        while view and not self.closed:
            if self._deaf:
                self.connection.taken(len(view), self.number)
                return
            if self._between:
                view = self._begin(view)
            elif self._buffer is not None:
                view = self._gather(view)
            else:
                view = self._leave_out(view)

    def _begin(self, view: memoryview) -> memoryview:
        """The prefix, or what there is of it; gives back what follows it."""
        part = view[: PREFIX - len(self._prefix)]
        self.connection.taken(len(part), self.number)
        self._prefix += part
        view = view[len(part) :]
        if not self.due:
            self.due = self.connection.heard_at + FIRST_SECONDS
        if len(self._prefix) == PREFIX:
            prefix, self._prefix = self._prefix, b""
            self._judge(prefix[0], int.from_bytes(prefix[1:], "big"), view)
        return view

    def _judge(self, flag: int, size: int, rest: memoryview) -> None:
        connection = self.connection
        if flag > 1 or (flag and self._encoding not in KNOWN):
            self._break(NotSupported("the message is compressed in a way that is not known here: gzip and deflate are"))
            return
        self._between, self._compressed, self._missing = False, bool(flag), size
        try:
            if size > connection.most:
                raise too_large(size, connection.most)
            if size > SMALL:
                self._buffer = bytearray(GAP)
                self._message = Message(self._buffer, GAP, connection.budget.take(size))
                connection.large += 1
                connection.http2.open_window(self.number, min(size + STREAM_WINDOW, LARGE_WINDOW))
                self.due += size / BYTES_A_SECOND
            else:
                connection.admit_small()
                self._buffer = bytearray()
                if not size:
                    self._complete(Message(b""))
        except ServingError as error:
            self._buffer = None
            self._refuse(error, bytes(rest[: min(size, LOOKED_AT)]))

    def _gather(self, view: memoryview) -> memoryview:
        """Takes what belongs to the message; gives back the rest."""
        assert self._buffer is not None
        part = view[: self._missing]
        self._buffer += part
        self._missing -= len(part)
        if self._message is not None:
            self.connection.taken(len(part), self.number)
        else:
            self.connection.count(len(part))
        if not self._missing:
            if self._message is None and self.unary:
                self._take(len(self._buffer))
            self._complete(self._message or Message(bytes(self._buffer)))
        return view[len(part) :]

    def _complete(self, message: Message) -> None:
        if message.share is not None:
            self.connection.large -= 1
        self._between, self._buffer, self._message, self.due = True, None, None, 0.0
        if self._compressed:
            message.compressed = True
        self._deliver(message)

    def _refuse(self, error: ServingError, start: bytes) -> None:
        """This message is not received. A unary call ends with it; in a stream it is answered in its turn."""
        self._message = Message(b"" if self._compressed else start, refused=error)
        self._compressed = False
        if self.unary or self._missing > self.connection.most:
            self._complete(self._message)
            self.stop_listening()

    def _leave_out(self, view: memoryview) -> memoryview:
        """The next bytes of a message that was refused; gives back the rest."""
        part = view[: self._missing]
        self.connection.taken(len(part), self.number)
        self._missing -= len(part)
        if not self._missing:
            assert self._message is not None
            self._complete(self._message)
        return view[len(part) :]

    def _break(self, error: ServingError) -> None:
        self.stop_listening()
        self.on_broken(error)

    def stop_listening(self) -> None:
        """What still comes is thrown away."""
        self._deaf, self._between, self.due = True, False, 0.0

    def _deliver(self, message: Message) -> None:
        if self.unary:
            self.stop_listening()
            self.on_message(message)
        else:
            self._arrived.append(message)
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # ---- taking them -------------------------------------------------------------------------------

    async def next_message(self) -> Message | None:
        """Of a stream; None: the client sends no more. Raises InvalidRequest, QueueFull and TooLarge."""
        while not self._arrived:
            if self.half_closed or self.closed:
                return None
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        message = self._arrived.popleft()
        if message.is_counted:
            self._take(message.counted)
        return await self.opened(message) if message.compressed else message

    async def opened(self, message: Message) -> Message:
        """The message that came compressed."""
        try:
            return await inflate(message, self._encoding, self.connection.budget, self.connection.most)
        finally:
            message.release()

    def _take(self, size: int) -> None:
        """So many bytes of small messages do not wait here any more."""
        self.connection.count(-size)
        self.connection.taken(size, self.number)

    def drop(self) -> None:
        """The stream is closed: nothing is kept."""
        self.closed = True
        self.stop_listening()
        if self._buffer is not None and self._message is None:
            self._take(len(self._buffer))
        if self._message is not None:
            self._message.release()
            self.connection.large -= self._buffer is not None
        for message in self._arrived:
            if message.is_counted:
                self._take(message.counted)
            message.release()
        self._arrived.clear()
        self._buffer = self._message = None
        self._wake()
