"""One request to a model, from its arrival to its end: the same way for every front.

`Inference.begin` finds the model version, and the `Exchange` that it returns stands round all of the rest: the front
translates what came into the worker's message (`describe`) and asks (`ask`, or `pieces` for a stream); whatever happens
in between, the end of the block counts it, logs it and traces it, once. What guards requests belongs here: a path that
was matched before (`match_cache`) does not pass through aiohttp's middlewares.

This is the hot path of the gateway.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable
from contextlib import AbstractContextManager
from types import TracebackType

from ...config.quantities import parse_duration
from ...protocol.codec import Body
from ...protocol.errors import InvalidRequest, ServingError
from ...protocol.messages import InferReply, InferRequest
from ..dispatch.streams import Chunks
from ..models.registry import Registry, now_serving
from ..models.version import ModelVersion
from ..telemetry import requests
from ..telemetry.requests import Caller
from .budget import Budget, Share
from .statuses import statuses


class Inference:
    """All that fronts need to have models answer; one per gateway."""

    def __init__(self, registry: Registry, budget: Budget) -> None:
        self.registry = registry
        self.budget = budget

    def begin(
        self, name: str, version: str | None, caller: Caller, kind: str, route: str = "", started: int = 0
    ) -> Exchange:
        """A request to a model; `version` None: the one that serves. Raises NotFound.

        `kind` is what the worker is asked for, `route` its name for the counters where that is another one. `started`:
        when it came, in nanoseconds of CLOCK_MONOTONIC; 0: now.
        """
        found = self.registry.find(name, version)
        return Exchange(self, found, version is not None, caller, kind, route or kind, started or time.monotonic_ns())

    def refuse_early(self, name: str, version: str | None, caller: Caller, route: str, size: int) -> None:
        """Before a body of `size` bytes (0: unknown) is sent: raises what it would be refused with, and counts that."""
        found = self.registry.find(name, version)
        try:
            found.check_queue()
            self.budget.check(size)
        except ServingError as error:
            Exchange(self, found, False, caller, route, route, time.monotonic_ns()).failed(error)
            raise


class Exchange:
    """One request and its answer. A `with` block, whose end is the request's."""

    __slots__ = ("_caller", "_inference", "_named", "_route", "error", "kind", "message", "reply", "started", "version")

    #: What the worker is told besides the body; made by `describe`.
    message: InferRequest

    def __init__(
        self,
        inference: Inference,
        version: ModelVersion,
        named: bool,
        caller: Caller,
        kind: str,
        route: str,
        started: int,
    ) -> None:
        self.version = version
        self.started = started
        #: How it ended, where that is not an exception which leaves the block: one of the two is to be set in it.
        self.reply: InferReply | None = None
        self.error: ServingError | None = None
        self._inference = inference
        self._named = named
        self._caller = caller
        #: What the worker is asked for; may change until `describe`.
        self.kind = kind
        self._route = route

    def describe(
        self,
        content_type: str = "",
        content_encoding: str = "",
        accept: str = "",
        accept_encoding: str = "",
        trace_parent: str = "",
        timeout: float | None = None,
    ) -> InferRequest:
        """Make the worker's message. `timeout`: the client's own, in seconds; the entry's holds where it is shorter.

        All text in it can be encoded as UTF-8.
        """
        version, received = self.version, self.started / 1e9
        seconds = version.timeout
        if timeout is not None and timeout < seconds:
            seconds = timeout
        # The dispatcher numbers it. By position, in the order of the fields: twice as fast as by name.
        self.message = message = InferRequest(
            0,
            self.kind,
            received + seconds,
            received,
            content_type,
            content_encoding,
            None,
            {},
            {},
            accept,
            accept_encoding,
            trace_parent,
        )
        if version.wants_headers:
            message.headers = self._caller.headers()
        return message

    def check_queue(self) -> None:
        """Before a large body is read: raises QueueFull where there is no place for it."""
        self.version.check_queue()

    def holding(self, size: int) -> AbstractContextManager[Share]:
        """So many bytes of it are held until the end of this block. Raises QueueFull."""
        return self._inference.budget.holding(size)

    def follow(self) -> None:
        """Its body is here at last: what has taken over from its version meanwhile answers it."""
        version = now_serving(self.version, named=self._named)
        if version is not self.version:
            self.version = version
            if version.wants_headers:
                self.message.headers = self._caller.headers()

    def ask(self, body: Body) -> Awaitable[tuple[InferReply, Body]]:
        """The worker's answer in one piece. Raises leaves of ServingError."""
        return self.version.infer(self.message, body)

    def pieces(self, body: Body) -> Chunks:
        """The worker's answer piece by piece; the caller closes it."""
        return Chunks(self.version.infer, self.message, body)

    def __enter__(self) -> Exchange:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None or self.error is not None:
            self.failed(error or self.error)
            return
        reply = self.reply
        assert reply is not None, "whoever asks sets how it ended"
        status = self.status
        elapsed = time.monotonic_ns() - self.started
        version, route = self.version, self._route
        if status < 400:
            version.stats.succeed(route, status, elapsed, reply)
            requests.succeeded(self._caller, version, route, status, elapsed, reply)
        else:
            version.stats.fail(route, status, elapsed)
            requests.failed(self._caller, version, route, status, elapsed, None, reply)

    @property
    def status(self) -> int:
        """Of HTTP: the reply's own, where there is one that makes sense."""
        status = self.reply.status if self.reply is not None else 0
        if not status:
            return 200
        return status if 200 <= status <= 599 else 500

    def failed(self, error: BaseException | None) -> None:
        """Count, log and trace that it ended with this."""
        assert error is not None
        elapsed, status = time.monotonic_ns() - self.started, statuses(error).http
        version, reply = self.version, self.reply
        version.stats.fail(self._route, status, elapsed)
        own = reply if reply is not None and reply.status >= 400 else None
        requests.failed(self._caller, version, self._route, status, elapsed, error, own)


def client_timeout(text: str, name: str) -> float:
    """Seconds of a client's own timeout, the header `name`. Raises InvalidRequest."""
    try:
        return parse_duration(text)
    except ValueError as error:
        raise InvalidRequest(f"{name}: {str(error)[:200]}") from None
