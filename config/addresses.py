"""Where to listen: an address, the name of a host, or `unix:` and a path; and the mode of that path."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationInfo, WithJsonSchema

from .fields import FromShell, NoBool, absolute

#: How the address of a Unix socket begins.
UNIX = "unix:"
#: Bytes of its path, which the kernel limits.
_LONGEST_PATH = 107


def is_local(address: str) -> bool:
    """Whether only this machine can reach it."""
    if address.startswith(UNIX) or address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return False


def _unix(value: str, info: ValidationInfo) -> str:
    text = value.removeprefix(UNIX)
    if text.startswith("//"):  # as in a URL
        text = text[2:]
    if not text or text.startswith("@"):
        raise ValueError(f"{value!r} names no path; write unix:/run/modelhub/http.sock")
    path = absolute(FromShell(text) if isinstance(value, FromShell) else text, info)
    if len(path.encode()) > _LONGEST_PATH:
        raise ValueError(f"a Unix socket's path has {_LONGEST_PATH} bytes at most, {path[:200]!r} has more")
    return UNIX + path


def _host(value: object, info: ValidationInfo) -> object:
    """Addresses in one form, without brackets."""
    if not isinstance(value, str):
        return value
    if value.startswith(UNIX):
        return _unix(value, info)
    text = value.strip()
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    address, percent, zone = bare.partition("%")
    try:
        return f"{ipaddress.ip_address(address)}{percent}{zone}"
    except ValueError:
        pass
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", text):
        raise ValueError(f"{text[:100]!r} is no address to listen on; write 0.0.0.0, ::, a host's name, or unix:/path")
    return text


def _port_or_socket(value: object, info: ValidationInfo) -> Any:
    if isinstance(value, str) and value.startswith(UNIX):
        return _unix(value, info)
    if isinstance(value, str) and value.isdecimal():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 65535:
        return value
    raise ValueError(f"{str(value)[:100]!r} is neither a port (0 to 65535) nor unix:/path")


def _mode(value: object) -> Any:
    """Digits are octal, as chmod takes them, in quotes or without."""
    text = str(value).removeprefix("0o")
    if isinstance(value, bool) or not re.fullmatch(r"0?[0-7]{3}", text):
        raise ValueError(f"{str(value)[:20]!r} is no mode of a file; write three octal digits, such as 660")
    return text[-3:]


Port = Annotated[int, Field(ge=0, le=65535), NoBool]

ListenHost = Annotated[str, BeforeValidator(_host), WithJsonSchema({"type": "string", "minLength": 1})]
"""An address without brackets, a name, or unix:/absolute/path."""

PortOrSocket = Annotated[
    int | str,
    BeforeValidator(_port_or_socket),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0, "maximum": 65535}, {"pattern": f"^{UNIX}"}]}),
]
"""A port, or unix:/absolute/path."""

FileMode = Annotated[
    str,
    BeforeValidator(_mode),
    WithJsonSchema({"anyOf": [{"type": "integer"}, {"type": "string", "pattern": "^(0o?)?[0-7]{3}$"}]}),
]
"""Who may read and write a file: three octal digits."""
