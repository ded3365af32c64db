"""What a client is told of an exception that a model's own code, or MLflow around it, has raised."""

from __future__ import annotations

import re
from typing import Any

from ...protocol.errors import MESSAGE_LIMIT, InvalidRequest, ModelError, ServingError

#: MLflow's complaints about a request, as their text begins; the rest of the text quotes the client's data.
_SCHEMA_ERRORS = (
    "Failed to enforce schema",
    "Failed to enforce model input schema",
    "Failed to validate data against type hint",
    "Failed to validate the input data against the type hint",
    "Invalid parameters found",
    "Model is missing inputs",
    "Input schema validation failed",
    # of MLflow 1, which says no more
    "Failed to convert column",
    "Incompatible input types for column",
    "Expected input to be DataFrame",
    "Expected input to be numpy array",
    "Shape of input",
    "dtype of input",
    "This model contains a tensor-based model signature",
)
_QUOTED = re.compile(r"(of (?:data )?)(['`]).*?\2 (with)", re.DOTALL)
_VALUE = re.compile(r"( for)? value `.*?`|(?<= string) \".*\"", re.DOTALL)
#: What is wrong with the first element, where that is said without the element itself: pydantic's field, a type.
_DETAIL = re.compile(
    r"validation errors? for \w+\\n([\w.]{1,100})\\n  (Field required|Input should be [^\[\\]{1,100}) \[type="
    r"|'(Expected type \w+, but got \w+)'"
)
#: What follows a type hint that the data do not fit is Python's own error, which quotes them.
_AGAINST_HINT = re.compile(r"^(Failed to validate the input data against the type hint `.*`)\. Error: .*", re.DOTALL)
_COMPLAINT_LIMIT = 600


def failure_of(error: Exception) -> ServingError:
    """What MLflow's schema enforcement finds wrong is the client's mistake, all else the model's; raised from it."""
    complaint = schema_complaint(error)
    if complaint:
        return InvalidRequest(f"the request does not fit the model's signature: {complaint}")
    return model_error(error)


def model_error(error: Exception, text: str = "") -> ModelError:
    """An exception's type, and its text or this one in its place."""
    return ModelError(f"{type(error).__name__}: {text or error}"[:MESSAGE_LIMIT])


def schema_complaint(error: BaseException) -> str:
    """What MLflow found wrong with the request, without the data that it quotes; "" for any other error."""
    if type(error).__name__ == "ValidationError" and getattr(error, "title", "") == "ResponsesAgentRequest":
        return _agent_complaint(error)
    if type(error).__name__ != "MlflowException" or not str(error).startswith(_SCHEMA_ERRORS):
        return ""
    inner = error.__context__
    text = str(inner if type(inner).__name__ == "MlflowException" else error)
    against = _AGAINST_HINT.match(text)
    if against:
        return (
            f"{against[1][:_COMPLAINT_LIMIT]}: dates are ISO 8601 text, like 2024-01-31T12:00:00, and bytes are base64"
        )
    text, _, elements = text.partition(", invalid elements")
    detail = _DETAIL.search(elements)
    text = ": ".join([_VALUE.sub("", text), *(filter(None, detail.groups()) if detail else ())])
    return _QUOTED.sub(r"\1\3", text)[:_COMPLAINT_LIMIT]


def _agent_complaint(error: Any) -> str:
    """The first of pydantic's errors: the field, and what is wrong with it where that quotes no value."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"] if "[" not in str(part))  # without the members of unions
    return f"{where}: {'Value error' if first['type'] == 'value_error' else first['msg']}"[:_COMPLAINT_LIMIT]
