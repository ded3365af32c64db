"""What stands in gRPC's header fields and trailers: metadata, timeouts, codes, messages in percent-encoding."""

from __future__ import annotations

from urllib.parse import quote

from .http2 import Headers

_NAMES = """
OK CANCELLED UNKNOWN INVALID_ARGUMENT DEADLINE_EXCEEDED NOT_FOUND ALREADY_EXISTS PERMISSION_DENIED RESOURCE_EXHAUSTED
FAILED_PRECONDITION ABORTED OUT_OF_RANGE UNIMPLEMENTED INTERNAL UNAVAILABLE DATA_LOSS UNAUTHENTICATED
"""
#: The codes' numbers, as trailers say them.
CODES = {name: b"%d" % number for number, name in enumerate(_NAMES.split())}
_PLAIN = "".join(chr(byte) for byte in range(0x20, 0x7F) if byte != 0x25)
_UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
#: Digits of a timeout.
_MAX_DIGITS = 8
#: Not metadata: they belong to the call.
_OF_THE_CALL = frozenset({b"te", b"content-type", b"connection"})


def timeout_of(text: bytes) -> float | None:
    """Seconds of a `grpc-timeout`, `250m` for instance; None for what is none."""
    digits, unit = text[:-1], _UNITS.get(text[-1:])
    if unit is None or not digits.isdigit() or len(digits) > _MAX_DIGITS:
        return None
    return int(digits) * unit


def metadata_of(headers: Headers) -> list[tuple[str, str]]:
    """What the client has said besides the call itself, in its order; values of `-bin` names are left out."""
    return [
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in headers
        if name[:1] != b":" and name[:5] != b"grpc-" and name[-4:] != b"-bin" and name not in _OF_THE_CALL
    ]


def percent_encoded(message: str) -> bytes:
    """As `grpc-message` wants it."""
    return quote(message, safe=_PLAIN, errors="replace").encode()
