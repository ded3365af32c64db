"""A loaded model with its way in and its way out: what the worker's loop calls, three steps per request.

    decode    a client's bytes -> Call: inflated, parsed, checked and cast to the model's signature
    predict   Call -> whatever the model returns
    encode    that -> Answer: bytes for the client, compressed if the client takes it

A dialect (`Dialect`) is the pair decode / encode for one `kind` of request; whoever loads a model gives it those that
it understands. All of them end in arrays by input name, so whoever batches needs to know none of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Dict, Iterator, Mapping, Optional, Protocol

from ...protocol.errors import NotSupported, ServingError
from ...protocol.limits import MAX_INFLATED
from ...protocol.messages import InferRequest
from ...protocol.signature import Signature, metadata_from_signature
from ..convert.compression import inflate
from ..convert.fields import FieldInputs, ModelInput
from ..convert.images import ImageOptions
from ..convert.inputs import InputAdapter
from ..convert.pdf import PdfOptions
from ..convert.tables import is_bare, with_missing
from .call import Answer, Body, Call, items_of, whole
from .direct import direct_predict
from .failures import failure_of


class Served(Protocol):
    """What a worker's loop knows of the model, or of the service, that it serves."""

    model: Any  # with pyfunc's `predict(data, params=…)`
    signature: Signature
    platform: str
    versions: Dict[str, str]  # of libraries, for people
    metadata: Dict[str, Any]  # V2 model metadata without name and versions
    example: bytes  # the body of a request that it answers; b"" where none is known
    example_altered: str  # how that differs from the model's input example; "": it does not
    wants_headers: bool
    streams: bool

    def decode(self, request: InferRequest, body: Body) -> Call:
        """A request as it came to what is asked. Raises leaves of ServingError."""

    def predict(self, call: Call) -> Any:
        """The result. Raises leaves of ServingError; the model's own exception is the cause of a ModelError."""

    def stream(self, call: Call) -> Iterator[Any]:
        """The result piece by piece; each piece is encoded like a result. Raises as `predict` does."""

    def encode(self, call: Call, result: Any) -> Answer:
        """The result to bytes for the client."""

    def failure(self, kind: str, error: ServingError) -> Optional[Answer]:
        """The answer to a request of this kind that failed; None where the gateway says it in its protocol's form."""


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


@dataclass
class ServedModel:
    """A model as `load/mlflow.py` makes it. `model` has pyfunc's `predict(data, params=…)`."""

    model: Any
    name: str
    version: str
    signature: Signature = field(default_factory=Signature)
    platform: str = "mlflow_python_function"
    max_inflated: int = MAX_INFLATED
    versions: Dict[str, str] = field(default_factory=dict)
    example: bytes = b""
    example_altered: str = ""
    wants_headers: bool = False
    streams: bool = False
    image: Optional[Dict[str, Any]] = None  # WorkerSpec's
    pdf: Optional[Dict[str, Any]] = None
    dialects: Mapping[str, Dialect] = field(default_factory=dict)  # by the kinds of requests that it understands

    def __post_init__(self) -> None:
        self.signature = replace(self.signature)  # its outputs may become others (`promises.py`)
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

    def call_of(
        self, request: InferRequest, found: ModelInput, params: Dict[str, Any], said: Any = None, kind: str = ""
    ) -> Call:
        """The call for what `fields.make` found; `params` and `said` (what its dialect answers with) as in `Call`.

        `kind`: of the call, where it is another than the request's.
        """
        return Call(
            kind or request.kind,
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
            bare = not call.inputs and self.fields.may_be_bare and is_bare(data)
            if self._direct is not None and (call.inputs or bare) and self._direct.accepts(call.inputs):
                result = self._direct(data, call.params)
            else:
                data = with_missing(data, self.signature.inputs) if bare else data
                result = self.model.predict(data, params=call.params) if call.params else self.model.predict(data)
            return whole(result)
        except ServingError:
            raise
        except Exception as error:
            raise failure_of(error) from error

    def stream(self, call: Call) -> Iterator[Any]:
        """The model's result piece by piece; each piece is encoded like a result. Raises as `predict` does."""
        data = self.adapter.assemble(call.inputs) if call.inputs else call.data
        params = {"params": call.params} if call.params else {}
        ask = self.model.predict_stream if self.streams else self.model.predict
        try:
            yield from items_of(ask(data, **params))
        except ServingError:
            raise
        except Exception as error:
            raise failure_of(error) from error

    def encode(self, call: Call, result: Any) -> Answer:
        """The model's result to bytes for the client."""
        answer = self._dialect(call.kind).encode(self, call, result)
        answer.compress(call.accept_encoding)
        return answer

    def failure(self, kind: str, error: ServingError) -> Optional[Answer]:
        """The answer to a request that failed, where its dialect has a form for that of its own."""
        dialect = self.dialects.get(error.form or kind)
        return dialect.failure(error) if dialect else None

    def _dialect(self, kind: str) -> Dialect:
        try:
            return self.dialects[kind]
        except KeyError:
            raise NotSupported(f"requests of the kind {kind!r} are not supported by this model") from None
