"""Inference over gRPC: ModelInfer, the hot path of the port, and ModelStreamInfer.

On a stream requests are answered in their order. One to a model that streams has as many responses as the model
yields; the last one is marked `triton_final_response`. A client that asks for `triton_enable_empty_final_response`
gets every piece at once, then a response without outputs that is the final one; for others each piece waits for the
next one, because only then it is known not to be the last. Made by `service.py`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Protocol

import orjson

from ...protocol.codec import Body
from ...protocol.errors import ServingError, from_wire
from ...protocol.kinds import INFER, STREAM
from ...protocol.statuses import code_of_status
from ..dataplane.inference import Exchange, Inference
from ..dataplane.statuses import statuses
from ..dispatch.streams import Chunk, Chunks
from ..models.states import ModelState
from ..telemetry.counters import Counters
from .call import LARGE, REQUEST_ID, Call, Context, abort, aside, parse
from .codec import is_raw, respond, to_response, to_wire
from .generated import open_inference_pb2 as pb

#: Names of the routes in metrics, logs and traces.
UNARY, STREAMED = "grpc", "grpc_stream"
FINAL, EMPTY_FINAL = "triton_final_response", "triton_enable_empty_final_response"

_NOTHING = pb.ModelInferRequest()


class Respond(Protocol):
    """A worker's answer, its body and the length of its JSON part, as the bytes of a message."""

    def __call__(self, body: Body, json_size: int | None, *, raw: bool) -> bytes: ...


class GrpcInference:
    """The two methods; messages come in and go out as bytes."""

    def __init__(self, inference: Inference, counters: Counters) -> None:
        self._inference = inference
        self._counters = counters

    async def infer(self, message: bytes, context: Context) -> bytes:
        """One request, one answer."""
        call = Call(context)
        try:
            asked = _Asked(message)
            await asked.parse()
            with self._begin(asked, call, UNARY) as exchange:
                answer = await _whole(asked, call, exchange, respond)
        except Exception as error:
            await abort(context, error, self._counters, call)
        if call.known_id is not None:
            context.set_trailing_metadata(((REQUEST_ID, call.known_id),))
        return answer

    async def stream(self, messages: AsyncIterator[bytes], context: Context) -> None:
        """Each request's answers, in their order; an error is an answer too and does not end the stream."""
        call = Call(context)
        await context.send_initial_metadata(((REQUEST_ID, call.id),))
        async for message in messages:
            asked = _Asked(message)
            try:
                await asked.parse()
                with self._begin(asked, call, STREAMED) as exchange:
                    version = exchange.version
                    if version.streams or version.state is not ModelState.READY:  # then nobody knows yet
                        await _Pieces(asked, call, exchange, context).send_all()
                    else:
                        await context.write(await _whole(asked, call, exchange, _final))
            except ServingError as error:
                self._counters.grpc_error(statuses(error).grpc)
                await context.write(_error(asked.request, error))
            except Exception as error:
                await abort(context, error, self._counters, call)

    def _begin(self, asked: _Asked, call: Call, route: str) -> Exchange:
        request = asked.request
        return self._inference.begin(
            request.model_name, request.model_version or None, call, INFER, route, asked.started
        )


class _Asked:
    """One request: its message, parsed by `parse`."""

    __slots__ = ("_message", "raw", "request", "size", "started")

    def __init__(self, message: bytes) -> None:
        self.started = time.monotonic_ns()
        self.size = len(message)
        self.raw = True
        self.request = _NOTHING
        self._message = message

    async def parse(self) -> None:
        """Raises InvalidRequest."""
        self.request = await aside(self.size, parse, pb.ModelInferRequest, self._message)
        self.raw = is_raw(self.request)
        self._message = b""

    async def to_worker(self, exchange: Exchange) -> Body:
        """The body for the worker, whose message is told how it begins. Raises InvalidRequest and QueueFull."""
        if self.size <= LARGE:
            body, exchange.message.json_size = to_wire(self.request)
        else:
            exchange.check_queue()
            body, exchange.message.json_size = await asyncio.to_thread(to_wire, self.request)
            exchange.follow()
        return body


async def _whole(asked: _Asked, call: Call, exchange: Exchange, make: Respond) -> bytes:
    """The answer in one piece. Raises leaves of ServingError."""
    call.describe(exchange, asked.request)
    with exchange.holding(asked.size):
        exchange.reply, output = await exchange.ask(await asked.to_worker(exchange))
    reply = exchange.reply
    if reply.status >= 400:
        raise _error_of(reply.status, output)
    if len(output) <= LARGE:
        return make(output, reply.json_size, raw=asked.raw)
    return await asyncio.to_thread(make, output, reply.json_size, raw=asked.raw)


class _Pieces:
    """The answer as a response per piece, to a request of a stream."""

    def __init__(self, asked: _Asked, call: Call, exchange: Exchange, context: Context) -> None:
        self._asked = asked
        self._call = call
        self._exchange = exchange
        self._context = context

    async def send_all(self) -> None:
        """Raises leaves of ServingError."""
        exchange = self._exchange
        exchange.kind = STREAM
        self._call.describe(exchange, self._asked.request)
        with exchange.holding(self._asked.size):
            chunks = exchange.pieces(await self._asked.to_worker(exchange))
            try:
                last = await self._forward(chunks)
                try:
                    exchange.reply, rest = await chunks.end()
                    if exchange.reply.status >= 400:
                        raise _error_of(exchange.reply.status, rest)
                except ServingError:
                    await self._send(last, final=False)
                    raise
                if last is not None:
                    await self._send(last, final=True)
                elif self._wants_empty_final():
                    await self._context.write(self._empty_final())
            finally:
                chunks.close()

    async def _forward(self, chunks: Chunks) -> Chunk | None:
        """Send all pieces but the one that may be the last; where the client wants to know the end otherwise, all."""
        held: Chunk | None = None
        while found := await chunks.take():
            for chunk in found:
                await self._send(held, final=False)
                held = chunk
            if self._exchange.version.streams and self._wants_empty_final():
                await self._send(held, final=False)
                held = None
        return held

    async def _send(self, chunk: Chunk | None, *, final: bool) -> None:
        if chunk is not None:
            make = _final if final else _not_final
            body = await aside(len(chunk.body), make, chunk.body, chunk.json_size, raw=self._asked.raw)
            await self._context.write(body)

    def _wants_empty_final(self) -> bool:
        parameters = self._asked.request.parameters
        return EMPTY_FINAL in parameters and parameters[EMPTY_FINAL].bool_param

    def _empty_final(self) -> bytes:
        name, version = self._exchange.version.name, self._exchange.version.version
        response = pb.ModelInferResponse(model_name=name, model_version=version, id=self._asked.request.id)
        return _marked(response, final=True)


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
