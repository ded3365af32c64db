"""inference.GRPCInferenceService: the V2 protocol over gRPC, with the same answers and errors as over REST.

`methods` makes gRPC's table of methods from the protocol's own description; inference is in `inference.py`. Messages
come in and go out as bytes: so one that cannot be parsed is answered like any other mistake of a client. Made by
`server.py`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message as Protobuf

from ...protocol.codec import Body
from ...protocol.errors import NotFound, TooLarge
from ..dataplane.control import Control, Operator
from ..dataplane.descriptions import SCHEDULE_POLICY, Descriptions
from ..dataplane.inference import Inference
from ..dataplane.statistics import statistics
from ..telemetry.counters import Counters
from .call import Call, Method, parse, whole
from .generated import open_inference_pb2 as pb
from .inference import GrpcInference
from .message import Message

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

    def methods(self) -> dict[bytes, Method]:
        """Every method of the service by its path."""
        found = {"ModelInfer": Method(self._inference.infer), "ModelStreamInfer": Method(self._inference.stream, False)}
        for method in SERVICE.methods:
            if method.name not in found:
                name = "".join(f"_{each.lower()}" if each.isupper() else each for each in method.name)[1:]
                kind, answer = getattr(pb, method.input_type.name), getattr(self, name)
                found[method.name] = Method(self._on_bytes(kind, answer, changes=method.name in CONTROL))
        return {f"/{SERVICE.full_name}/{name}".encode(): method for name, method in found.items()}

    def _on_bytes(self, kind: type[Protobuf], answer: Callable[..., Awaitable[Protobuf]], *, changes: bool) -> Any:
        """`answer` from and to bytes. One that `changes` the server wants an operator."""

        async def answered(call: Call, message: Message) -> list[Body]:
            operator = (self._control.admit(call.approach()),) if changes else ()
            if message.refused is not None or len(message) > SMALL_MESSAGE:
                raise TooLarge(f"a {kind.DESCRIPTOR.name} has {SMALL_MESSAGE} bytes at most: it holds a few names")
            request = parse(kind, message.bytes())
            return whole(await answer(request, *operator))

        return answered
