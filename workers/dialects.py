"""The dialects beside V2: what `/v2/…/infer` takes that is not V2, `/invocations`, `:predict`, `generate`.

`infer` looks at each request once: binary tensors and `inputs` are V2, anything else is ModelHub's own form, and
its answers and failures are `{"statusCode", …}`. `add_dialects` is called once per model, by `loading.py`.
"""

from __future__ import annotations

from typing import Any, Dict, Optional

from ..protocol.errors import InvalidRequest, ServingError
from ..protocol.kinds import GENERATE, GENERATE_STREAM, INFER, INVOCATIONS, LEGACY, STREAM, V1
from ..protocol.messages import InferRequest
from ..protocol.v2 import load_json, parse_document
from .generate import GenerateDialect
from .invocations import InvocationsDialect
from .kinds import KIND_OF_FIELD, LEGACY_FIELDS, V2, Unified, inference_type, is_json, unify
from .kserve_v1 import V1Dialect
from .legacy import legacy_answer, legacy_failure
from .served import Answer, Body, Call, Dialect, ServedModel, V2Dialect

#: Fields that tell that a body is meant for another route.
_ROUTES = {
    **dict.fromkeys(("dataframe_split", "dataframe_records", "messages"), "/models/{model}/invocations"),
    "instances": "/v1/models/{model}:predict",
    "text_input": "/v2/models/{model}/generate",
}


def add_dialects(model: ServedModel) -> None:
    """Have this model understand all kinds of requests."""
    legacy = LegacyDialect()
    infer = InferDialect(legacy)
    generate = GenerateDialect()
    model.dialects.update(
        {
            INFER: infer,
            STREAM: infer,
            LEGACY: legacy,
            INVOCATIONS: InvocationsDialect(),
            V1: V1Dialect(),
            GENERATE: generate,
            GENERATE_STREAM: generate,
        }
    )


class InferDialect(V2Dialect):
    """Requests to `/v2/models/{m}/infer`: V2, or ModelHub's own form, for which they become of kind `legacy`."""

    def __init__(self, legacy: LegacyDialect) -> None:
        self._legacy = legacy

    def decode(self, model: ServedModel, request: InferRequest, body: Body) -> Call:
        if request.json_size is not None:
            return super().decode(model, request, body)
        document = v2_document(request, body)
        if document is not None and "inputs" in document:
            if document.get("params"):
                raise InvalidRequest('the model\'s parameters go into "parameters" where the request has "inputs"')
            return self.call(model, request, parse_document(document))
        request.kind = LEGACY
        return self._legacy.decode_unified(
            model, request, unify(request, body, document, text_columns=model.fields.text_columns)
        )


class LegacyDialect(Dialect):
    """ModelHub's own form: text, records, images, PDF and uploads in, `{"statusCode", "data"}` out."""

    def decode_unified(self, model: ServedModel, request: InferRequest, unified: Unified) -> Call:
        """What a request in the one form asks of the model."""
        found = model.fields.make(unified.kind, unified.fields, request.deadline)
        return model.call_of(request, found, model.adapter.params(params_of(unified.fields)))

    def encode(self, model: ServedModel, call: Call, result: Any) -> Answer:
        return legacy_answer(result, call.rows)

    def failure(self, error: ServingError) -> Optional[Answer]:
        return legacy_failure(error)


def v2_document(request: InferRequest, body: Body) -> Any:
    """The JSON object of a body; None for an upload. One with `inputs` is a V2 request.

    Raises InvalidRequest where it is no JSON object, is empty, or could be two things; UnsupportedMediaType. These are
    said in V2's form, because nobody knows what the client meant.
    """
    override = inference_type(request.query) if request.query else ""
    if request.content_type != "application/json" and not is_json(request.content_type, body):
        return None
    document = load_json(body)
    if not isinstance(document, dict):
        raise InvalidRequest(f"the body must be a JSON object with one of the fields {', '.join(KIND_OF_FIELD)}")
    for name in [name for name, value in document.items() if value is None and name in KIND_OF_FIELD]:
        del document[name]
    if "inputs" in document:
        if override not in ("", V2):
            document.pop("inputs")
        elif not LEGACY_FIELDS.isdisjoint(document) and not override:
            seen = ", ".join(sorted(LEGACY_FIELDS & document.keys()))
            raise InvalidRequest(
                f"the request is ambiguous: it has the fields inputs, {seen}; send one of them, or say which with "
                "?inference_type="
            )
    elif override == V2 or LEGACY_FIELDS.isdisjoint(document):
        fields = ", ".join(str(name)[:60] for name in list(document)[:20]) or "none"
        wanted = "inputs" if override == V2 else ", ".join(KIND_OF_FIELD)
        routes = [f"; {name} is for POST {_ROUTES[name]}" for name in _ROUTES if name in document]
        raise InvalidRequest(f"the request has none of the fields {wanted}; its fields: {fields}{''.join(routes[:1])}")
    return document


def params_of(fields: Dict[str, Any]) -> Dict[str, Any]:
    """The model's own parameters in a request of ModelHub's form: `params`, or `parameters`."""
    name = "params" if "params" in fields else "parameters"
    params = fields.get(name)
    if params is None:
        return {}
    if not isinstance(params, dict):
        raise InvalidRequest(f"the field {name!r} must be an object: the model's parameters")
    return params
