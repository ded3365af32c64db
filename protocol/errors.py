"""Every error that a caller can see: one root, a handful of leaves, a stable code for the wire.

Raised by the worker, the dispatcher, the registry and the configuration. Nothing here knows an HTTP
status: one table (`statuses.py`) maps a code to HTTP and gRPC.
"""

from __future__ import annotations

from typing import ClassVar, Dict, Optional, Type

#: A model's exception may quote its whole input: its text is cut here.
MESSAGE_LIMIT = 2000


class ServingError(Exception):
    """Root of this project's errors. `code` is stable and crosses processes; `message` is for people."""

    code: ClassVar[str] = "internal"

    def __init__(self, message: str, *, retry_after: Optional[float] = None) -> None:
        super().__init__(message)
        self.message = str(message)  # a service may give the exception that it has caught
        #: Seconds after which a retry may succeed; None where a retry cannot help.
        self.retry_after = retry_after
        #: The kind of request in whose form it is answered, where decoding found another than the request's own.
        self.form = ""


class InvalidRequest(ServingError, ValueError):
    """The client's mistake: malformed body, tensor, shape, parameter or signature mismatch."""

    code = "invalid_request"


class Unauthenticated(ServingError):
    """Who asks must show first who it is: a token is missing, or is another one."""

    code = "unauthenticated"


class Forbidden(ServingError):
    """Who asks may not do this, whoever it is."""

    code = "forbidden"


class NotFound(ServingError, LookupError):
    """No such model, version or route."""

    code = "not_found"


class TooLarge(ServingError):
    """A body, or what it inflates to, is over its limit."""

    code = "too_large"


class UnsupportedMediaType(ServingError):
    """A Content-Type or Content-Encoding that is not understood."""

    code = "unsupported_media_type"


class QueueFull(ServingError):
    """The model's bounded queue has no place left."""

    code = "queue_full"


class ModelError(ServingError):
    """The model's own code raised. The message names the exception's type and text, no traceback."""

    code = "model_error"


class NotSupported(ServingError):
    """The feature exists in the protocol, but not here or not for this model."""

    code = "not_supported"


class NotReady(ServingError):
    """The model is loading, unloaded or failed."""

    code = "not_ready"


class WorkerLost(ServingError):
    """The worker process ended while it held the request."""

    code = "worker_lost"


class DeadlineExceeded(ServingError, TimeoutError):
    """The request's deadline passed before there was an answer."""

    code = "deadline_exceeded"


class Cancelled(ServingError):
    """The client went away; nobody reads this answer."""

    code = "cancelled"


class ConfigError(ServingError, ValueError):
    """The configuration is wrong: the message names the file, the line, the key and the next step."""

    code = "config"


class LoadError(ServingError):
    """A model could not be brought to READY: artifacts, environment, load or warm-up failed."""

    code = "load_failed"


class WireError(ServingError):
    """A message between our own processes is malformed or of another wire version."""

    code = "wire"


def _all_leaves() -> Dict[str, Type[ServingError]]:
    found: Dict[str, Type[ServingError]] = {ServingError.code: ServingError}
    pending = list(ServingError.__subclasses__())
    while pending:
        leaf = pending.pop()
        found[leaf.code] = leaf
        pending.extend(leaf.__subclasses__())
    return found


BY_CODE: Dict[str, Type[ServingError]] = _all_leaves()


def from_wire(code: str, message: str, retry_after: Optional[float] = None) -> ServingError:
    """The error that a peer process sent as data; an unknown code becomes the root error."""
    return BY_CODE.get(code, ServingError)(message, retry_after=retry_after)
