"""Whether the registry is there at all: asked beside the question itself, whose own answer may take minutes to fail."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from urllib.parse import urlsplit

from ...protocol.redaction import without_userinfo
from ..system.timeouts import timeout

#: What says where models are looked up, and for whom.
_VARIABLES = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MODELHUB_BASE_URL", "COPILOT_ID")


def registry_of(environ: Mapping[str, str]) -> str:
    """Names the registry that URIs are looked up in; without credentials."""
    return " ".join(without_userinfo(environ.get(name, "")) for name in _VARIABLES)


async def answers(environ: Mapping[str, str], seconds: float) -> bool:
    """Whether the tracking server says anything within so many seconds; one on this disk always does."""
    address = environ.get("MODELHUB_BASE_URL") or environ.get("MLFLOW_TRACKING_URI", "")
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https"):
        return parts.scheme in ("", "file", "sqlite")
    try:
        async with timeout(seconds):
            return await _says_something(parts.hostname or "", parts.port, parts.scheme == "https")
    except (OSError, ValueError, asyncio.TimeoutError):
        return False


async def _says_something(host: str, port: int | None, secure: bool) -> bool:
    """Anything at all: what it says, and with which certificate, is for the question itself to judge."""
    context = ssl.create_default_context() if secure else None
    if context is not None:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    reader, writer = await asyncio.open_connection(host, port or (443 if secure else 80), ssl=context)
    try:
        writer.write(f"HEAD /health HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        return bool(await reader.read(1))
    finally:
        writer.close()
