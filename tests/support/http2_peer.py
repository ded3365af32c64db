"""HTTP/2 by hand, for what no library would send: frames of any kind to a port, and those that come back."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import NamedTuple

from .doors import SERVICE

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
ACK = END_STREAM = 0x1
END_HEADERS = 0x4
INFER = f"{SERVICE}/ModelInfer"
SECONDS = 20.0


class Frame(NamedTuple):
    kind: int
    flags: int
    stream: int
    payload: bytes

    @property
    def code(self) -> int:
        """Of RST_STREAM and GOAWAY."""
        return int.from_bytes(self.payload[-4:] if self.kind == RST_STREAM else self.payload[4:8], "big")


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def settings(**values: int) -> bytes:
    """`window`, `streams`, …"""
    numbers = {"table": 1, "streams": 3, "window": 4, "frame": 5, "headers": 6}
    return frame(SETTINGS, payload=b"".join(struct.pack(">HI", numbers[name], value) for name, value in values.items()))


def packed(fields: Iterable[tuple[str, str]], mark: int = 0x00) -> bytes:
    """HPACK, each field in plain text; `mark` 0x40: to be remembered."""
    found = bytearray()
    for name, value in fields:
        found.append(mark)
        for text in (name.encode(), value.encode()):
            found += _length(len(text)) + text
    return bytes(found)


def _length(size: int) -> bytes:
    if size < 127:
        return bytes([size])
    found, size = bytearray([127]), size - 127
    while size >= 128:
        found.append(size & 127 | 128)
        size >>= 7
    return bytes(found) + bytes([size])


def request_fields(path: str = INFER, *more: tuple[str, str], method: str = "POST") -> list[tuple[str, str]]:
    return [
        (":method", method),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        *more,
    ]


def request(stream: int, path: str = INFER, *more: tuple[str, str], ended: bool = False) -> bytes:
    """The header fields of a call."""
    flags = END_HEADERS | (END_STREAM if ended else 0)
    return frame(HEADERS, flags, stream, packed(request_fields(path, *more)))


def message(data: bytes, size: int | None = None, flag: int = 0) -> bytes:
    """With its prefix; `size`: what that says."""
    return bytes([flag]) + (len(data) if size is None else size).to_bytes(4, "big") + data


class Peer:
    """A client of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.seen: list[Frame] = []

    def send(self, *data: bytes) -> None:
        self._writer.write(b"".join(data))

    async def read(self) -> Frame | None:
        """The next frame; None: the connection has ended."""
        try:
            head = await self._reader.readexactly(9)
            payload = await self._reader.readexactly(int.from_bytes(head[:3], "big"))
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        found = Frame(head[3], head[4], int.from_bytes(head[5:9], "big"), payload)
        self.seen.append(found)
        return found

    async def until(self, kind: int, stream: int | None = None, flags: int = 0) -> Frame:
        """The next frame of this kind, of this stream, with these flags; others are passed over."""
        async with asyncio.timeout(SECONDS):
            while (found := await self.read()) is not None:
                if found.kind == kind and stream in (None, found.stream) and found.flags & flags == flags:
                    return found
        raise AssertionError(f"the connection has ended after {self.seen[-5:]}")

    async def until_end(self) -> None:
        async with asyncio.timeout(SECONDS):
            while await self.read() is not None:
                pass

    async def goaway(self) -> Frame:
        """The last GOAWAY of a connection that ends."""
        await self.until_end()
        return [each for each in self.seen if each.kind == GOAWAY][-1]


@asynccontextmanager
async def peer(address: str, first: bytes = PREFACE + settings()) -> AsyncIterator[Peer]:
    """A connection that has said `first`."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(first)
        yield Peer(reader, writer)
    finally:
        writer.close()
        try:
            await writer.wait_closed()
        except OSError:
            pass
