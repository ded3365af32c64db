"""What MLflow's scoring server calls errors: its `error_code` for an HTTP status.

For the gateway's errors on `/invocations`, and for a worker's where a service answers with a status of its own.
"""

from __future__ import annotations

from typing import Dict

_CODES: Dict[int, str] = {
    400: "BAD_REQUEST",
    404: "RESOURCE_DOES_NOT_EXIST",
    405: "ENDPOINT_NOT_FOUND",
    413: "BAD_REQUEST",
    415: "BAD_REQUEST",
    429: "REQUEST_LIMIT_EXCEEDED",
    501: "NOT_IMPLEMENTED",
    503: "TEMPORARILY_UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


def error_code(status: int) -> str:
    """MLflow's name for an error of this status; any other of the client's mistakes is BAD_REQUEST."""
    return _CODES.get(status, "BAD_REQUEST" if 400 <= status < 500 else "INTERNAL_ERROR")
