"""KServe's V1 dialect: `POST /v1/models/{m}:predict`, `{"instances": […]}` -> `{"predictions": […]}`.

An instance is an object (a record), a list (a row of the columns, or of the tensor) or a value (text for a model that
takes text, else a number of its one column); `{"b64": "…"}` stands for bytes, as an image or a PDF, or in a
record for a column's. `params` (or `parameters`) may hold the model's parameters. The gateway gives errors the form
`{"error"}`.
"""

from __future__ import annotations

from typing import Any, Dict, List, Tuple

import orjson

from ...protocol.errors import InvalidRequest
from ...protocol.messages import InferRequest
from ...protocol.v2 import JSON_TYPE, check_content_type, check_members
from ..convert.files import decode_file
from ..convert.kinds import IMAGE, IMAGES, PDF, TABULAR, TEXT
from ..convert.plain import dumps, is_frame, records
from ..model.call import Answer, Body, Call
from ..model.served import Dialect, ServedModel
from .invocations import load_json
from .legacy import params_of

_MEMBERS = frozenset({"instances", "params", "parameters", "signature_name"})
#: What clients of TensorFlow Serving, whose form this was, say of it.
_ONLY_SIGNATURE = "serving_default"


class V1Dialect(Dialect):
    """Requests to `:predict`."""

    def decode(self, model: ServedModel, request: InferRequest, body: Body) -> Call:
        instances, params = read_instances(request, body)
        instances = [_without_b64(each) for each in instances]
        found = model.fields.make(*fields_of(instances, takes_text=model.fields.takes_text), request.deadline)
        return model.call_of(request, found, model.adapter.own_params(params))

    def encode(self, model: ServedModel, call: Call, result: Any) -> Answer:
        whole = model.fields.is_agent and isinstance(result, dict)
        return Answer(dumps({"predictions": [result] if whole else _rows_of(result)}), JSON_TYPE, rows=call.rows)


def read_instances(request: InferRequest, body: Body) -> Tuple[List[Any], Dict[str, Any]]:
    """The instances of a body, and its params. Raises InvalidRequest and UnsupportedMediaType."""
    check_content_type(request.content_type, None, body)
    document = load_json(body)
    instances = document.get("instances")
    if not isinstance(instances, list) or not instances:
        raise InvalidRequest('the body must have "instances": a list with at least one instance')
    check_members(document, _MEMBERS, "the request", 'the model\'s parameters go into "params"')
    if document.get("signature_name") not in (None, _ONLY_SIGNATURE):
        raise InvalidRequest(f'the model has one signature: leave "signature_name" out, or send "{_ONLY_SIGNATURE}"')
    return instances, params_of(document)


def fields_of(instances: List[Any], *, takes_text: bool) -> Tuple[str, Dict[str, Any]]:
    """The instances as a kind and the fields of the one form."""
    if all(isinstance(each, dict) and set(each) == {"b64"} for each in instances):
        return files_of([decode_file(each["b64"], "b64") for each in instances])
    if takes_text and all(isinstance(each, str) for each in instances):
        return TEXT, {"text": instances}
    return TABULAR, {"data": instances}


def files_of(files: List[bytes]) -> Tuple[str, Dict[str, Any]]:
    """Files as a kind and the fields of the one form: one PDF, one image or several."""
    if len(files) > 1:
        return IMAGES, {"images": files}
    return (PDF, {"pdf_file": files[0]}) if files[0].startswith(b"%PDF-") else (IMAGE, {"image": files[0]})


def _without_b64(instance: Any) -> Any:
    """A record with the base64 text itself where it has `{"b64": "…"}`: a table takes it so."""
    if not isinstance(instance, dict) or dict not in map(type, instance.values()):
        return instance
    return {
        name: value["b64"] if isinstance(value, dict) and set(value) == {"b64"} else value
        for name, value in instance.items()
    }


def _rows_of(result: Any) -> Any:
    """One prediction per instance: a table's rows as objects, a dict of columns likewise."""
    if is_frame(result):
        return records(result)
    if isinstance(result, dict) and result:
        columns = {str(name): orjson.loads(dumps(value)) for name, value in result.items()}
        lengths = {len(values) if isinstance(values, list) else -1 for values in columns.values()}
        if len(lengths) == 1 and -1 not in lengths:
            return [dict(zip(columns, row)) for row in zip(*columns.values())]
        return [columns]
    if isinstance(result, (str, bytes, int, float)) or result is None:
        return [result]
    return result
