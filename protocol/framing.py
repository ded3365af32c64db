"""Messages over a stream socket: to and from the fork server and the fetcher.

    frame   uint32 little-endian length (at most MAX_FRAME) | codec frame 0 of one or more messages

These messages carry no bodies.
"""

from __future__ import annotations

import struct
from typing import Any, List

from .codec import decode, encode
from .errors import WireError
from .messages import Message

MAX_FRAME = 64 << 20
_LENGTH = struct.Struct("<I")


def pack(message: Message) -> bytes:
    """One message as a length-prefixed frame."""
    (head,) = encode([(message, b"")])
    if len(head) > MAX_FRAME:
        raise WireError(f"a {message.type} message of {len(head)} bytes is over the limit of {MAX_FRAME}")
    return _LENGTH.pack(len(head)) + bytes(head)


class Unpacker:
    """Collects received bytes and gives out the messages that are whole."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> List[Any]:
        """The messages that `data` completes, in order. Raises WireError."""
        buffer = self._buffer
        buffer += data
        found: List[Any] = []
        start = 0
        while len(buffer) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(buffer, start)
            if length > MAX_FRAME:
                raise WireError(f"a frame of {length} bytes is over the limit of {MAX_FRAME}")
            end = start + _LENGTH.size + length
            if len(buffer) < end:
                break
            found.extend(message for message, _ in decode([bytes(buffer[start + _LENGTH.size : end])]))
            start = end
        del buffer[:start]
        return found
