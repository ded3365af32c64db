"""`grpc-encoding`: messages that come compressed, and answers to those who sent them so.

Inflated piece by piece, each of which is counted before the next is made: a bomb ends at the limit of one message.
"""

from __future__ import annotations

import asyncio
import zlib

from ...protocol.errors import InvalidRequest, ServingError, TooLarge
from ..dataplane.budget import Budget
from .message import GAP, Message

#: What zlib calls them.
_WINDOWS = {b"gzip": 31, b"deflate": 15}
KNOWN = frozenset(_WINDOWS)
#: Bytes that are inflated at a time; more compressed bytes than LARGE, or more pieces, are worked on in a thread.
PIECE, LARGE = 1 << 20, 16 << 10
#: Answers of fewer bytes are sent as they are.
WORTH = 1 << 10
_LEVEL = 1


async def inflate(message: Message, encoding: bytes, budget: Budget, most: int) -> Message:
    """The message that was compressed. Raises InvalidRequest, QueueFull, and TooLarge beyond `most` bytes."""
    inflater = zlib.decompressobj(_WINDOWS[encoding])
    found, left, share = bytearray(GAP), memoryview(message.data)[message.start :], budget.take(0)
    aside = len(left) > LARGE
    try:
        while True:
            room = min(PIECE if aside else LARGE, most + 1 - (len(found) - GAP))
            if aside:
                piece = await asyncio.to_thread(inflater.decompress, left, room)
            else:
                piece = inflater.decompress(left, room)
            found += piece
            if len(found) - GAP > most:
                raise too_large(len(found) - GAP, most)
            share.grow(len(found) - GAP)
            left, aside = memoryview(inflater.unconsumed_tail), True
            if inflater.eof:
                break
            if not piece:
                raise zlib.error("it ends early")
        if inflater.unused_data:
            raise zlib.error("something follows")
    except zlib.error as error:
        share.release()
        raise InvalidRequest(f"the message is not compressed with {encoding.decode()}: {error}") from None
    except BaseException:
        share.release()
        raise
    return Message(found, GAP, share)


def deflate(parts: list[bytes | bytearray | memoryview], encoding: bytes) -> bytes:
    """An answer, compressed."""
    deflater = zlib.compressobj(_LEVEL, zlib.DEFLATED, _WINDOWS[encoding])
    found = [deflater.compress(each) for each in parts]
    found.append(deflater.flush())
    return b"".join(found)


def too_large(size: int, most: int) -> ServingError:
    """In the words of gRPC's own servers, which their users know."""
    return TooLarge(f"Received message larger than max ({size} vs. {most}): see max_body")
