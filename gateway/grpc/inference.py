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
from contextlib import asynccontextmanager
from typing import Protocol

import orjson

from ...config.fields import MAX_NAME
from ...protocol.codec import Body
from ...protocol.errors import ServingError, from_wire
from ...protocol.kinds import INFER, STREAM
from ...protocol.messages import InferReply, InferRequest
from ...protocol.statuses import code_of_status
from ..dataplane.budget import SMALL, Budget, Share
from ..dataplane.inference import Exchange, Inference
from ..dataplane.statuses import statuses
from ..dispatch.streams import Chunk, Chunks
from ..models.version import ModelVersion
from ..telemetry.counters import Counters
from .call import LARGE, MAX_DETAILS, REQUEST_ID, SIMPLE, Call, Context, abort, aside, parse
from .codec import is_raw, is_simple, respond, to_response, to_wire
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
            question = GrpcQuestion(call, self._inference.budget, respond)
            await question.parse(message)
            _, _, _, answer = await self._inference.answer(question, INFER, UNARY)
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
            question = StreamedQuestion(call, self._inference.budget, context)
            try:
                await question.parse(message)
                if self._inference.streams(question):
                    await self._inference.stream(question, STREAM, STREAMED)
                else:
                    _, _, _, answer = await self._inference.answer(question, INFER, STREAMED)
                    await context.write(answer)
            except ServingError as error:
                self._counters.grpc_error(statuses(error).grpc)
                await context.write(_error(question.request, error))
            except Exception as error:
                await abort(context, error, self._counters, call)
            finally:
                question.written()


class GrpcQuestion:
    """One request of a call, as the data plane asks it (`dataplane.inference.Question`); `parse` it first."""

    def __init__(self, call: Call, budget: Budget, make: Respond) -> None:
        """`make`: the bytes of the answer's message."""
        self.caller = call
        self.request = _NOTHING
        self.model = ""
        self.version: str | None = None
        self.started = time.monotonic_ns()
        self._budget = budget
        self._make = make
        self._size = 0
        self._raw = True

    async def parse(self, message: bytes) -> None:
        """Raises InvalidRequest."""
        self._size = len(message)
        self.request = request = await aside(self._size, parse, pb.ModelInferRequest, message)
        self.model, self.version = request.model_name, request.model_version or None
        self._raw = is_raw(request)

    def describe(self, exchange: Exchange) -> InferRequest:
        return self.caller.describe(exchange, self.request)

    def at_hand(self, message: InferRequest) -> Body | None:
        if self._size > SMALL or not self._translates_here():
            return None
        body, message.json_size = to_wire(self.request)
        return body

    @asynccontextmanager
    async def reading(self, message: InferRequest) -> AsyncIterator[Body]:
        """The message is here already: it is held, and translated, in a thread where it is large."""
        with self._budget.holding(self._size):
            if self._translates_here():
                body, message.json_size = to_wire(self.request)
            else:
                body, message.json_size = await asyncio.to_thread(to_wire, self.request)
            yield body

    def _translates_here(self) -> bool:
        """Whether that takes the event loop no time to speak of: few bytes, or not many and in few parts."""
        return self._size <= SIMPLE or (self._size <= LARGE and is_simple(self.request))

    async def translate(self, reply: InferReply, output: Body) -> bytes:
        if reply.status >= 400:
            raise _error_of(reply.status, output)
        if len(output) > SMALL:
            self._keep(self._budget.take(len(output)))
        return await aside(len(output), self._make, output, reply.json_size, raw=self._raw)

    def _keep(self, share: Share) -> None:
        """The bytes of the answer are held until the call has ended."""
        self.caller.hold(share)


class StreamedQuestion(GrpcQuestion):
    """One request of a stream; its answer is a response, or one per piece."""

    def __init__(self, call: Call, budget: Budget, context: Context) -> None:
        super().__init__(call, budget, _final)
        self._context = context
        self._share: Share | None = None

    def _keep(self, share: Share) -> None:
        self._share = share

    def written(self) -> None:
        """Its answer holds nothing any more: a stream may have many."""
        if self._share is not None:
            self._share.release()

    async def forward(self, exchange: Exchange, chunks: Chunks) -> None:
        last = await self._forward_all(exchange, chunks)
        try:
            reply, rest = await chunks.end()
            exchange.end(reply)
            if reply.status >= 400:
                raise _error_of(reply.status, rest)
        except ServingError:
            await self._send(last, final=False)
            raise
        if last is not None:
            await self._send(last, final=True)
        elif self._wants_empty_final():
            await self._context.write(self._empty_final(exchange.version))

    async def _forward_all(self, exchange: Exchange, chunks: Chunks) -> Chunk | None:
        """Send all pieces but the one that may be the last; where the client wants to know the end otherwise, all."""
        held: Chunk | None = None
        while found := await chunks.take():
            for chunk in found:
                await self._send(held, final=False)
                held = chunk
            if exchange.version.streams and self._wants_empty_final():
                await self._send(held, final=False)
                held = None
        return held

    async def _send(self, chunk: Chunk | None, *, final: bool) -> None:
        if chunk is not None:
            make = _final if final else _not_final
            await self._context.write(await aside(len(chunk.body), make, chunk.body, chunk.json_size, raw=self._raw))

    def _wants_empty_final(self) -> bool:
        parameters = self.request.parameters
        return EMPTY_FINAL in parameters and parameters[EMPTY_FINAL].bool_param

    def _empty_final(self, version: ModelVersion) -> bytes:
        response = pb.ModelInferResponse(model_name=version.name, model_version=version.version, id=self.request.id)
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
    name, message = request.model_name[:MAX_NAME], error.message[:MAX_DETAILS]
    said = pb.ModelInferResponse(model_name=name, id=request.id)
    return pb.ModelStreamInferResponse(error_message=message, infer_response=said).SerializeToString()


def _error_of(status: int, body: Body) -> ServingError:
    """What a service said with a status of its own, as an error of the nearest kind."""
    try:
        said = orjson.loads(body)
        message = str(said.get("error") or said.get("message") or "")
    except (orjson.JSONDecodeError, AttributeError):
        message = ""
    return from_wire(code_of_status(status), message or f"the model answered with status {status}")
