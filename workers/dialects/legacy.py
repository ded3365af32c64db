"""`{"statusCode", "data"}`: ModelHub's own form of requests and answers.

Text, records, images, PDF and uploads in; what a model or a service returned goes out as `data`, as `convert/plain.py`
has it.
"""

from __future__ import annotations

from typing import Any, Dict, Optional

from ...protocol.errors import MESSAGE_LIMIT, InvalidRequest, ModelError, ServingError
from ...protocol.kinds import LEGACY
from ...protocol.messages import InferRequest
from ...protocol.statuses import statuses
from ...protocol.v2 import JSON_TYPE, check_members
from ..convert.fields import ModelInput
from ..convert.kinds import Unified
from ..convert.plain import dumps
from ..model.call import Answer, Call
from ..model.served import Dialect, ServedModel

#: HTTP has no body here: a client would take it for the next answer.
_WITHOUT_BODY = (204, 304)


class LegacyDialect(Dialect):
    """Requests of this form: `infer` and `stream` become of it once it is known what they are."""

    def decode_unified(self, model: ServedModel, request: InferRequest, unified: Unified) -> Call:
        """What a request in the one form asks of the model."""
        fields = unified.fields
        params = model.adapter.own_params(params_of(fields))
        if model.fields.bare:
            check_members(fields, {"params", "parameters"}, "the request", "the model takes nothing but parameters")
            return model.call_of(request, ModelInput(data=model.fields.nothing(1)), params, kind=LEGACY)
        found = model.fields.make(unified.kind, fields, request.deadline)
        check_members(fields, model.fields.reads(unified.kind, fields), "the request", _beside(model, "params"))
        return model.call_of(request, found, params, kind=LEGACY)

    def encode(self, model: ServedModel, call: Call, result: Any) -> Answer:
        return legacy_answer(result, call.rows)

    def failure(self, error: ServingError) -> Optional[Answer]:
        return legacy_failure(error)


def _beside(model: ServedModel, name: str) -> str:
    """What to do with a field that is none of the model's inputs."""
    inputs = ", ".join(each.name for each in model.signature.inputs[:20])
    if model.signature.params:
        return f'the model\'s parameters go into "{name}"'
    return f"the model has no parameters; its inputs are {inputs}" if inputs else "the model takes no parameters"


def params_of(fields: Dict[str, Any]) -> Dict[str, Any]:
    """The model's own parameters in a request of this form: `params`, or `parameters`."""
    given = [name for name in ("params", "parameters") if fields.get(name) is not None]
    if not given:
        return {}
    if len(given) > 1:
        raise InvalidRequest("the request is ambiguous: it has the fields params and parameters; send one of them")
    (name,) = given
    params = fields[name]
    if not isinstance(params, dict):
        raise InvalidRequest(f"the field {name!r} must be an object: the model's parameters")
    return params


def legacy_answer(result: Any, rows: int = 1) -> Answer:
    """What a handler returned, as an answer whose HTTP status is its `statusCode`.

    An object with `statusCode` is passed on as it is (a failure gets `error` beside its `message` if it has none);
    anything else becomes the `data` of a 200. Raises ModelError if it cannot be sent.
    """
    if not is_legacy(result):
        return Answer(dumps({"statusCode": 200, "data": result}), JSON_TYPE, rows=rows)
    status = checked_status(result["statusCode"])
    if status >= 400 and "error" not in result:
        result = {**result, "error": str(result.get("message", ""))}
    body = b"" if status in _WITHOUT_BODY else dumps({**result, "statusCode": status})
    return Answer(body, JSON_TYPE, status=0 if status == 200 else status, rows=rows)


def legacy_failure(error: ServingError) -> Answer:
    """An error in this form; its HTTP status is the `statusCode` in it."""
    status = statuses(error).http
    message = error.message.encode("utf-8", "replace").decode("utf-8")[:MESSAGE_LIMIT]
    return Answer(dumps({"statusCode": status, "message": message, "error": message}), JSON_TYPE, status=status)


def is_legacy(result: Any) -> bool:
    """Is this an answer in ModelHub's own form?"""
    return isinstance(result, dict) and "statusCode" in result


def checked_status(given: Any) -> int:
    """A `statusCode` as an HTTP status. Raises ModelError."""
    try:
        status = int(given)
    except (TypeError, ValueError, OverflowError):
        status = 0
    if not 200 <= status <= 599:
        raise ModelError(f"the service's statusCode must be an HTTP status from 200 to 599, not {str(given)[:40]!r}")
    return status
