"""What `/v2/models/{m}/infer` takes: V2, and ModelHub's own form for all that is not V2."""

from __future__ import annotations

from typing import Any, Dict

from ...protocol.errors import InvalidRequest, ServingError
from ...protocol.kinds import GENERATE, INVOCATIONS, LEGACY, PATHS, V1
from ...protocol.messages import InferRequest
from ...protocol.v2 import load_json, parse_document
from ..convert.kinds import KIND_OF_FIELD, LEGACY_FIELDS, OVERRIDE, V2, inference_type, is_json, unify
from ..model.call import Body, Call
from ..model.served import ServedModel
from .legacy import LegacyDialect
from .v2 import V2Dialect

#: Fields that tell that a body is meant for another route.
_ROUTES = {
    **dict.fromkeys(("dataframe_split", "dataframe_records", "messages"), PATHS[INVOCATIONS]),
    "instances": PATHS[V1],
    "text_input": PATHS[GENERATE],
}


class InferDialect(V2Dialect):
    """Requests to `/v2/models/{m}/infer`: V2, or ModelHub's own form: calls and failures of the kind `legacy`."""

    def __init__(self, legacy: LegacyDialect) -> None:
        self._legacy = legacy

    def decode(self, model: ServedModel, request: InferRequest, body: Body) -> Call:
        if request.json_size is not None:
            return super().decode(model, request, body)
        document = v2_document(request, body, bare=model.fields.bare)
        if document is not None and "inputs" in document:
            if document.get("params"):
                raise InvalidRequest('the model\'s parameters go into "parameters" where the request has "inputs"')
            return self.call(model, request, parse_document(_without_others(request, document), bare=model.fields.bare))
        if document is not None and document.get(OVERRIDE) is not None:
            raise InvalidRequest(f"{OVERRIDE} goes into the address: ?{OVERRIDE}=…")
        try:
            unified = unify(request, body, document, text_columns=model.fields.text_columns)
            return self._legacy.decode_unified(model, request, unified)
        except ServingError as error:
            error.form = LEGACY
            raise


def _without_others(request: InferRequest, document: Dict[str, Any]) -> Dict[str, Any]:
    """A V2 request without the fields beside `inputs` that its query has ruled out."""
    if not request.query or LEGACY_FIELDS.isdisjoint(document):
        return document
    return {name: value for name, value in document.items() if name not in LEGACY_FIELDS}


def v2_document(request: InferRequest, body: Body, *, bare: bool = False) -> Any:
    """The JSON object of a body; None for an upload. One with `inputs` is a V2 request.

    `bare`: for a model without inputs; the body may have nothing but its parameters.

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
        _settle(document, override)
    elif bare and LEGACY_FIELDS.isdisjoint(document) and not override:
        return document
    elif override == V2 or LEGACY_FIELDS.isdisjoint(document):
        raise _nothing_known(document, override)
    return document


def _settle(document: Dict[str, Any], override: str) -> None:
    """One with `inputs` stays a V2 request, unless the client says otherwise. Raises InvalidRequest."""
    if override not in ("", V2):
        document.pop("inputs")
    elif not LEGACY_FIELDS.isdisjoint(document) and not override:
        seen = ", ".join(sorted(LEGACY_FIELDS & document.keys()))
        raise InvalidRequest(
            f"the request is ambiguous: it has the fields inputs, {seen}; send one of them, or say which with "
            "?inference_type="
        )


def _nothing_known(document: Dict[str, Any], override: str) -> InvalidRequest:
    fields = ", ".join(str(name)[:60] for name in list(document)[:20]) or "none"
    wanted = "inputs" if override == V2 else ", ".join(KIND_OF_FIELD)
    routes = [f"; {name} is for POST {_ROUTES[name]}" for name in _ROUTES if name in document]
    return InvalidRequest(f"the request has none of the fields {wanted}; its fields: {fields}{''.join(routes[:1])}")
