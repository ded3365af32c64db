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

import orjson

from ...config.fields import MAX_NAME
from ...protocol.codec import Body
from ...protocol.errors import InvalidRequest, ServingError, TooLarge, from_wire
from ...protocol.kinds import INFER, STREAM
from ...protocol.messages import InferReply, InferRequest
from ...protocol.statuses import code_of_status
from ..dataplane.budget import SMALL, Budget, Share
from ..dataplane.inference import Exchange, Inference
from ..dataplane.statuses import statuses
from ..dispatch.streams import Chunk, Chunks
from ..models.version import ModelVersion
from ..telemetry.counters import Counters
from .call import LARGE, MAX_DETAILS, REQUEST_ID, SIMPLE, Call, aside, parse
from .codec import head_of, head_request, is_raw, is_simple, keep_request, respond, text_of, to_response, to_wire
from .generated import open_inference_pb2 as pb
from .message import Message, Parts, body_of, split

#: Names of the routes in metrics, logs and traces.
UNARY, STREAMED = "grpc", "grpc_stream"
FINAL, EMPTY_FINAL = "triton_final_response", "triton_enable_empty_final_response"

#: Seconds between the header fields of a stream and its end where nothing is between them: grpc.aio loses the fields
#: where both arrive at once.
APART = 0.01

_NOTHING = pb.ModelInferRequest()


class GrpcInference:
    """The two methods."""

    def __init__(self, inference: Inference, counters: Counters) -> None:
        self._inference = inference
        self._counters = counters

    async def infer(self, call: Call, message: Message) -> list[Body]:
        """One request, one answer."""
        question = GrpcQuestion(call, message, self._inference.budget)
        await question.parse()
        _, _, _, answer = await self._inference.answer(question, INFER, UNARY)
        return answer

    async def stream(self, call: Call) -> None:
        """Each request's answers, in their order; an error is an answer too and does not end the stream."""
        call.begin([(REQUEST_ID.encode(), call.id.encode())])
        call.connection.flush()
        asked = False
        while (message := await call.next_message()) is not None:
            asked = True
            question, call.busy = StreamedQuestion(call, message, self._inference.budget), True
            try:
                await question.parse()
                if self._inference.streams(question):
                    await self._inference.stream(question, STREAM, STREAMED)
                else:
                    _, _, _, answer = await self._inference.answer(question, INFER, STREAMED)
                    await call.write(answer)
            except ServingError as error:
                if isinstance(message.refused, TooLarge):
                    raise
                self._counters.grpc_error(statuses(error).grpc)
                await call.write([_error(question.request, error)])
            finally:
                call.busy = False
                question.written()
        if not asked:
            await asyncio.sleep(APART)


class GrpcQuestion:
    """One request of a call, as the data plane asks it (`dataplane.inference.Question`); `parse` it first."""

    def __init__(self, call: Call, message: Message, budget: Budget) -> None:
        self.caller = call
        self.request = _NOTHING
        self.model = ""
        self.version: str | None = None
        self.started = time.monotonic_ns()
        self._message = message
        self._budget = budget
        self._size = len(message)
        #: Where its raw contents are, if they could be found without parsing.
        self._parts: Parts | None = None
        self._raw = True

    async def parse(self) -> None:
        """Raises InvalidRequest."""
        message = self._message
        if message.refused is not None:
            self._read_names(message.refused)
            return
        parts = split(message)
        if parts is None or not parts.spans:
            self.request = request = await aside(self._size, _parsed_whole, message)
            self._raw = is_raw(request)
        else:
            self._parts, head = parts, parts.head
            self.request = request = head_request(head) or await _parsed(head)
        self.model, self.version = request.model_name, request.model_version or None

    def _read_names(self, refused: ServingError) -> None:
        """Of a message that is not received: what its first bytes say. Raises why, where they name no model."""
        parts = split(self._message, whole=False)
        if parts is not None and len(parts.head) <= SIMPLE:
            try:
                self.request = parse(pb.ModelInferRequest, parts.head)
            except InvalidRequest:
                raise refused from None
        self.model, self.version = self.request.model_name, self.request.model_version or None
        if not self.model:
            raise refused

    def describe(self, exchange: Exchange) -> InferRequest:
        return self.caller.describe(exchange, self.request)

    def at_hand(self, message: InferRequest) -> Body | None:
        if self._message.refused is not None:
            raise self._message.refused
        if self._size > SMALL or not self._translates_here():
            return None
        body, message.json_size = self._translated()
        return body

    @asynccontextmanager
    async def reading(self, message: InferRequest) -> AsyncIterator[Body]:
        """The message is here already, and held: it is translated, in a thread where there is much to translate."""
        if self._message.refused is not None:
            raise self._message.refused
        try:
            if self._translates_here():
                body, message.json_size = self._translated()
            else:
                body, message.json_size = await asyncio.to_thread(self._translated)
            yield body
        finally:
            self._message.release()

    def _translates_here(self) -> bool:
        """Whether that takes the event loop no time to speak of: few bytes, or not many and in few parts."""
        size = self._size if self._parts is None else len(self._parts.head)
        return size <= SIMPLE or (size <= LARGE and is_simple(self.request))

    def _translated(self) -> tuple[Body, int]:
        """The body in V2's binary form, and the length of its JSON part."""
        if self._parts is None:
            self._message.data = b""  # it was parsed
            return to_wire(self.request)
        return body_of(self._message, text_of(self._parts, self.request), self._parts.spans)

    async def translate(self, reply: InferReply, output: Body) -> list[Body]:
        if reply.status >= 400:
            raise _error_of(reply.status, output)
        if len(output) > SMALL:
            self._keep(self._budget.take(len(output)))
        return await self._respond(output, reply.json_size)

    async def _respond(self, output: Body, size: int | None) -> list[Body]:
        if self._raw and size is not None:
            text = bytes(output[:size])
            head = head_of(text) if size <= LARGE else await aside(size, head_of, text)
            if head is not None and head.fits(output, size):
                return head.before(output, size)
        return [await aside(len(output), respond, output, size, raw=self._raw)]

    def _keep(self, share: Share) -> None:
        """The bytes of the answer are held until the call has ended."""
        self.caller.hold(share)


class StreamedQuestion(GrpcQuestion):
    """One request of a stream; its answer is a response, or one per piece."""

    _share: Share | None = None

    def _keep(self, share: Share) -> None:
        self._share = share

    def written(self) -> None:
        """It holds nothing any more, and neither does its answer: a stream may have many."""
        self._message.release()
        if self._share is not None:
            self._share.release()

    async def _respond(self, output: Body, size: int | None) -> list[Body]:
        return [await aside(len(output), _final, output, size, raw=self._raw)]

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
            await self.caller.write([self._empty_final(exchange.version)])

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
            await self.caller.write([await aside(len(chunk.body), make, chunk.body, chunk.json_size, raw=self._raw)])

    def _wants_empty_final(self) -> bool:
        parameters = self.request.parameters
        return EMPTY_FINAL in parameters and parameters[EMPTY_FINAL].bool_param

    def _empty_final(self, version: ModelVersion) -> bytes:
        response = pb.ModelInferResponse(model_name=version.name, model_version=version.version, id=self.request.id)
        return _marked(response, final=True)


def _parsed_whole(message: Message) -> pb.ModelInferRequest:
    return parse(pb.ModelInferRequest, message.bytes())


async def _parsed(head: bytes) -> pb.ModelInferRequest:
    """A message without its raw contents. Raises InvalidRequest."""
    request: pb.ModelInferRequest = await aside(len(head), parse, pb.ModelInferRequest, head)
    keep_request(head, request)
    return request


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
