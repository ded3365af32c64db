"""What a client is told of an error, beside its message: one table from its code to HTTP's status and gRPC's code.

For the gateway, on every route, and for a worker where it says a failure in the request's own form.
"""

from __future__ import annotations

from typing import Dict, NamedTuple

from .errors import ServingError


class Statuses(NamedTuple):
    http: int
    #: Name of a member of grpc.StatusCode.
    grpc: str


CLIENT_GONE = 499  # nobody reads it: it is for the counters

#: Where two codes have the same status, the first is what a bare status means (`model_error` for 500).
STATUSES: Dict[str, Statuses] = {
    "invalid_request": Statuses(400, "INVALID_ARGUMENT"),
    "config": Statuses(400, "INVALID_ARGUMENT"),  # a reload, or a load's own keys
    "unauthenticated": Statuses(401, "UNAUTHENTICATED"),
    "forbidden": Statuses(403, "PERMISSION_DENIED"),
    "not_found": Statuses(404, "NOT_FOUND"),
    "too_large": Statuses(413, "RESOURCE_EXHAUSTED"),
    "unsupported_media_type": Statuses(415, "INVALID_ARGUMENT"),
    "queue_full": Statuses(429, "RESOURCE_EXHAUSTED"),
    "cancelled": Statuses(CLIENT_GONE, "CANCELLED"),
    "model_error": Statuses(500, "INTERNAL"),
    "internal": Statuses(500, "INTERNAL"),
    "wire": Statuses(500, "INTERNAL"),
    "not_supported": Statuses(501, "UNIMPLEMENTED"),
    "not_ready": Statuses(503, "UNAVAILABLE"),
    "worker_lost": Statuses(503, "UNAVAILABLE"),
    "load_failed": Statuses(503, "UNAVAILABLE"),
    "deadline_exceeded": Statuses(504, "DEADLINE_EXCEEDED"),
}
_CODE_OF_HTTP: Dict[int, str] = {each.http: code for code, each in reversed(list(STATUSES.items()))}


def statuses(error: ServingError) -> Statuses:
    """The HTTP status and the gRPC code of an error; of one with a code that is none of ours, `internal`'s."""
    return STATUSES.get(error.code) or STATUSES["internal"]


def code_of_status(status: int) -> str:
    """What a bare HTTP status stands for; with no code of ours, the client's mistake below 500, else the model's."""
    return _CODE_OF_HTTP.get(status, "invalid_request" if status < 500 else "model_error")
