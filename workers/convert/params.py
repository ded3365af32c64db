"""The model's own parameters in a request, checked by its params schema; and moments in text."""

from __future__ import annotations

from typing import Any, List

import orjson

from ...protocol.errors import InvalidRequest
from ...protocol.signature import Param

#: Request parameters that belong to the protocol, not to the model.
PROTOCOL_PARAMETERS = frozenset(
    {
        "binary_data_output",
        "content_type",
        "headers",
        "priority",
        "sequence_end",
        "sequence_id",
        "sequence_start",
        "timeout",
    }
)
_WHOLE = {"integer": 32, "long": 64}
#: What pandas would read off this machine's clock.
_CLOCK = frozenset({"now", "today"})


def moments(texts: List[str], owner: str) -> Any:
    """ISO 8601 texts as datetime64, those with a zone turned into UTC; "" is a missing one. Raises InvalidRequest."""
    import pandas as pd

    # pandas 1 knows no "ISO8601", and guesses from the first element instead.
    options = {} if pd.__version__.startswith("1.") else {"format": "ISO8601"}
    try:
        if not _CLOCK.isdisjoint(texts):
            raise ValueError
        index = pd.to_datetime(texts, utc=True, **options)
        return index.tz_localize(None).as_unit("ns").to_numpy() if options else index.tz_localize(None).values
    except (ValueError, TypeError, OverflowError):
        raise InvalidRequest(f"{owner} takes ISO 8601 text, like 2024-01-31T12:00:00 (years 1678 to 2262)") from None


def param_value(spec: Param, value: Any) -> Any:
    """A parameter as the model's params schema says. Raises InvalidRequest, without the value."""
    owner = f"the parameter {spec.name!r}"
    if spec.is_list:
        items = _json_param(spec, value) if isinstance(value, str) else value
        if not isinstance(items, list):
            raise InvalidRequest(f"{owner} takes a list of {spec.type}, as JSON text")
        return [_scalar_param(spec, item, owner) for item in items]
    return _scalar_param(spec, value, owner)


def _json_param(spec: Param, value: str) -> Any:
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"the parameter {spec.name!r} takes JSON text: {error}") from None


def _scalar_param(spec: Param, value: Any, owner: str) -> Any:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if spec.type == "boolean":
        fits = isinstance(value, bool)
    elif spec.type in _WHOLE:
        limit = 1 << (_WHOLE[spec.type] - 1)
        fits = is_number and isinstance(value, int) and -limit <= value < limit
    elif spec.type in ("float", "double"):
        fits = is_number
    elif spec.type in ("string", "datetime", "binary"):
        fits = isinstance(value, str)
    else:
        return _json_param(spec, value) if isinstance(value, str) else value
    if not fits:
        raise InvalidRequest(f"{owner} must be a {spec.type}")
    if spec.type == "datetime":
        moments([value], owner)
    return value.encode("utf-8") if spec.type == "binary" else value
