"""ZMTP 3.0, ZeroMQ's protocol on the wire, as far as gateway and workers need it.

    greeting   64 bytes: ff, 8 of padding, 7f, the version 3 0, the mechanism "NULL" in 20 bytes, 32 zeros
    frame      flags, size, body; of the flags, 1: more frames of this message follow, 2: the size has 8 bytes
               (big-endian) instead of one, 4: it is a command and no part of a message
    command    size of its name (1 byte), name, and for READY properties: size of the name (1), name, size of the value
               (4, big-endian), value

Both sides greet at once, and send READY with their Socket-Type and Identity; whoever has the other's sends messages,
which are frames (https://rfc.zeromq.org/spec/23/).

Spoken here and not by libzmq because that has a thread of its own at each end: two more wake-ups each way, two thirds
of the CPU that a small message and its answer take when they come one at a time, half when 32 do. What libzmq sends is
understood, and it understands what is sent from here.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import List, Optional, Sequence

from .codec import Body
from .errors import WireError

GREETING = b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)

#: Bytes that are received at once; a frame of more than half of that is received where it stays.
ROOM = 1 << 16
#: Bytes of frames that are sent as one piece.
_JOINED = 1 << 15
#: A message is no more than so many frames: each costs, however small it is.
_MAX_FRAMES = 1 << 12

#: Bytes that the system is asked to take from a sender before the receiver has them.
SEND_ROOM = 4 << 20

_MORE, _LONG, _COMMAND = 1, 2, 4
_LONG_HEAD = struct.Struct(">BQ")
_SIZE = struct.Struct(">Q")


def widen(connection: socket.socket) -> None:
    """Let a large body leave at once, as far as this user may: what does not fit is a wake-up at both ends."""
    for option in (getattr(socket, "SO_SNDBUFFORCE", 32), socket.SO_SNDBUF):
        with contextlib.suppress(PermissionError):
            connection.setsockopt(socket.SOL_SOCKET, option, SEND_ROOM)
            return


def ready(socket_type: str, identity: bytes = b"") -> bytes:
    """The command that ends the greeting."""
    properties = {b"Socket-Type": socket_type.encode(), b"Identity": identity}
    body = b"\x05READY" + b"".join(
        bytes((len(name),)) + name + struct.pack(">I", len(value)) + value for name, value in properties.items()
    )
    return bytes((_COMMAND, len(body))) + body


def pack(frames: Sequence[Body]) -> List[Body]:
    """A message as the pieces to be sent, in order; large frames are pieces of their own, borrowed."""
    pieces: List[Body] = []
    small: List[Body] = []
    last = len(frames) - 1
    for index, frame in enumerate(frames):
        size, more = len(frame), _MORE if index < last else 0
        small.append(bytes((more, size)) if size < 256 else _LONG_HEAD.pack(more | _LONG, size))
        if size <= _JOINED:
            small.append(frame)
        else:
            pieces += (b"".join(small), frame)
            small = []
    if small:
        pieces.append(b"".join(small))
    return pieces


class Receiver:
    """Takes what the other side sends, and gives out the messages that are whole.

    Receive into `room()`, then tell `received` how many bytes that were.
    """

    def __init__(self, largest: int) -> None:
        """`largest`: bytes of one message at most."""
        #: The other side's, once it has said so.
        self.identity: Optional[bytes] = None
        self._largest = largest
        self._buffer = memoryview(bytearray(ROOM))
        self._start = self._end = 0  # what it holds that has not been looked at
        self._greeted = False
        self._frames: List[Body] = []  # of the message that is coming
        self._size = 0
        self._large: Optional[memoryview] = None  # a frame that is received where it stays
        self._filled = 0
        self._flags = 0

    def room(self) -> memoryview:
        """Where the next bytes go; it is never empty."""
        if self._large is not None:
            return self._large[self._filled :]
        return self._buffer[self._end :]

    @property
    def within_large(self) -> bool:
        """Whether a large frame is being received."""
        return self._large is not None

    def received(self, size: int) -> List[List[Body]]:
        """The messages that so many more bytes complete, each its frames. Raises WireError: close the connection."""
        found: List[List[Body]] = []
        if self._large is not None:
            self._filled += size
            if self._filled == len(self._large):
                frame, self._large = self._large, None
                self._take(frame, self._flags, found)
            return found
        self._end += size
        if not self._greeted and not self._greeting():
            return found
        self._split(found)
        if self._start == self._end:
            self._start = self._end = 0
        elif self._start and self._end > ROOM // 2:
            left = self._end - self._start
            self._buffer[:left] = bytes(self._buffer[self._start : self._end])
            self._start, self._end = 0, left
        return found

    def _greeting(self) -> bool:
        if self._end < len(GREETING):
            return False
        given = bytes(self._buffer[: len(GREETING)])
        if given[0] != 0xFF or given[9] != 0x7F or given[10] < 3 or given[12:32].rstrip(b"\0") != b"NULL":
            raise WireError("whoever connected speaks no ZMTP 3")
        self._start, self._greeted = len(GREETING), True
        return True

    def _split(self, found: List[List[Body]]) -> None:
        buffer = self._buffer
        while self._end - self._start >= 2:
            flags, begin = buffer[self._start], self._start + 2
            size = buffer[self._start + 1]
            if flags & _LONG:
                begin = self._start + _LONG_HEAD.size
                if begin > self._end:
                    return
                (size,) = _SIZE.unpack_from(buffer, self._start + 1)
            if self._size + size > self._largest:
                raise WireError(f"a message of more than {self._largest} bytes")
            end = begin + size
            if end <= self._end:
                self._start = end
                self._take(bytes(buffer[begin:end]), flags, found)
            elif size > ROOM // 2 and not flags & _COMMAND:
                self._large, self._flags, self._filled = memoryview(bytearray(size)), flags, self._end - begin
                self._large[: self._filled] = buffer[begin : self._end]
                self._start = self._end
                return
            elif size > ROOM // 2:
                raise WireError(f"a command of {size} bytes")
            else:
                return

    def _take(self, frame: Body, flags: int, found: List[List[Body]]) -> None:
        if flags & _COMMAND:
            self._command(bytes(frame))
            return
        if self.identity is None:
            raise WireError("a message before READY")
        self._frames.append(frame)
        if not flags & _MORE:
            found.append(self._frames)
            self._frames, self._size = [], 0
            return
        self._size += len(frame)
        if len(self._frames) >= _MAX_FRAMES:
            raise WireError(f"a message of more than {_MAX_FRAMES} frames")

    def _command(self, body: bytes) -> None:
        """Others than READY are for what is not used here."""
        if self.identity is not None or not body.startswith(b"\x05READY"):
            return
        properties, rest = {}, body[6:]
        while rest:
            name, rest = rest[1 : 1 + rest[0]], rest[1 + rest[0] :]
            size = int.from_bytes(rest[:4], "big")
            properties[name.lower()], rest = rest[4 : 4 + size], rest[4 + size :]
        self.identity = properties.get(b"identity", b"")
