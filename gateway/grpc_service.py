"""inference.GRPCInferenceService: the V2 protocol over gRPC, with the same answers and errors as over REST.

`handlers` makes gRPC's table of methods from the protocol's own description. Messages come in and go out as bytes:
so one that cannot be parsed is answered like any other mistake of a client, and large ones are parsed and made in a
thread. Started by `grpc_server.py`.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import grpc
import orjson
from google.protobuf.json_format import ParseDict
from google.protobuf.message import DecodeError, Message

from .. import __version__
from ..config.quantities import parse_duration
from ..protocol.errors import InvalidRequest, NotSupported, ServingError, from_wire
from ..protocol.messages import InferReply, InferRequest
from .errors import STATUSES, status_of, statuses
from .grpc_codec import is_raw, to_response, to_wire
from .grpc_generated import open_inference_pb2 as pb
from .model_config import model_config
from .routes_repository import index_row
from .routes_stats import statistics
from .routes_v2 import EXTENSIONS, REPOSITORY

if TYPE_CHECKING:
    from .metrics import Metrics
    from .model import ModelVersion
    from .registry import Registry
    from .routes_control import Control

log = logging.getLogger(__name__)

SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
#: Messages of more bytes than this are parsed, converted and made in a thread.
LARGE = 256 << 10
#: A status's message travels in the trailers, percent-encoded, and clients refuse trailers above 8 KiB.
MAX_DETAILS = 5000

#: What gRPC's metadata have of ours.
_METADATA = ("platform", "inputs", "outputs")

T = TypeVar("T")
Context = grpc.aio.ServicerContext[bytes, bytes]


def _parameter(value: pb.ModelRepositoryParameter) -> Any:
    kind = value.WhichOneof("parameter_choice")
    return getattr(value, kind) if kind else None


class InferenceService:
    """One method per call of the service, named as it in snake_case: request -> answer, or a ServingError."""

    def __init__(self, registry: Registry, metrics: Metrics, control: Control | None) -> None:
        """`control`: loads and unloads; None where that is not open."""
        self._registry = registry
        self._metrics = metrics
        self._control = control

    # ---- server and models -----------------------------------------------------------------------

    async def server_live(self, request: pb.ServerLiveRequest) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=True)

    async def server_ready(self, request: pb.ServerReadyRequest) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=self._registry.readiness().ready)

    async def server_metadata(self, request: pb.ServerMetadataRequest) -> pb.ServerMetadataResponse:
        extensions = [*EXTENSIONS, REPOSITORY] if self._control is not None else EXTENSIONS
        return pb.ServerMetadataResponse(name="modelhub-serving", version=__version__, extensions=extensions)

    async def model_ready(self, request: pb.ModelReadyRequest) -> pb.ModelReadyResponse:
        return pb.ModelReadyResponse(ready=self._find(request.name, request.version).ready)

    async def model_metadata(self, request: pb.ModelMetadataRequest) -> pb.ModelMetadataResponse:
        version = self._find(request.name, request.version)
        metadata = await version.metadata()
        known = {key: value for key, value in metadata.items() if key in _METADATA}
        versions = [each.version for each in self._registry.versions(version.name) if each.version]
        answer = pb.ModelMetadataResponse(name=version.name, versions=versions)
        return ParseDict(known, answer, ignore_unknown_fields=True)

    async def model_config(self, request: pb.ModelConfigRequest) -> pb.ModelConfigResponse:
        config = await model_config(self._find(request.name, request.version))
        return ParseDict({"config": config}, pb.ModelConfigResponse(), ignore_unknown_fields=True)

    async def model_statistics(self, request: pb.ModelStatisticsRequest) -> pb.ModelStatisticsResponse:
        rows = statistics(self._registry, request.name or None, request.version or None)
        return ParseDict(rows, pb.ModelStatisticsResponse(), ignore_unknown_fields=True)

    # ---- repository ------------------------------------------------------------------------------

    async def repository_index(self, request: pb.RepositoryIndexRequest) -> pb.RepositoryIndexResponse:
        rows = [index_row(version) for version in self._registry.all()]
        chosen = [row for row in rows if row["state"] == "READY" or not request.ready]
        return pb.RepositoryIndexResponse(models=[pb.RepositoryIndexResponse.ModelIndex(**row) for row in chosen])

    async def repository_model_load(self, request: pb.RepositoryModelLoadRequest) -> pb.RepositoryModelLoadResponse:
        parameters = {name: _parameter(value) for name, value in request.parameters.items()}
        await self._operators().load(request.model_name, None, parameters)
        return pb.RepositoryModelLoadResponse()

    async def repository_model_unload(
        self, request: pb.RepositoryModelUnloadRequest
    ) -> pb.RepositoryModelUnloadResponse:
        await self._operators().unload(request.model_name, None)
        return pb.RepositoryModelUnloadResponse()

    def _operators(self) -> Control:
        if self._control is None:
            raise NotSupported("models are loaded and unloaded on the admin port (server.admin), not here")
        return self._control

    # ---- inference -------------------------------------------------------------------------------

    async def model_infer(self, message: bytes, context: Context) -> bytes:
        """The hot path; from and to bytes."""
        request = await _parse(pb.ModelInferRequest, message)
        reply, body, done = await self._infer(request, len(message), context)
        if len(body) <= LARGE:
            response = _respond(request, reply, body)
        else:
            response = await asyncio.to_thread(_respond, request, reply, body)
        done()
        return response

    async def model_stream_infer(self, messages: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
        """Each request's answer, in their order; an error is an answer too and does not end the stream."""
        async for message in messages:
            answer = pb.ModelStreamInferResponse()
            try:
                request = await _parse(pb.ModelInferRequest, message)
                answer.infer_response.model_name, answer.infer_response.id = request.model_name, request.id
                reply, body, done = await self._infer(request, len(message), context)
                response = await _aside(len(body), to_response, body, reply.json_size, raw=is_raw(request))
                response.parameters["triton_final_response"].bool_param = True
                answer.infer_response.CopyFrom(response)
                done()
            except ServingError as error:
                self._metrics.error(statuses(error).http)
                answer.error_message = error.message
            yield await _aside(answer.ByteSize(), answer.SerializeToString)

    async def _infer(
        self, request: pb.ModelInferRequest, size: int, context: Context
    ) -> tuple[InferReply, Any, Callable[[], None]]:
        """(reply, its body, what to call when it is on its way). Counts how it ends."""
        started = time.monotonic_ns()
        version = self._find(request.model_name, request.model_version)
        stats = version.stats
        try:
            asked = _to_message(version, context, started / 1e9)
            body, asked.json_size = await _aside(size, to_wire, request)
            reply, output = await version.infer(asked, body)
            if reply.status >= 400:
                raise _error_of(reply.status, output)
        except BaseException as error:
            stats.fail("grpc", status_of(error), time.monotonic_ns() - started)
            raise
        return reply, output, lambda: stats.succeed("grpc", 200, time.monotonic_ns() - started, reply)

    def _find(self, name: str, version: str) -> ModelVersion:
        return self._registry.find(name, version or None)

    # ---- gRPC's table ----------------------------------------------------------------------------

    def handlers(self) -> dict[str, grpc.RpcMethodHandler[bytes, bytes]]:
        """Every method of the service by its name."""
        found: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {}
        for method in SERVICE.methods:
            name = "".join(f"_{each.lower()}" if each.isupper() else each for each in method.name)[1:]
            implementation = getattr(self, name)
            if method.name == "ModelStreamInfer":
                found[method.name] = grpc.stream_stream_rpc_method_handler(self._guard_stream(implementation))
                continue
            if method.name != "ModelInfer":
                implementation = _on_messages(getattr(pb, method.input_type.name), implementation)
            found[method.name] = grpc.unary_unary_rpc_method_handler(self._guard(implementation))
        return found

    def _guard(self, call: Callable[[bytes, Context], Any]) -> Any:
        async def guarded(message: bytes, context: Context) -> bytes:
            try:
                return bytes(await call(message, context))
            except Exception as error:
                await self._abort(context, error)

        return guarded

    def _guard_stream(self, call: Callable[[AsyncIterator[bytes], Context], AsyncIterator[bytes]]) -> Any:
        async def guarded(messages: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
            try:
                async for answer in call(messages, context):
                    yield answer
            except Exception as error:
                await self._abort(context, error)

        return guarded

    async def _abort(self, context: Context, error: Exception) -> NoReturn:
        """End the call with the error's code, and how long to wait before a retry where one can help."""
        if not isinstance(error, ServingError):
            log.error("a gRPC call failed in the gateway itself", exc_info=error)
            error = ServingError("internal error")
        status = statuses(error)
        self._metrics.error(status.http)
        wait = error.retry_after
        trailers = () if wait is None else (("retry-after", str(max(1, math.ceil(wait)))),)
        await context.abort(grpc.StatusCode[status.grpc], _details(error.message), trailers)


def _on_messages(kind: type[Message], call: Callable[[Any], Any]) -> Callable[[bytes, Context], Any]:
    async def on_bytes(message: bytes, context: Context) -> bytes:
        answer: Message = await call(await _parse(kind, message))
        return answer.SerializeToString()

    return on_bytes


async def _parse(kind: type[T], message: bytes) -> T:
    try:
        if len(message) <= LARGE:
            return kind.FromString(message)  # type: ignore[attr-defined, no-any-return]
        return await asyncio.to_thread(kind.FromString, message)  # type: ignore[attr-defined]
    except DecodeError:
        raise InvalidRequest(f"the message is no {kind.__name__} of the package inference") from None


async def _aside(size: int, call: Callable[..., T], *arguments: Any, **options: Any) -> T:
    """The result of `call`; in a thread where `size` bytes are many."""
    if size <= LARGE:
        return call(*arguments, **options)
    return await asyncio.to_thread(call, *arguments, **options)


def _respond(request: pb.ModelInferRequest, reply: InferReply, body: Any) -> bytes:
    return to_response(body, reply.json_size, raw=is_raw(request)).SerializeToString()


def _to_message(version: ModelVersion, context: Context, received: float) -> InferRequest:
    """What the worker is told besides the body; the deadline is the call's own or the entry's, the earlier one."""
    timeout = version.timeout
    remaining = context.time_remaining()
    if remaining is not None and remaining < timeout:
        timeout = remaining
    trace = ""
    metadata = context.invocation_metadata() or ()
    for name, value in metadata:
        if name == "traceparent" and isinstance(value, str):
            trace = value
        elif name == "x-request-timeout" and isinstance(value, str):
            timeout = min(timeout, _duration(value))
    message = InferRequest(0, "infer", received + timeout, received, trace_parent=trace)
    if version.wants_headers:
        message.headers = {name: value for name, value in metadata if isinstance(value, str)}
    return message


def _duration(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise InvalidRequest(f"x-request-timeout: {str(error)[:200]}") from None


def _error_of(status: int, body: Any) -> ServingError:
    """What a service said with a status of its own, as an error of the nearest kind."""
    try:
        said = orjson.loads(body)
        message = str(said.get("error") or said.get("message") or "")
    except (orjson.JSONDecodeError, AttributeError):
        message = ""
    codes = [code for code, statuses_ in STATUSES.items() if statuses_.http == status and code != "internal"]
    fallback = "invalid_request" if status < 500 else "model_error"
    return from_wire(codes[0] if codes else fallback, message or f"the model answered with status {status}")


def _details(message: str) -> str:
    """Text that fits into a trailer, percent-encoded."""
    raw = message.encode("utf-8", "replace")
    plain = sum(0x20 <= byte < 0x7F and byte != 0x25 for byte in raw)
    length = plain + 3 * (len(raw) - plain)
    if length <= MAX_DETAILS:
        return raw.decode()
    return raw[: MAX_DETAILS // 3].decode("utf-8", "ignore") + "…"
