"""A loaded model with its way in and its way out: what the worker's loop calls, three steps per request.

    decode    a client's bytes -> Call: inflated, parsed, checked and cast to the model's signature
    predict   Call -> whatever the model returns
    encode    that -> Answer: bytes for the client, compressed if the client takes it

A dialect (`Dialect`) is the pair decode / encode for one `kind` of request; V2 is the one here, others
are added to `ServedModel.dialects` by their kind. All of them end in arrays by input name, so whoever
batches needs to know none of them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, Optional, Tuple, Union

from ..protocol.errors import InvalidRequest, ModelError, NotSupported, ServingError
from ..protocol.kinds import INFER
from ..protocol.messages import InferRequest
from ..protocol.signature import Signature, metadata_from_signature
from ..protocol.v2 import (
    BINARY_TYPE,
    JSON_TYPE,
    V2Request,
    build_response,
    check_content_type,
    did_you_mean,
    parse_request,
)
from .direct import direct_predict
from .field_inputs import FieldInputs, ModelInput
from .images import ImageOptions
from .inflate import MIN_COMPRESSED, choose_encoding, compress, inflate
from .model_inputs import InputAdapter, schema_complaint
from .model_outputs import ModelOutput, to_outputs
from .pdf import PdfOptions
from .tensors import to_array, to_output

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

Body = Union[bytes, bytearray, memoryview]

#: A model's exception may quote its whole input: its text is cut here.
MESSAGE_LIMIT = 2000


@dataclass
class Answer:
    """What goes back to the client. `status` 0 means success; a service may set its own."""

    body: Body
    content_type: str
    content_encoding: str = ""
    json_size: Optional[int] = None  # of the body before compression
    status: int = 0
    rows: int = 1


@dataclass
class Call:
    """One decoded request. Calls of one `group_key` can be predicted together."""

    kind: str
    inputs: Dict[str, Array]  # as the signature wants them; the first axis counts rows
    params: Dict[str, Any]  # the model's own, of its params schema
    request: Any  # what the dialect needs to answer; for V2 the parsed V2Request, without its tensors
    accept_encoding: str = ""
    deadline: float = 0.0  # CLOCK_MONOTONIC seconds, the earlier of the gateway's and the request's; 0: none
    rows: int = 1
    alone: bool = False
    name: str = ""
    version: str = ""
    data: Any = None  # the argument of `predict` itself, where there are no `inputs`; such a call is alone

    def group_key(self) -> Tuple[Any, ...]:
        """Equal for calls whose inputs can be stacked along axis 0 and predicted with the same params."""
        arrays = [(name, array.dtype, array.shape[1:]) for name, array in self.inputs.items()]
        return self.kind, tuple(arrays), repr(sorted(self.params.items())) if self.params else ""


class Dialect:
    """One form of requests and answers."""

    def decode(self, model: ServedModel, request: InferRequest, body: Body) -> Call:
        """`body` is inflated already. Raises leaves of ServingError."""
        raise NotSupported(f"requests of the kind {request.kind!r} are not supported")

    def encode(self, model: ServedModel, call: Call, result: Any) -> Answer:
        """The answer, not compressed. Raises InvalidRequest (outputs that are not there) and ModelError."""
        raise NotSupported(f"requests of the kind {call.kind!r} are not supported")

    def failure(self, error: ServingError) -> Optional[Answer]:
        """The answer to a request that failed; None where the gateway says it in the protocol's own form."""
        return None


class V2Dialect(Dialect):
    """The Open Inference Protocol, with binary tensors."""

    def decode(self, model: ServedModel, request: InferRequest, body: Body) -> Call:
        check_content_type(request.content_type, request.json_size, body)
        return self.call(model, request, parse_request(body, request.json_size, model.metadata["inputs"]))

    def call(self, model: ServedModel, request: InferRequest, parsed: V2Request) -> Call:
        """What a parsed request asks of the model."""
        params: Dict[str, Any] = {}
        deadline = request.deadline
        if parsed.parameters:
            params = model.adapter.params(parsed.parameters)
            deadline = deadline_of(request, parsed, model.adapter)
        arrays = {each.name: to_array(each) for each in parsed.inputs}
        inputs = model.adapter.conform(model.fields.opened(arrays, deadline))
        parsed.inputs = []
        return Call(
            request.kind,
            inputs,
            params,
            parsed,
            request.accept_encoding,
            deadline,
            _rows(inputs),
            request.alone,
            model.name,
            model.version,
        )

    def chosen(self, model: ServedModel, call: Call, result: Any) -> List[Tuple[ModelOutput, bool]]:
        """The outputs that the request asks for, and whether as binary. Raises as `encode` does."""
        parsed: V2Request = call.request
        outputs = {each.name: each for each in to_outputs(result, model.signature.outputs)}
        if parsed.outputs is None:
            return [(each, parsed.wants_binary(None)) for each in outputs.values()]
        for each in parsed.outputs:
            if each.name not in outputs:
                raise InvalidRequest(f"the model has no output {each.name!r}: {did_you_mean(each.name, outputs)}")
        return [(outputs[each.name], parsed.wants_binary(each)) for each in parsed.outputs]

    def encode(self, model: ServedModel, call: Call, result: Any) -> Answer:
        parsed: V2Request = call.request
        chosen = self.chosen(model, call, result)
        body, json_size = build_response(
            call.name,
            [to_output(each.name, each.datatype, each.array, binary=binary) for each, binary in chosen],
            model_version=call.version,
            request_id=parsed.id,
        )
        return Answer(body, JSON_TYPE if json_size is None else BINARY_TYPE, "", json_size, 0, call.rows)


@dataclass
class ServedModel:
    """What `loading.load` returns. `model` has pyfunc's `predict(data, params=…)`."""

    model: Any
    name: str
    version: str
    signature: Signature = field(default_factory=Signature)
    platform: str = "mlflow_python_function"
    max_inflated: int = 256 << 20
    versions: Dict[str, str] = field(default_factory=dict)
    example: bytes = b""
    wants_headers: bool = False
    streams: bool = False
    image: Optional[Dict[str, Any]] = None  # WorkerSpec's
    pdf: Optional[Dict[str, Any]] = None
    dialects: Dict[str, Dialect] = field(default_factory=lambda: {INFER: V2Dialect()})

    def __post_init__(self) -> None:
        self.adapter = InputAdapter(self.signature)
        #: The way of text, records, images and PDF into the model.
        self.fields = FieldInputs(self.signature, ImageOptions.from_spec(self.image), PdfOptions.from_spec(self.pdf))
        self._direct = direct_predict(self.model, self.signature)
        #: V2 model metadata without name and versions.
        self.metadata = metadata_from_signature(self.signature, self.platform)

    def decode(self, request: InferRequest, body: Body) -> Call:
        """A request as it came to what the model is asked. Raises leaves of ServingError."""
        dialect = self._dialect(request.kind)
        return dialect.decode(self, request, inflate(body, request.content_encoding, self.max_inflated))

    def call_of(self, request: InferRequest, found: ModelInput, params: Dict[str, Any], said: Any = None) -> Call:
        """The call for what `fields.make` found; `params` and `said` (what its dialect answers with) as in `Call`."""
        return Call(
            request.kind,
            found.inputs,
            params,
            said,
            accept_encoding=request.accept_encoding,
            deadline=request.deadline,
            rows=found.rows,
            alone=request.alone or not found.inputs,
            name=self.name,
            version=self.version,
            data=found.data,
        )

    def predict(self, call: Call) -> Any:
        """The model's result. Its own exception becomes a ModelError with that as `__cause__`; what
        MLflow's schema enforcement finds wrong is the client's mistake: InvalidRequest."""
        data = self.adapter.assemble(call.inputs) if call.inputs else call.data
        try:
            if self._direct is not None and call.inputs and self._direct.accepts(call.inputs):
                result = self._direct(data, call.params)
            else:
                result = self.model.predict(data, params=call.params) if call.params else self.model.predict(data)
            return list(result) if hasattr(result, "__next__") else result
        except ServingError:
            raise
        except Exception as error:
            complaint = schema_complaint(error)
            if complaint:
                raise InvalidRequest(f"the request does not fit the model's signature: {complaint}") from error
            raise ModelError(f"{type(error).__name__}: {error}"[:MESSAGE_LIMIT]) from error

    def stream(self, call: Call) -> Iterator[Any]:
        """The model's result piece by piece; each piece is encoded like a result. Raises as `predict` does."""
        from .streaming import model_items

        return model_items(self, call)

    def encode(self, call: Call, result: Any) -> Answer:
        """The model's result to bytes for the client."""
        answer = self._dialect(call.kind).encode(self, call, result)
        if len(answer.body) >= MIN_COMPRESSED:
            encoding = choose_encoding(call.accept_encoding)
            if encoding:
                answer.body = compress(answer.body, encoding)
                answer.content_encoding = encoding
        return answer

    def failure(self, request: InferRequest, error: ServingError) -> Optional[Answer]:
        """The answer to a request that failed, where its dialect has a form for that of its own."""
        dialect = self.dialects.get(request.kind)
        return dialect.failure(error) if dialect else None

    def _dialect(self, kind: str) -> Dialect:
        try:
            return self.dialects[kind]
        except KeyError:
            raise NotSupported(f"requests of the kind {kind!r} are not supported by this model") from None


def deadline_of(request: InferRequest, parsed: V2Request, adapter: InputAdapter) -> float:
    """The earlier of the gateway's deadline and the request's `timeout` in microseconds from receipt."""
    timeout = parsed.parameters.get("timeout", 0)
    if adapter.owns_parameter("timeout"):
        return request.deadline
    if isinstance(timeout, bool) or not isinstance(timeout, int) or timeout < 0:
        raise InvalidRequest("the parameter timeout must be a whole number of microseconds; 0 means none")
    if not timeout:
        return request.deadline
    own = (request.received or time.monotonic()) + timeout / 1e6
    return min(own, request.deadline) if request.deadline else own


def _rows(inputs: Dict[str, Array]) -> int:
    return max([len(array) for array in inputs.values() if array.ndim], default=1)
