"""`{"statusCode", "data"}`: ModelHub's own answers, and what may stand in their `data`.

    DataFrame                    list of records            numpy, torch, scipy     lists and numbers
    Series, set, generator       list                       date, time, datetime    ISO 8601 text
    bytes, PIL image             base64 text (PNG)          Decimal                 number
    pydantic, dataclass          object                     NaN, NaT, NA, infinity  null

Called by the legacy dialect, and by services with what their methods return.
"""

from __future__ import annotations

import base64
import io
from typing import Any, Dict, List

import orjson

from ..protocol.errors import ModelError, ServingError
from ..protocol.statuses import statuses
from ..protocol.v2 import JSON_TYPE
from .served import MESSAGE_LIMIT, Answer

#: HTTP has no body here: a client would take it for the next answer.
_WITHOUT_BODY = (204, 304)
#: Without orjson's own support for numpy, which writes NaT as a date.
_OPTIONS = orjson.OPT_NON_STR_KEYS
#: Not in every model's orjson.
_FRAGMENT = getattr(orjson, "Fragment", None)


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


def dumps(value: Any) -> bytes:
    """JSON of what models return; see the module. Raises ModelError naming the type that cannot be sent."""
    try:
        return orjson.dumps(value, default=_plain, option=_OPTIONS)
    except (TypeError, ValueError, RecursionError) as error:
        raise ModelError(f"the model's answer cannot be sent as JSON: {error}"[:MESSAGE_LIMIT]) from error


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


def _plain(value: Any) -> Any:
    """One step towards what JSON knows; called for what orjson does not."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(value).decode("ascii")
    if type(value).__name__ in ("NaTType", "NAType"):
        return None
    if hasattr(value, "iloc") and hasattr(value, "columns"):
        return records(value)
    if hasattr(value, "detach") and hasattr(value, "cpu"):
        value = value.detach().cpu()
        return value.float().tolist() if "bfloat16" in str(value.dtype) else value.tolist()
    if hasattr(value, "tocsr") and hasattr(value, "toarray"):
        value = value.toarray()
    if hasattr(value, "tolist"):
        return _listed(value)
    for name in ("model_dump", "to_pandas", "toPandas"):
        if hasattr(value, name):
            return getattr(value, name)()
    if isinstance(value, (set, frozenset, range, tuple)) or hasattr(value, "__next__") or _is_view(value):
        return list(value)
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if hasattr(value, "as_tuple"):
        return float(value)
    if hasattr(value, "getbands") and hasattr(value, "save"):
        target = io.BytesIO()
        value.save(target, "PNG")
        return target.getvalue()
    if hasattr(value, "total_seconds") or isinstance(value, complex) or type(value).__name__ in ("Period", "Interval"):
        return str(value)
    raise TypeError(f"a {type(value).__name__} has no JSON form")


def records(frame: Any) -> List[Dict[str, Any]]:
    """A DataFrame's rows as objects; of columns with the same name the last one stays."""
    names = [str(name) for name in frame.columns]
    return [dict(zip(names, row)) for row in frame.itertuples(index=False, name=None)]


def _is_view(value: Any) -> bool:
    return isinstance(value, (type({}.keys()), type({}.values()), type({}.items())))


def _listed(value: Any) -> Any:
    """Arrays, numpy scalars, Series and indexes."""
    dtype: Any = getattr(value, "dtype", None)
    kind = getattr(dtype, "kind", "")
    if kind == "M" and hasattr(value, "to_numpy"):
        return list(value)  # pandas' own text of them is not ISO 8601
    if kind in "mM" and kind:
        return _without_nat(value.astype(str).tolist())  # tolist() alone would give nanoseconds as numbers
    if kind == "f" and dtype.itemsize > 8:
        value = value.astype("float64")
    elif kind == "f" and _FRAGMENT is not None and type(value).__name__ == "ndarray" and value.dtype.isnative:
        wide = value.astype("float32") if dtype.itemsize == 2 else value
        if wide.ndim and wide.dtype.itemsize in (4, 8):
            # With as few digits as the elements' own type needs: 0.1 and not 0.10000000149011612.
            contiguous = wide if wide.flags.c_contiguous else wide.copy()
            return _FRAGMENT(orjson.dumps(contiguous, option=orjson.OPT_SERIALIZE_NUMPY))
    if kind == "f" and not getattr(value, "ndim", 1) and dtype.itemsize < 8:
        return float(str(value))
    return value.tolist()


def _without_nat(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_nat(each) for each in value]
    return None if value == "NaT" else value
