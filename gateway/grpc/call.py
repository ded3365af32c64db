"""A gRPC call as the gateway sees it: what its metadata say, how it is answered, and how it ends with an error.

Made by `front.py` for each stream; its method (`service.py`, `inference.py`, `health.py`, `reflection.py`) gets it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, TypeVar

from google.protobuf.message import DecodeError
from google.protobuf.message import Message as Protobuf

from ...protocol.codec import Body
from ...protocol.errors import DeadlineExceeded, InvalidRequest, NotSupported, ServingError
from ...protocol.messages import InferRequest
from ..dataplane.budget import Share
from ..dataplane.inference import Exchange, client_timeout
from ..dataplane.statuses import statuses
from ..dispatch.queue import bounded, priority_of
from ..security.guard import Approach, bearer_of
from ..telemetry.requests import Caller, safe_id
from . import http2
from .carrier import Carrier
from .compression import KNOWN
from .generated import open_inference_pb2 as pb
from .http2 import Headers
from .message import Message
from .metadata import CODES, metadata_of, percent_encoded, timeout_of
from .outgoing import Stream

log = logging.getLogger("modelhub.grpc")

#: Messages of more bytes than this are parsed, converted and made in a thread.
LARGE = 256 << 10
#: Messages of no more bytes than this are converted where they are, whatever they are made of.
SIMPLE = 8 << 10
#: A status's message travels in the trailers, percent-encoded, and clients refuse trailers above 8 KiB.
MAX_DETAILS = 5000
#: Seconds beyond a call's deadline after which it is ended here; before that its model's queue says so better.
PAST_DEADLINE = 0.25

REQUEST_ID, TRACE_PARENT = "x-request-id", "traceparent"
TIMEOUT, PRIORITY = "x-request-timeout", "x-request-priority"
_ID, _TRACE = REQUEST_ID.encode(), TRACE_PARENT.encode()
_TIMEOUT, _PRIORITY = TIMEOUT.encode(), PRIORITY.encode()
_OURS = frozenset({_ID, _TRACE, _TIMEOUT, _PRIORITY})
_OK = [(b"grpc-status", CODES["OK"])]

T = TypeVar("T")
M = TypeVar("M", bound=Protobuf)


class Method(NamedTuple):
    """One method of a service."""

    #: Of a unary one: (call, message) -> the parts of the answer's message. Of another: (call) -> nothing; it takes
    #: `call.next_message` and gives `call.write`. What is raised is how the call ends.
    handler: Callable[..., Awaitable[Any]]
    unary: bool = True


class Call(Stream, Caller):
    """One call, which may bring many requests (a stream), as the log and a trace tell of it."""

    known_id: str | None = None
    trace_parent = ""
    #: Seconds of time.monotonic() at which the client waits no longer.
    deadline: float | None = None
    #: Whether something is answered: the gateway waits for it before it ends.
    busy = False
    _task: asyncio.Task[None] | None = None
    _timer: asyncio.TimerHandle | None = None
    _ours: dict[bytes, bytes] | None = None
    _held: list[Share] | None = None

    def __init__(
        self,
        connection: Carrier,
        number: int,
        headers: Headers,
        fields: dict[bytes, bytes],
        method: Method | None,
    ) -> None:
        encoding = fields.get(b"grpc-encoding", b"")
        super().__init__(connection, number, encoding)
        if encoding in KNOWN and encoding in fields.get(b"grpc-accept-encoding", b""):
            self.encoding = encoding
        self._headers = headers
        self._method = method
        if method is not None and not method.unary:
            self.unary, self.due = False, 0.0
        if not _OURS.isdisjoint(fields):
            self._ours = fields
            if _ID in fields:
                self.known_id = safe_id(fields[_ID].decode("latin-1"))
            if _TRACE in fields:
                self.trace_parent = fields[_TRACE].decode("latin-1")
        timeout = fields.get(b"grpc-timeout")
        if timeout is not None:
            self._set_deadline(timeout_of(timeout))

    # ---- its life ----------------------------------------------------------------------------------

    def opened_with(self, ended: bool) -> None:
        """It is known to its connection; `ended`: nothing more comes."""
        if self._method is None:
            self.stop_listening()
            self.fail(NotSupported("Method not found!"), counted=False)
        elif not self.unary:
            self._start(self._run(self._method.handler(self)))
        if ended:
            self.end()

    def on_message(self, message: Message) -> None:
        assert self._method is not None
        self.busy = True
        self._start(self._answer(self._method, message))

    def on_broken(self, error: ServingError) -> None:
        self.fail(error)
        self._cancel()

    def _start(self, run: Any) -> None:
        self._task = self.connection.loop.create_task(run)

    async def _answer(self, method: Method, message: Message) -> None:
        try:
            if message.compressed:
                message = await self.opened(message)
            parts = await method.handler(self, message)
            if parts is None:
                return  # it has ended it
            packed = await self.pack(parts)
            if not self.closed and not self.finished:
                self.begin()
                self.send(packed)
                self.finish(self._trailers_of("OK", None) if self.known_id is not None else _OK)
        except http2.Gone:
            pass  # it was reset meanwhile
        except Exception as error:
            self.fail(error)
        finally:
            message.release()

    async def _run(self, handled: Awaitable[None]) -> None:
        try:
            await handled
            self.finish(_OK)
        except http2.Gone:
            pass  # it was reset meanwhile
        except Exception as error:
            self.fail(error)

    def fail(self, error: Exception, *, counted: bool = True) -> None:
        """End it with the error's code, how long to wait before a retry where one can help, and the request's id."""
        if self.closed or self.finished:
            return
        if not isinstance(error, ServingError):
            log.error("a gRPC call failed in the gateway itself", exc_info=error)
            error = ServingError("internal error")
        code = statuses(error).grpc
        if counted:
            self.connection.counters.grpc_error(code)
        self.finish(self._trailers_of(code, error))

    def _trailers_of(self, code: str, error: ServingError | None) -> Headers:
        found = [(b"grpc-status", CODES[code])]
        if error is not None:
            found.append((b"grpc-message", percent_encoded(_details(error.message))))
            if error.retry_after is not None:
                found.append((b"retry-after", b"%d" % max(1, math.ceil(error.retry_after))))
        known = self.known_id or self.given_id
        if known is not None and (error is not None or self.known_id is not None):
            found.append((_ID, known.encode()))
        return found

    def drop(self) -> None:
        """The stream is closed, as it should be or because the client has left."""
        super().drop()
        self._cancel()
        if self._held is not None:
            for share in self._held:
                share.release()
        self.connection.call_ended()

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None and not self._task.done():
            self._task.cancel()

    def _set_deadline(self, timeout: float | None) -> None:
        if timeout is not None:
            self.deadline = time.monotonic() + timeout
            self._timer = self.connection.loop.call_later(timeout + PAST_DEADLINE, self._expire)

    def _expire(self) -> None:
        self.on_broken(DeadlineExceeded("the deadline of this call passed"))

    def look(self, now: float, write_timeout: float) -> None:
        """End it where its message, or the client's reading, takes too long."""
        if self.due and now >= self.due:
            self.on_broken(DeadlineExceeded("the call's message has not come within the time that it should take"))
        waiting = self.unsent()
        if not waiting or waiting != self.stalled[0]:
            self.stalled = (waiting, now)
        elif now - self.stalled[1] >= write_timeout:
            log.warning("a client has read nothing for %g s (server.write_timeout): its call ends", write_timeout)
            self.connection.reset(self, http2.CANCEL)

    # ---- what it says ------------------------------------------------------------------------------

    def hold(self, share: Share) -> None:
        """The bytes of an answer, until the call has ended."""
        if self.closed:
            share.release()
            return
        self._held = self._held or []
        self._held.append(share)

    def metadata(self) -> list[tuple[str, str]]:
        return metadata_of(self._headers)

    def headers(self) -> dict[str, str]:
        return dict(self.metadata())

    def told(self, status: int, error: BaseException | None) -> str:
        return "OK" if error is None else statuses(error).grpc

    def time_remaining(self) -> float | None:
        """Seconds that the client still waits; None: for ever."""
        return None if self.deadline is None else max(self.deadline - time.monotonic(), 0.0)

    def describe(self, exchange: Exchange, request: pb.ModelInferRequest) -> InferRequest:
        """What the worker is told of one request besides its body. Raises InvalidRequest.

        The deadline is the call's own or the entry's, the earlier one.
        """
        timeout = self.time_remaining()
        priority = InferRequest.priority
        if request.parameters:
            priority = _priority(request)
        if self._ours:
            if _TIMEOUT in self._ours:
                own = client_timeout(self._ours[_TIMEOUT].decode("latin-1"), TIMEOUT)
                timeout = own if timeout is None else min(timeout, own)
            if _PRIORITY in self._ours:
                priority = priority_of(self._ours[_PRIORITY].decode("latin-1"))
        message = exchange.message(trace_parent=self.trace_parent, timeout=timeout)
        if priority != message.priority:
            message.priority = priority
        return message

    def approach(self) -> Approach:
        """Who calls, as the guard wants to know it: browsers speak no gRPC, what is in front may speak it for them."""
        said: dict[str, str] = {}
        for name, value in self.metadata():
            said[name] = f"{said[name]}, {value}" if name in said else value
        return Approach(
            host=said.get("host"),
            origin=said.get("origin"),
            fetch_site=said.get("sec-fetch-site"),
            bearer=bearer_of(said.get("authorization")),
            peer="unix" if self.connection.is_unix else "tcp",
        )


def _priority(request: pb.ModelInferRequest) -> int:
    """The level that Triton's parameter `priority` asks for; what is no number is the worker's to judge."""
    if "priority" not in request.parameters:
        return InferRequest.priority
    parameter = request.parameters["priority"]
    return bounded(parameter.int64_param or parameter.uint64_param)


# ---- messages ------------------------------------------------------------------------------------


async def aside(size: int, call: Callable[..., T], *arguments: object, **options: object) -> T:
    """The result of `call`; in a thread where `size` bytes are many."""
    if size <= LARGE:
        return call(*arguments, **options)
    return await asyncio.to_thread(call, *arguments, **options)


def parse(kind: type[M], message: bytes) -> M:
    """Raises InvalidRequest."""
    try:
        return kind.FromString(message)
    except DecodeError:
        raise InvalidRequest(f"the message is no {kind.__name__} of the package inference") from None


def whole(answer: Protobuf) -> list[Body]:
    """A message that is made at once."""
    return [answer.SerializeToString()]


def _details(message: str) -> str:
    """Text that fits into a trailer, percent-encoded; what is longer in any case is not looked at."""
    raw = message[: MAX_DETAILS + 1].encode("utf-8", "replace")
    plain = sum(0x20 <= byte < 0x7F and byte != 0x25 for byte in raw)
    length = plain + 3 * (len(raw) - plain)
    if length <= MAX_DETAILS:
        return raw.decode()
    return raw[: MAX_DETAILS // 3].decode("utf-8", "ignore") + "…"
