"""How a request ends, in the words of HTTP and of gRPC, whatever was raised (the table: protocol/statuses.py)."""

from __future__ import annotations

import asyncio

from ...protocol.errors import ServingError
from ...protocol.statuses import STATUSES, Statuses
from ...protocol.statuses import statuses as of_error

_GONE, _INTERNAL = STATUSES["cancelled"], STATUSES["internal"]


def statuses(error: BaseException) -> Statuses:
    """The HTTP status and the gRPC code that a request ends with when this was raised while it was answered."""
    if isinstance(error, ServingError):
        return of_error(error)
    return _GONE if isinstance(error, (asyncio.CancelledError, ConnectionError)) else _INTERNAL
