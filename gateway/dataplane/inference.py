"""One request to a model, from its arrival to its end: the same way for every front.

`Inference.answer` and `Inference.stream` read as a table of contents: find the version, learn from the front's question
what the worker is told, admit, read the body, follow whoever has taken over meanwhile, ask, translate back; the end of
it, whatever it is, is counted, logged and traced once. A front only translates, in its `Question`. What guards requests
belongs here: a path that was matched before (`match_cache`) does not pass through aiohttp's middlewares.

This is the hot path of the gateway.
"""

from __future__ import annotations

import time
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Protocol, TypeVar

from ...config.quantities import parse_duration
from ...protocol.codec import Body
from ...protocol.errors import InvalidRequest, ServingError
from ...protocol.messages import InferReply, InferRequest
from ..dispatch.streams import Chunks
from ..models.registry import Registry, now_serving
from ..models.version import ModelVersion
from ..telemetry import requests
from ..telemetry.requests import Caller
from .budget import Budget
from .statuses import statuses

A = TypeVar("A", covariant=True)

#: Characters of a client's duration.
MAX_DURATION = 100


class Question(Protocol[A]):
    """One request as its front has it: whom it asks, its body, and how its answer is translated. Made by the front."""

    #: The model, and the version that is named; None: the one that serves.
    model: str
    version: str | None
    #: When it came, in nanoseconds of CLOCK_MONOTONIC; 0: when it is asked.
    started: int

    @property
    def caller(self) -> Caller:
        """Who asks, for the log and for traces."""

    def describe(self, exchange: Exchange) -> InferRequest:
        """The worker's message, made by `exchange.message`. Raises InvalidRequest."""

    def at_hand(self, message: InferRequest) -> Body | None:
        """The body, if it is small and here; None where `reading` is needed. Raises leaves of ServingError."""

    def reading(self, message: InferRequest) -> AbstractAsyncContextManager[Body]:
        """The body, however large; it is held within the budget until the end of the block. Raises as `at_hand`."""

    async def translate(self, reply: InferReply, output: Body) -> A:
        """The answer as the front gives it; what fails here is the request's failure. Raises leaves of ServingError."""


class StreamQuestion(Question[A], Protocol[A]):
    """One that may be answered in pieces."""

    async def forward(self, exchange: Exchange, chunks: Chunks) -> None:
        """Give all pieces to the client, and tell the exchange how that has ended. Raises leaves of ServingError."""


class Inference:
    """All that fronts need to have models answer; one per gateway."""

    def __init__(self, registry: Registry, budget: Budget) -> None:
        self.registry = registry
        self.budget = budget

    async def answer(self, question: Question[A], kind: str, route: str = "") -> tuple[int, InferReply, Body, A]:
        """The HTTP status of the answer, the worker's reply, its output, and that as the front has translated it.

        `kind` is what the worker is asked for, `route` its name for the counters where that is another one.
        Raises leaves of ServingError.
        """
        with self._begin(question, kind, route) as exchange:
            message = question.describe(exchange)
            body = question.at_hand(message)
            if body is not None:
                exchange.reply, output = await exchange.version.infer(message, body)
            else:
                exchange.version.check_queue()
                async with question.reading(message) as body:
                    version = exchange.follow(message)
                    exchange.reply, output = await version.infer(message, body)
            del body  # the answer may take a while to be written
            translated = await question.translate(exchange.reply, output)
        return exchange.status, exchange.reply, output, translated

    async def stream(self, question: StreamQuestion[A], kind: str, route: str = "") -> None:
        """The same piece by piece, each as it comes. Raises leaves of ServingError."""
        with self._begin(question, kind, route) as exchange:
            message = question.describe(exchange)
            exchange.version.check_queue()
            async with question.reading(message) as body:
                version, share = exchange.follow(message), self.budget.take(0)
                chunks = Chunks(version.infer, message, body, version.taken, share.hold)
                try:
                    await question.forward(exchange, chunks)
                finally:
                    chunks.close()

    def streams(self, question: Question[A]) -> bool:
        """Whether its model answers in pieces, or nobody knows yet. Raises NotFound."""
        return self.registry.find(question.model, question.version).may_stream

    def refuse_early(self, question: Question[A], route: str, size: int) -> None:
        """Before a body of `size` bytes (0: unknown) is sent: raises what it would be refused with, and counts that."""
        exchange = self._begin(question, route, route)
        try:
            exchange.version.check_queue()
            self.budget.check(size)
        except ServingError as error:
            exchange.failed(error)
            raise

    def _begin(self, question: Question[A], kind: str, route: str) -> Exchange:
        version = self.registry.find(question.model, question.version)
        named = question.version is not None
        return Exchange(version, named, question.caller, kind, route or kind, question.started)


class Exchange:
    """One request under way. A `with` block, whose end is the request's: counted, logged, traced."""

    __slots__ = ("_caller", "_error", "_kind", "_named", "_route", "_started", "reply", "version")

    def __init__(self, version: ModelVersion, named: bool, caller: Caller, kind: str, route: str, started: int) -> None:
        self.version = version
        #: The worker's, set within the block.
        self.reply: InferReply | None = None
        self._error: ServingError | None = None
        self._named = named
        self._caller = caller
        self._kind = kind
        self._route = route
        self._started = started or time.monotonic_ns()

    def message(
        self,
        content_type: str = "",
        content_encoding: str = "",
        accept: str = "",
        accept_encoding: str = "",
        trace_parent: str = "",
        timeout: float | None = None,
    ) -> InferRequest:
        """What the worker is told. `timeout`: the client's own, in seconds; the entry's holds where it is shorter.

        All text in it can be encoded as UTF-8.
        """
        version, received = self.version, self._started / 1e9
        seconds = version.timeout
        if timeout is not None and timeout < seconds:
            seconds = timeout
        # The dispatcher numbers it. By position, in the order of the fields: twice as fast as by name.
        message = InferRequest(
            0,
            self._kind,
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

    def follow(self, message: InferRequest) -> ModelVersion:
        """Its body is here at last: what answers it, its version or what has taken over from that meanwhile."""
        version = now_serving(self.version, named=self._named)
        if version is not self.version:
            self.version = version
            if version.wants_headers:
                message.headers = self._caller.headers()
        return version

    def end(self, how: InferReply | ServingError) -> None:
        """How a stream has ended; an error is one that the client was told as part of its answer."""
        if isinstance(how, InferReply):
            self.reply = how
        else:
            self._error = how

    def __enter__(self) -> Exchange:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None or self._error is not None:
            self.failed(error or self._error)
            return
        reply, status = self.reply, self.status
        assert reply is not None, "whoever asks sets how it ended"
        elapsed = time.monotonic_ns() - self._started
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
        elapsed, status = time.monotonic_ns() - self._started, statuses(error).http
        version, reply = self.version, self.reply
        version.stats.fail(self._route, status, elapsed)
        own = reply if reply is not None and reply.status >= 400 else None
        requests.failed(self._caller, version, self._route, status, elapsed, error, own)


def client_timeout(text: str, name: str) -> float:
    """Seconds of a client's own timeout, the header `name`. Raises InvalidRequest."""
    if len(text) > MAX_DURATION:
        raise InvalidRequest(f"{name}: {text[:20]!r}… is too long for a duration; write 250ms or 30s")
    try:
        return parse_duration(text)
    except ValueError as error:
        raise InvalidRequest(f"{name}: {str(error)[:200]}") from None
