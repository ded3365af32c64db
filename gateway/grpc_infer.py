"""Inference over gRPC: ModelInfer, the hot path of the port, and ModelStreamInfer.

On a stream requests are answered in their order. One to a model that streams has as many responses as the model
yields; the last one is marked `triton_final_response`. A client that asks for `triton_enable_empty_final_response`
gets every piece at once, then a response without outputs that is the final one; for others each piece waits for the
next one, because only then it is known not to be the last. Made by `grpc_service.py`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Protocol

import orjson

from ..protocol.codec import Body
from ..protocol.errors import ServingError, from_wire
from ..protocol.kinds import INFER, STREAM
from ..protocol.messages import InferReply, InferRequest
from ..protocol.statuses import code_of_status
from . import request_log
from .chunks import Chunk, Chunks
from .errors import status_of
from .grpc_call import LARGE, REQUEST_ID, Call, Context, abort, aside, code_of, parse
from .grpc_codec import is_raw, respond, to_response, to_wire
from .grpc_generated import open_inference_pb2 as pb
from .lifecycle import ModelState
from .registry import now_serving
from .request_log import id_of

if TYPE_CHECKING:
    from .bodies import Bodies
    from .metrics import Metrics
    from .model import ModelVersion
    from .registry import Registry

#: Names of the routes in metrics, logs and traces.
UNARY, STREAMED = "grpc", "grpc_stream"
FINAL, EMPTY_FINAL = "triton_final_response", "triton_enable_empty_final_response"

_NOTHING = pb.ModelInferRequest()


class Respond(Protocol):
    """A worker's answer, its body and the length of its JSON part, as the bytes of a message."""

    def __call__(self, body: Body, json_size: int | None, *, raw: bool) -> bytes: ...


class Inference:
    """The two methods; messages come in and go out as bytes."""

    def __init__(self, registry: Registry, metrics: Metrics, bodies: Bodies) -> None:
        self._registry = registry
        self._metrics = metrics
        self._bodies = bodies

    async def infer(self, message: bytes, context: Context) -> bytes:
        """One request, one answer."""
        asked = _Asked(context, UNARY, self._bodies)
        try:
            await asked.read(message, self._registry)
            answer = await asked.answer(respond)
        except Exception as error:
            await abort(context, error, self._metrics, asked)
        if asked.known_id is not None:
            context.set_trailing_metadata(((REQUEST_ID, asked.known_id),))
        return answer

    async def stream(self, messages: AsyncIterator[bytes], context: Context) -> None:
        """Each request's answers, in their order; an error is an answer too and does not end the stream."""
        asked = _Asked(context, STREAMED, self._bodies)
        await context.send_initial_metadata(((REQUEST_ID, id_of(asked)),))
        async for message in messages:
            try:
                await asked.read(message, self._registry)
                if asked.version.streams or asked.version.state is not ModelState.READY:  # then nobody knows yet
                    await asked.answer_in_pieces(context)
                else:
                    await context.write(await asked.answer(_final))
            except ServingError as error:
                self._metrics.grpc_error(code_of(error))
                await context.write(_error(asked.request, error))
            except Exception as error:
                await abort(context, error, self._metrics, asked)


class _Asked(Call):
    """A call with its one request, or that of its requests which is being answered."""

    version: ModelVersion

    def __init__(self, context: Context, route: str, bodies: Bodies) -> None:
        super().__init__(context)
        self._bodies = bodies
        self.request = _NOTHING
        self._route = route
        self._started = time.monotonic_ns()
        self._size = 0  # bytes of the message
        self._raw = True

    async def read(self, message: bytes, registry: Registry) -> None:
        """Begin with the next request. Raises InvalidRequest and NotFound."""
        self.request = _NOTHING
        self._started = time.monotonic_ns()
        self._size = len(message)
        self.request = request = await aside(len(message), parse, pb.ModelInferRequest, message)
        self._raw = is_raw(request)
        self.version = registry.find(request.model_name, request.model_version or None)

    async def _to_worker(self, kind: str) -> tuple[InferRequest, Body]:
        message = self.message(self.version, kind, self._started / 1e9, self.request)
        if self._size <= LARGE:
            body, message.json_size = to_wire(self.request)
        else:
            self.version.check_queue()
            body, message.json_size = await asyncio.to_thread(to_wire, self.request)
            self.version = now_serving(self.version, named=bool(self.request.model_version))
            if self.version.wants_headers:
                message.headers = self.headers()
        return message, body

    async def answer(self, make: Respond) -> bytes:
        """The answer in one piece. Counts how it ends; raises leaves of ServingError."""
        reply: InferReply | None = None
        try:
            with self._bodies.holding(self._size):
                message, body = await self._to_worker(INFER)
                reply, output = await self.version.infer(message, body)
            if reply.status >= 400:
                raise _error_of(reply.status, output)
            if len(output) <= LARGE:
                answer = make(output, reply.json_size, raw=self._raw)
            else:
                answer = await asyncio.to_thread(make, output, reply.json_size, raw=self._raw)
        except BaseException as error:
            self._failed(error, reply)
            raise
        self._succeeded(reply)
        return answer

    async def answer_in_pieces(self, context: Context) -> None:
        """Send a response per piece. Counts how it ends; raises leaves of ServingError."""
        reply: InferReply | None = None
        try:
            with self._bodies.holding(self._size):
                message, body = await self._to_worker(STREAM)
                chunks = Chunks(self.version, message, body)
                try:
                    last = await self._forward(chunks, context)
                    try:
                        reply, rest = await chunks.end()
                        if reply.status >= 400:
                            raise _error_of(reply.status, rest)
                    except ServingError:
                        await self._send(last, context, final=False)
                        raise
                    if last is not None:
                        await self._send(last, context, final=True)
                    elif self._wants_empty_final():
                        await context.write(self._empty_final())
                finally:
                    chunks.close()
        except BaseException as error:
            self._failed(error, reply)
            raise
        self._succeeded(reply)

    async def _forward(self, chunks: Chunks, context: Context) -> Chunk | None:
        """Send all pieces but the one that may be the last; where the client wants to know the end otherwise, all."""
        held: Chunk | None = None
        while found := await chunks.take():
            for chunk in found:
                await self._send(held, context, final=False)
                held = chunk
            if self.version.streams and self._wants_empty_final():
                await self._send(held, context, final=False)
                held = None
        return held

    async def _send(self, chunk: Chunk | None, context: Context, *, final: bool) -> None:
        if chunk is not None:
            make = _final if final else _not_final
            await context.write(await aside(len(chunk.body), make, chunk.body, chunk.json_size, raw=self._raw))

    def _wants_empty_final(self) -> bool:
        parameters = self.request.parameters
        return EMPTY_FINAL in parameters and parameters[EMPTY_FINAL].bool_param

    def _empty_final(self) -> bytes:
        version = self.version
        response = pb.ModelInferResponse(model_name=version.name, model_version=version.version, id=self.request.id)
        return _marked(response, final=True)

    # ---- how it ended ----------------------------------------------------------------------------

    def _succeeded(self, reply: InferReply) -> None:
        elapsed = time.monotonic_ns() - self._started
        self.status = "OK"
        self.version.stats.succeed(self._route, 200, elapsed, reply)
        request_log.succeeded(self, self.version, self._route, 200, elapsed, reply)

    def _failed(self, error: BaseException, reply: InferReply | None) -> None:
        elapsed, status = time.monotonic_ns() - self._started, status_of(error)
        self.status = code_of(error)
        self.version.stats.fail(self._route, status, elapsed)
        said = reply if reply is not None and reply.status >= 400 else error
        request_log.failed(self, self.version, self._route, status, elapsed, said)


def _final(body: Body, json_size: int | None, *, raw: bool) -> bytes:
    return _marked(to_response(body, json_size, raw=raw), final=True)


def _not_final(body: Body, json_size: int | None, *, raw: bool) -> bytes:
    return _marked(to_response(body, json_size, raw=raw), final=False)


def _marked(response: pb.ModelInferResponse, *, final: bool) -> bytes:
    response.parameters[FINAL].bool_param = final
    return pb.ModelStreamInferResponse(infer_response=response).SerializeToString()


def _error(request: pb.ModelInferRequest, error: ServingError) -> bytes:
    """The answer to a request that failed, or its last one."""
    said = pb.ModelInferResponse(model_name=request.model_name, id=request.id)
    return pb.ModelStreamInferResponse(error_message=error.message, infer_response=said).SerializeToString()


def _error_of(status: int, body: Body) -> ServingError:
    """What a service said with a status of its own, as an error of the nearest kind."""
    try:
        said = orjson.loads(body)
        message = str(said.get("error") or said.get("message") or "")
    except (orjson.JSONDecodeError, AttributeError):
        message = ""
    return from_wire(code_of_status(status), message or f"the model answered with status {status}")
