"""Triton's generate extension: `{"text_input", "parameters"?, "id"?}` -> `{"id"?, "model_name", …, "text_output"}`.

`POST /v2/models/{m}/generate` answers once, `/generate_stream` with an event for each item of the stream that
`infer_stream` would give (loop/streaming.py). The model gets `text_input` as it gets a `text`; `parameters` are its
own; further members of the body are its other inputs, as beside a `text`.
"""

from __future__ import annotations

from typing import Any, Dict, Optional, Tuple

from ...protocol.errors import InvalidRequest
from ...protocol.messages import InferRequest
from ...protocol.v2 import JSON_TYPE, check_content_type, check_members, load_json
from ..convert.kinds import TEXT
from ..convert.plain import dumps, is_frame, records
from ..model.call import Answer, Body, Call
from ..model.served import Dialect, ServedModel

#: Members of an object that hold its text, the first that is there.
_TEXTS = ("text_output", "generated_text", "text")
#: Members of the body that are no inputs: Triton's clients send `stream` along, the path says it already.
_OWN = frozenset({"id", "text_input", "parameters", "stream"})


class GenerateDialect(Dialect):
    """Requests to `generate` and `generate_stream`."""

    def decode(self, model: ServedModel, request: InferRequest, body: Body) -> Call:
        fields, request_id = read_generate(request, body)
        found = model.fields.make(TEXT, fields, request.deadline)
        reads = model.fields.reads(TEXT, fields)
        check_members(fields, reads, "the request", 'the model\'s parameters go into "parameters"')
        parameters = _given(model, fields["parameters"])
        return model.call_of(request, found, model.adapter.params(parameters, from_client=True), request_id)

    def encode(self, model: ServedModel, call: Call, result: Any) -> Answer:
        return generate_answer(call, result, call.request)


def read_generate(request: InferRequest, body: Body) -> Tuple[Dict[str, Any], Optional[str]]:
    """The body as the fields of a text request (`text`, `parameters`, its other inputs), and its id."""
    check_content_type(request.content_type, None, body)
    document = load_json(body)
    if not isinstance(document, dict) or not isinstance(document.get("text_input"), str):
        raise InvalidRequest('the body must be a JSON object with "text_input": a text')
    parameters = document.get("parameters")
    if parameters is not None and not isinstance(parameters, dict):
        raise InvalidRequest('"parameters" must be an object: the model\'s parameters')
    request_id = document.get("id")
    if request_id is not None and not isinstance(request_id, str):
        raise InvalidRequest('"id" must be a text')
    if "text" in document:
        raise InvalidRequest("the request is ambiguous: it has the fields text_input and text")
    others = {name: value for name, value in document.items() if name not in _OWN}
    return {**others, "text": document["text_input"], "parameters": parameters or {}}, request_id


def _given(model: ServedModel, parameters: Dict[str, Any]) -> Dict[str, Any]:
    """The parameters that are not null; `stream` is said by the path, and some clients say it here as well."""
    ours = () if model.adapter.owns_parameter("stream") else ("stream",)
    return {name: value for name, value in parameters.items() if value is not None and name not in ours}


def generate_answer(call: Call, result: Any, request_id: Optional[str]) -> Answer:
    """A result, or an item of a stream, as `text_output`."""
    head = {"id": request_id} if request_id is not None else {}
    answer = {**head, "model_name": call.name, "model_version": call.version, "text_output": text_of(result)}
    return Answer(dumps(answer), JSON_TYPE)


def text_of(result: Any) -> str:
    """The text in what a model returned: itself, of its only element, column or member, else its JSON."""
    if is_frame(result):
        result = records(result)
    elif hasattr(result, "tolist"):
        result = result.tolist()
    if isinstance(result, str):
        return result
    if isinstance(result, bytes):
        return result.decode("utf-8", "replace")
    if isinstance(result, (list, tuple)) and len(result) == 1:
        return text_of(result[0])
    if isinstance(result, dict):
        for name in _TEXTS:
            if isinstance(result.get(name), str):
                return str(result[name])
        if len(result) == 1:
            return text_of(next(iter(result.values())))
    return dumps(result).decode("utf-8")
