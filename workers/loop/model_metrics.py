"""What a model's own code counts with prometheus_client, for the gateway's scrape."""

from __future__ import annotations

import sys
import traceback
from typing import List

#: Bytes that are sent at most; a model with more series than that has a mistake in its labels.
MAX_BYTES = 256 << 10

_said: List[str] = []


def model_metrics() -> bytes:
    """The default registry in Prometheus' text format; b"" where the model never imported prometheus_client."""
    client = sys.modules.get("prometheus_client")
    if client is None:
        return b""
    try:
        text = bytes(client.generate_latest())
    except Exception:
        _say_once(traceback.format_exc())
        return b""
    if len(text) > MAX_BYTES:
        _say_once(f"the model's own metrics take {len(text)} bytes, more than {MAX_BYTES}: they are left out")
        return b""
    return text


def _say_once(text: str) -> None:
    if not _said:
        _said.append(text)
        print(text, file=sys.stderr, flush=True)
