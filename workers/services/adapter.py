"""A service as the worker's loop sees it: `decode`, `predict`, `encode`, as `served.Served` says.

A request whose kind the service leaves to the defaults goes straight to the model, as if there were no
class (and can be batched); any other reaches `service.predict(request, headers)` with the request's fields.
"""

from __future__ import annotations

import inspect
import time
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Callable, Dict, Iterator, Optional

from ...protocol.errors import DeadlineExceeded, InvalidRequest, ServingError
from ...protocol.kinds import GENERATE, INFER, LEGACY, STREAM, STREAMS
from ...protocol.messages import InferRequest
from ...protocol.v2 import V2Request, load_json, parse_document, parse_request
from ...protocol.worker_spec import WorkerSpec
from ..convert.compression import inflate
from ..convert.kinds import is_json, unify
from ..dialects.generate import text_of
from ..dialects.infer import v2_document
from ..dialects.legacy import checked_status, is_legacy, legacy_answer
from ..dialects.v2 import deadline_of
from ..model.call import Answer, Body, Call, items_of, whole
from ..model.failures import model_error, schema_complaint
from ..model.served import ServedModel
from .async_executor import AsyncExecutor, result_of
from .base import HANDLERS, ModelhubModelService, overrides
from .defaults import INNER, served_by
from .dialects import FORMS, Asked, Form
from .v2 import v2_answer, v2_fields


@dataclass
class ServiceCall(Call):
    """A request for the service's own methods; never in a batch."""

    fields: Dict[str, Any] = field(default_factory=dict)
    headers: Dict[str, str] = field(default_factory=dict)
    asked: Optional[Asked] = None  # of another dialect's body


class ServiceAdapter:
    """Serves one service, loaded before."""

    def __init__(self, service: ModelhubModelService, inner: ServedModel) -> None:
        """`inner`: the service's model with its default ways in and out."""
        self.service = service
        self.inner = inner
        self.model, self.name, self.version = inner.model, inner.name, inner.version
        self.signature, self.platform, self.metadata = inner.signature, inner.platform, inner.metadata
        self.versions = inner.versions
        self.wants_headers = True
        self._own_stream = callable(getattr(service, "predict_stream", None))
        self.streams = inner.streams or self._own_stream
        self.example = b"" if overrides(service, "predict") or overrides(service, "predict_raw") else inner.example
        self.example_altered = inner.example_altered
        self._predict: Callable[..., Any] = service.predict
        self._plain = not any(overrides(service, name) for name in ("predict", *HANDLERS.values()))

    # ---- decode -------------------------------------------------------------------------------

    def decode(self, request: InferRequest, body: Body) -> Call:
        """The request's fields, or what the model is asked where no method of the service's own answers."""
        own_stream = self._own_stream and (request.kind in STREAMS or self._joins_stream(request.kind))
        form = FORMS.get(request.kind)
        known = form is not None or request.kind in (INFER, STREAM)
        if not known or (self._plain and not self._narrow() and not own_stream):
            return self.inner.decode(request, body)
        inflated = inflate(body, request.content_encoding, self.inner.max_inflated)
        plain = replace(request, content_encoding="")
        if form is not None:
            return self._decode_form(form, plain, inflated, own_stream)
        if request.json_size is not None:
            return self._decode_binary(plain, inflated, own_stream)
        document = self._document(plain, inflated)
        if document is not None and document.get("inputs") is not None:
            return self._decode_fields(plain, inflated, document, own_stream, request.kind)
        try:
            return self._decode_fields(plain, inflated, document, own_stream, LEGACY)
        except ServingError as error:
            error.form = LEGACY
            raise

    def _decode_binary(self, request: InferRequest, body: Body, own_stream: bool) -> Call:
        """A V2 request with binary tensors."""
        parsed = parse_request(body, request.json_size, self.metadata["inputs"])
        if not (own_stream or self._own("predict_raw")):
            return self.inner.decode(request, body)
        return self._call(request, v2_fields(parsed), parsed)

    def _decode_fields(self, request: InferRequest, body: Body, document: Any, own_stream: bool, kind: str) -> Call:
        """Any other request to `infer`: of ModelHub's own form (`kind` is LEGACY then), or V2."""
        fields = unify(request, body, document, text_columns=self.inner.fields.text_columns).fields
        self.service.name_upload(fields)
        everything = own_stream or overrides(self.service, "predict")
        if not everything and not self._own(self.service.handler_of(fields)):
            return self.inner.decode(request, body)
        return self._call(request, fields, None if kind == LEGACY else parse_document(document, is_open=True), kind)

    def _decode_form(self, form: Form, request: InferRequest, body: Body, own_stream: bool) -> Call:
        """A body of another dialect, for the service's own methods or for the model."""
        asked = form.read(self.service, self.inner, request, body)
        everything = own_stream or overrides(self.service, "predict")
        if not everything and not self._own(self.service.handler_of(asked.requests[0])):
            return asked.call or self.inner.decode(request, body)
        call = self._call(request, asked.requests[0], None)
        call.asked, call.rows = asked, asked.rows
        return call

    def _joins_stream(self, kind: str) -> bool:
        """Is an answer in one piece made of the stream, because the service has no other method for text?"""
        return kind == GENERATE and not self._own("predict_text")

    def _document(self, request: InferRequest, body: Body) -> Any:
        """The JSON object of a body; None for an upload. A `predict` of the user's own takes any fields."""
        if not overrides(self.service, "predict"):
            return v2_document(request, body)
        if not is_json(request.content_type, body):
            return None
        document = load_json(body)
        if not isinstance(document, dict):
            raise InvalidRequest("the body must be a JSON object")
        return document

    def _own(self, handler: str) -> bool:
        return overrides(self.service, "predict") or overrides(self.service, handler)

    def _narrow(self) -> bool:
        """Does the service refuse some kinds, or know better what an upload is?"""
        return self.service.kinds != ModelhubModelService.kinds

    def _call(
        self, request: InferRequest, fields: Dict[str, Any], parsed: Optional[V2Request], kind: str = ""
    ) -> ServiceCall:
        return ServiceCall(
            kind or request.kind,
            {},
            {},
            parsed,
            accept_encoding=request.accept_encoding,
            deadline=request.deadline if parsed is None else deadline_of(request, parsed, self.inner.adapter),
            alone=True,
            name=self.name,
            version=self.version,
            fields=fields,
            headers=request.headers,
        )

    def failure(self, kind: str, error: ServingError) -> Optional[Answer]:
        """The answer to a request that failed, where its form has one of its own."""
        return self.inner.failure(kind, error)

    # ---- predict ------------------------------------------------------------------------------

    def predict(self, call: Call) -> Any:
        """What the service returns. Raises leaves of ServingError; its own exception is the cause of a ModelError."""
        return self._ask(call) if isinstance(call, ServiceCall) else self.inner.predict(call)

    def _ask(self, call: ServiceCall) -> Any:
        with _as_model_errors(call.deadline):
            if call.asked is not None and call.asked.each:
                return [whole(self._result(self._predict, call, fields)) for fields in call.asked.requests]
            if call.kind != GENERATE:
                return whole(self._result(self._predict, call, call.fields))
            method = self._stream_method() if self._joins_stream(GENERATE) else self._predict
            result = self._result(method, call, call.fields)
            return "".join(map(text_of, result)) if hasattr(result, "__next__") else result

    def _result(self, method: Callable[..., Any], call: ServiceCall, fields: Dict[str, Any]) -> Any:
        """What a method of the service returns; an async one is waited for, an async generator made a plain one."""
        given = (fields, call.headers) if _takes_headers(method) else (fields,)
        result = method(*given)
        if inspect.isawaitable(result):
            result = result_of(result, _seconds_left(call.deadline))
        return AsyncExecutor.iterate(result) if hasattr(result, "__aiter__") else result

    def stream(self, call: Call) -> Iterator[Any]:
        """The service's `predict_stream(request, headers)`, else what `predict` yields or returns."""
        if not isinstance(call, ServiceCall):
            return self.inner.stream(call)
        return self._items(self._stream_method(), call)

    def _stream_method(self) -> Callable[..., Any]:
        return self.service.predict_stream if self._own_stream else self._predict  # type: ignore[attr-defined]

    def _items(self, method: Callable[..., Any], call: ServiceCall) -> Iterator[Any]:
        with _as_model_errors(call.deadline):
            yield from items_of(self._result(method, call, call.fields))

    # ---- encode -------------------------------------------------------------------------------

    def encode(self, call: Call, result: Any) -> Answer:
        """The answer's bytes: as the service says, as V2 outputs, or as `data`."""
        if not isinstance(call, ServiceCall):
            return self.inner.encode(call, result)
        if call.asked is not None:
            answer = FORMS[call.kind].answer(call, call.asked, result)
        elif call.request is not None and not is_legacy(result):
            answer = v2_answer(self.inner, call, result)
        elif call.request is not None and _is_success_for_tensors(call.request, result):
            rest = {name: value for name, value in result.items() if name != "statusCode"}
            answer = v2_answer(self.inner, call, rest.get("data", rest))
        else:
            answer = legacy_answer(result)
        answer.compress(call.accept_encoding)
        return answer


def _is_success_for_tensors(request: V2Request, result: Dict[str, Any]) -> bool:
    """A success in our own form, for a client of binary tensors or gRPC, who know no other form of it than outputs."""
    return request.wants_binary(None) and checked_status(result["statusCode"]) < 400


def adapt(service: ModelhubModelService, spec: WorkerSpec) -> ServiceAdapter:
    """The adapter of a loaded service."""
    inner = served_by(service, spec)
    service.__dict__[INNER] = inner
    return ServiceAdapter(service, inner)


@contextmanager
def _as_model_errors(deadline: float) -> Iterator[None]:
    """Whatever the user's code raises becomes a leaf of ServingError."""
    try:
        yield
    except ServingError:
        raise
    except Exception as error:
        if isinstance(error, TimeoutError) and deadline and time.monotonic() >= deadline:
            raise DeadlineExceeded("the deadline of this request passed while the service ran it") from None
        raise model_error(error, schema_complaint(error)) from error  # MLflow's own text quotes the client's data


def _seconds_left(deadline: float) -> Optional[float]:
    return max(deadline - time.monotonic(), 0.001) if deadline else None


def _takes_headers(predict: Callable[..., Any]) -> bool:
    parameters = list(inspect.signature(predict).parameters.values())
    positional = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    return len(positional) > 1 or any(each.kind == each.VAR_POSITIONAL for each in parameters)
