"""Content-Encoding: bodies inflated within a limit, answers compressed when the client takes it.

Only workers do this: the gateway passes compressed bodies on as they are, so a decompression bomb can
cost its own model's worker `limit` bytes at most, and never the gateway.
"""

from __future__ import annotations

import zlib
from typing import Dict, Union

from ...protocol.errors import InvalidRequest, TooLarge, UnsupportedMediaType
from ...protocol.limits import BYTES_PER_ELEMENT, INFLATE_RATIO, INFLATED_ANYHOW

Body = Union[bytes, bytearray, memoryview]

#: Answers below this many bytes go uncompressed.
MIN_COMPRESSED = 1024
#: zlib's fastest level: an answer is compressed once and read once.
_LEVEL = 1
_CHUNK = 1 << 20
#: Fed in pieces: zlib copies whatever of its input is left over after each step.
_FEED = 1 << 18
#: Empty gzip members cost the sender 20 bytes each.
_MAX_MEMBERS = 1000
_GZIP = 16 + zlib.MAX_WBITS
_RAW = -zlib.MAX_WBITS


def inflate(body: Body, encoding: str, limit: int) -> Body:
    """The body without its Content-Encoding: gzip (also of several members), deflate (zlib or raw) or identity.

    Raises UnsupportedMediaType, TooLarge (more than `limit` bytes, or than its own size lets expect, or more elements
    than so many bytes hold otherwise), InvalidRequest (corrupt or cut off).
    """
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return body
    most = min(limit, max(INFLATED_ANYHOW, INFLATE_RATIO * len(body)))
    found = _decoded(body, name, most)
    if found.count(b",") > limit // BYTES_PER_ELEMENT:
        raise TooLarge(f"the body inflates to more than {limit // BYTES_PER_ELEMENT} elements")
    return found


def _decoded(body: Body, name: str, limit: int) -> bytearray:
    if name in ("gzip", "x-gzip"):
        return _inflate(body, _GZIP, limit)
    if name == "deflate":
        # RFC 9110 means zlib's format, but some clients send bare deflate; the first two bytes tell.
        head = bytes(body[:2])
        is_zlib = len(head) == 2 and head[0] & 0x0F == 8 and (head[0] << 8 | head[1]) % 31 == 0
        return _inflate(body, zlib.MAX_WBITS if is_zlib else _RAW, limit)
    raise UnsupportedMediaType(f"Content-Encoding {name!r} is not supported: send gzip, deflate or identity")


def _inflate(body: Body, window: int, limit: int) -> bytearray:
    source = memoryview(body)
    position = 0
    data: Body = b""
    found = bytearray()
    members = 1
    engine = zlib.decompressobj(window)
    while True:
        if engine.eof:
            data = engine.unused_data
            if not data and position == len(source):
                return found
            members += 1
            if window != _GZIP or members > _MAX_MEMBERS:
                raise InvalidRequest("bytes follow the end of the compressed body")
            engine = zlib.decompressobj(window)
        if not data:
            data = source[position : position + _FEED]
            position += len(data)
        exhausted = not data
        try:
            chunk = engine.decompress(data, min(_CHUNK, limit + 1 - len(found)))
        except zlib.error as error:
            raise InvalidRequest(f"the compressed body is corrupt: {error}") from None
        found += chunk
        if len(found) > limit:
            raise TooLarge(f"the body inflates to more than {limit} bytes")
        if exhausted and not chunk and not engine.eof:
            raise InvalidRequest("the compressed body is cut off")
        data = engine.unconsumed_tail


def choose_encoding(accept_encoding: str) -> str:
    """The Content-Encoding for an answer: gzip, deflate, or "" for none, by the client's q-values."""
    if not accept_encoding:
        return ""
    weights: Dict[str, float] = {}
    for item in accept_encoding.lower().split(","):
        name, _, parameters = item.partition(";")
        weights[name.strip()] = _weight(parameters)
    anything = weights.get("*", 0.0)
    offers = [(weights.get(name, anything), name) for name in ("gzip", "deflate")]
    best, chosen = max(offers, key=lambda offer: offer[0])
    return chosen if best > 0 and best >= weights.get("identity", 0.0) else ""


def _weight(parameters: str) -> float:
    for each in parameters.split(";"):
        key, _, value = each.partition("=")
        if key.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0


def compress(body: Body, encoding: str) -> bytes:
    """The body as gzip or deflate (zlib's format)."""
    engine = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP if encoding == "gzip" else zlib.MAX_WBITS)
    return engine.compress(body) + engine.flush()
