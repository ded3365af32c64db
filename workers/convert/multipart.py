"""multipart/form-data bodies to their parts, strictly and without copying a part more than once.

Called by `kinds.unify`. The standard library's mail parser would split a photograph into lines; here the
boundary is searched for, and only the few header lines of each part are given to that parser.
"""

from __future__ import annotations

from dataclasses import dataclass
from email.message import Message
from typing import List, Optional, Union

from ...protocol.errors import InvalidRequest

Body = Union[bytes, bytearray, memoryview]

MAX_PARTS = 1000
#: Bytes of one part's header lines.
MAX_HEADERS = 8192
_MAX_BOUNDARY = 200  # RFC 2046 allows 70


@dataclass
class Part:
    """One part of a form; `filename` is None for a field, and is only ever shown, never opened."""

    name: str
    data: bytes
    filename: Optional[str] = None
    media_type: str = ""  # lower case, without parameters; "" where the part does not say


def parse_multipart(body: Body, content_type: str) -> List[Part]:
    """The parts in their order, at least one. Raises InvalidRequest."""
    delimiter = b"--" + _boundary(content_type)
    raw = body if isinstance(body, bytes) else bytes(body)
    if raw.startswith(delimiter):
        position = len(delimiter)
    else:
        start = raw.find(b"\r\n" + delimiter)
        if start < 0:
            raise InvalidRequest("the form's boundary, as its Content-Type says it, is not in the body")
        position = start + 2 + len(delimiter)
    parts: List[Part] = []
    while True:
        line_end = raw.find(b"\r\n", position)
        rest = raw[position : line_end if line_end >= 0 else position + 100]
        if rest.startswith(b"--"):
            break
        if line_end < 0 or rest.strip(b" \t"):
            raise InvalidRequest("the form is cut off, or a boundary in it is malformed")
        if len(parts) == MAX_PARTS:
            raise InvalidRequest(f"the form has more than {MAX_PARTS} parts")
        header_end = raw.find(b"\r\n\r\n", line_end, line_end + MAX_HEADERS)
        if header_end < 0:
            raise InvalidRequest(f"part {len(parts) + 1} of the form has no end of its headers")
        end = raw.find(b"\r\n" + delimiter, header_end + 4)
        if end < 0:
            raise InvalidRequest(f"the form is cut off in part {len(parts) + 1}")
        parts.append(_part(raw[line_end + 2 : header_end], raw[header_end + 4 : end], len(parts) + 1))
        position = end + 2 + len(delimiter)
    if not parts:
        raise InvalidRequest("the form has no parts: send a part called file")
    return parts


def _boundary(content_type: str) -> bytes:
    message = Message()
    message["Content-Type"] = content_type
    boundary = message.get_boundary()
    if not boundary or len(boundary) > _MAX_BOUNDARY or not boundary.isascii():
        raise InvalidRequest("multipart/form-data needs a boundary in its Content-Type: let the client library set it")
    return boundary.encode("ascii")


def _part(head: bytes, data: bytes, number: int) -> Part:
    message = Message()
    for line in head.decode("utf-8", "replace").split("\r\n"):
        name, colon, value = line.partition(":")
        if not colon or line[:1] in " \t":
            raise InvalidRequest(f"a header line of part {number} of the form is malformed")
        message[name.strip()] = value.strip()
    label = message.get_param("name", header="content-disposition")
    if message.get_content_disposition() != "form-data" or not isinstance(label, str) or not label:
        raise InvalidRequest(f'part {number} of the form needs Content-Disposition: form-data; name="…"')
    encoding = str(message.get("Content-Transfer-Encoding", "binary")).lower()
    if encoding not in ("binary", "8bit", "7bit"):
        raise InvalidRequest(f"part {number} of the form has a Content-Transfer-Encoding: send the bytes as they are")
    media = message.get_content_type() if "Content-Type" in message else ""
    return Part(label, data, message.get_filename(), media)
