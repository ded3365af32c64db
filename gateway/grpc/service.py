"""inference.GRPCInferenceService: the V2 protocol over gRPC, with the same answers and errors as over REST.

`handlers` makes gRPC's table of methods from the protocol's own description; inference is in `inference.py`. Messages
come in and go out as bytes: so one that cannot be parsed is answered like any other mistake of a client. Started by
`server.py`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message

from ...protocol.errors import NotFound, TooLarge
from ..dataplane.control import Control, Operator
from ..dataplane.descriptions import SCHEDULE_POLICY, Descriptions
from ..dataplane.inference import Inference
from ..dataplane.statistics import statistics
from ..telemetry.counters import Counters
from .call import Context, abort, approach, aside, parse
from .generated import open_inference_pb2 as pb
from .inference import GrpcInference

SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
#: Bytes of a message that only has a few names and settings in it.
SMALL_MESSAGE = 64 << 10
#: Calls that change the server: their methods are given the operator that their caller is admitted as.
CONTROL = frozenset({"RepositoryModelLoad", "RepositoryModelUnload"})


def _parameter(value: pb.ModelRepositoryParameter) -> Any:
    kind = value.WhichOneof("parameter_choice")
    return getattr(value, kind) if kind else None


class InferenceService:
    """One method per call of the service, named as it in snake_case: request -> answer, or a ServingError."""

    def __init__(self, inference: Inference, about: Descriptions, counters: Counters, control: Control) -> None:
        """`control`: the door to loads and unloads, perhaps closed."""
        self._about = about
        self._registry = about.registry
        self._counters = counters
        self._control = control
        self._inference = GrpcInference(inference, counters)

    # ---- server and models -----------------------------------------------------------------------

    async def server_live(self, request: pb.ServerLiveRequest) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=True)

    async def server_ready(self, request: pb.ServerReadyRequest) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=self._registry.readiness().ready)

    async def server_metadata(self, request: pb.ServerMetadataRequest) -> pb.ServerMetadataResponse:
        return pb.ServerMetadataResponse(**self._about.server(SCHEDULE_POLICY))

    async def model_ready(self, request: pb.ModelReadyRequest) -> pb.ModelReadyResponse:
        """False for a model that is not there too, as Triton says it: clients wait in a loop for one to be loaded."""
        try:
            return pb.ModelReadyResponse(ready=self._registry.find(request.name, request.version or None).ready)
        except NotFound:
            return pb.ModelReadyResponse(ready=False)

    async def model_metadata(self, request: pb.ModelMetadataRequest) -> pb.ModelMetadataResponse:
        metadata = await self._about.model(request.name, request.version or None)
        return ParseDict(metadata, pb.ModelMetadataResponse(), ignore_unknown_fields=True)

    async def model_config(self, request: pb.ModelConfigRequest) -> pb.ModelConfigResponse:
        config = await self._about.config(request.name, request.version or None)
        return ParseDict({"config": config}, pb.ModelConfigResponse(), ignore_unknown_fields=True)

    async def model_statistics(self, request: pb.ModelStatisticsRequest) -> pb.ModelStatisticsResponse:
        rows = await statistics(self._registry, request.name or None, request.version or None)
        return ParseDict(rows, pb.ModelStatisticsResponse(), ignore_unknown_fields=True)

    # ---- repository ------------------------------------------------------------------------------

    async def repository_index(self, request: pb.RepositoryIndexRequest) -> pb.RepositoryIndexResponse:
        rows = await self._about.index(only_ready=request.ready)
        return pb.RepositoryIndexResponse(models=[pb.RepositoryIndexResponse.ModelIndex(**row) for row in rows])

    async def repository_model_load(
        self, request: pb.RepositoryModelLoadRequest, operator: Operator
    ) -> pb.RepositoryModelLoadResponse:
        parameters = {name: _parameter(value) for name, value in request.parameters.items()}
        await operator.load(request.model_name, None, parameters)
        return pb.RepositoryModelLoadResponse()

    async def repository_model_unload(
        self, request: pb.RepositoryModelUnloadRequest, operator: Operator
    ) -> pb.RepositoryModelUnloadResponse:
        await operator.unload(request.model_name, None)
        return pb.RepositoryModelUnloadResponse()

    # ---- gRPC's table ----------------------------------------------------------------------------

    def handlers(self) -> dict[str, grpc.RpcMethodHandler[bytes, bytes]]:
        """Every method of the service by its name."""
        found: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
            "ModelInfer": grpc.unary_unary_rpc_method_handler(self._inference.infer),
            "ModelStreamInfer": grpc.stream_stream_rpc_method_handler(self._inference.stream),
        }
        for method in SERVICE.methods:
            if method.name not in found:
                name = "".join(f"_{each.lower()}" if each.isupper() else each for each in method.name)[1:]
                kind, answer = getattr(pb, method.input_type.name), getattr(self, name)
                handler = self._on_bytes(kind, answer, changes=method.name in CONTROL)
                found[method.name] = grpc.unary_unary_rpc_method_handler(handler)
        return found

    def _on_bytes(self, kind: type[Message], answer: Callable[..., Awaitable[Message]], *, changes: bool) -> Any:
        """`answer` from and to bytes; what it raises ends the call. One that `changes` the server wants an operator."""

        async def guarded(message: bytes, context: Context) -> bytes:
            try:
                operator = (self._control.admit(approach(context)),) if changes else ()
                if len(message) > SMALL_MESSAGE:
                    raise TooLarge(f"a {kind.DESCRIPTOR.name} has {SMALL_MESSAGE} bytes at most: it holds a few names")
                request = await aside(len(message), parse, kind, message)
                return (await answer(request, *operator)).SerializeToString()
            except Exception as error:
                await abort(context, error, self._counters)

        return guarded
