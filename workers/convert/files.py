"""Files in requests: what their first bytes show, and their bytes where they come as text.

Called for the fields of a request (`kinds.py`), the cells of a table (`tables.py`) and the elements of a tensor.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

from ...protocol.errors import InvalidRequest

_SPACE = re.compile(r"[\s]+")
_DATA_URL = re.compile(r"data:([^,;]*)((?:;[^,;]*)*),", re.IGNORECASE)
_URL_SAFE = str.maketrans("-_", "+/")

#: First bytes of what is understood, and its media type. WebP is told apart below.
_MAGIC = (
    (b"%PDF-", "application/pdf"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    (b"BM", "image/bmp"),
)


def sniff(raw: bytes) -> str:
    """The media type that the first bytes show; "" for none that is understood here."""
    for magic, media in _MAGIC:
        if raw.startswith(magic):
            return media
    if raw[:4] == b"RIFF" and raw[8:12] == b"WEBP":
        return "image/webp"
    return ""


def decode_file(value: Any, name: str) -> bytes:
    """The bytes of a field that holds a file: base64 (either alphabet, wrapped or not), or a data URL with it."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    if not isinstance(value, str):
        raise InvalidRequest(f"the field {name!r} takes a file as base64 text, not {json_type(value)}")
    head = _DATA_URL.match(value[:200])
    if head:
        if "base64" not in head.group(2).lower():
            raise InvalidRequest(f"the field {name!r} is a data URL without base64, which is not understood")
        value = value[head.end() :]
    elif re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*://", value[:40]):
        raise InvalidRequest(f"the field {name!r} is an address: nothing is fetched, send the file itself as base64")
    text = _SPACE.sub("", value).rstrip("=").translate(_URL_SAFE)
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest(f"the field {name!r} is not valid base64") from None
    if not raw:
        raise InvalidRequest(f"the field {name!r} is empty")
    return raw


def json_type(value: Any) -> str:
    """What JSON calls a value, for people."""
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
