"""What models and services return, as plain values: JSON of anything, and the shapes of things by which they are told.

    DataFrame                    list of records            numpy, torch, scipy     lists and numbers
    Series, set, generator       list                       date, time, datetime    ISO 8601 text
    bytes, PIL image             base64 text (PNG)          Decimal                 number
    pydantic, dataclass          object                     NaN, NaT, NA, infinity  null
    named tuple, deque           list                       timedelta               text, "1 day, 0:00:00"
    any other mapping            object                     integers of any size    number

Anything else is the model's mistake, and its type is named. Libraries are told by what their objects can do, so none
of them is imported for it.
"""

from __future__ import annotations

import base64
import datetime
import io
import json
import math
from collections import UserList, deque
from collections.abc import Mapping, Set
from typing import Any, Callable, Dict, List, Tuple

import orjson

from ...protocol.errors import MESSAGE_LIMIT, ModelError

#: Without orjson's own support for numpy, which writes NaT as a date.
_OPTIONS = orjson.OPT_NON_STR_KEYS
#: Not in every model's orjson.
_FRAGMENT = getattr(orjson, "Fragment", None)
#: pandas' own for what is missing.
_MISSING = ("NaTType", "NAType")
_ITERABLES: Tuple[type, ...] = (Set, range, tuple, deque, UserList, type({}.values()))
#: What orjson says of an integer of more than 64 bits.
_TOO_LARGE = "Integer exceeds 64-bit range"


def dumps(value: Any) -> bytes:
    """JSON of what models return; see the module. Raises ModelError naming the type that cannot be sent."""
    try:
        return encoded(value, plain_step)
    except (TypeError, ValueError, RecursionError) as error:
        raise ModelError(f"the model's answer cannot be sent as JSON: {error}"[:MESSAGE_LIMIT]) from error


def encoded(value: Any, step: Callable[[Any], Any]) -> bytes:
    """JSON of a value. `step`: one towards what JSON knows, for what is none of it. Raises TypeError and its like."""
    try:
        return orjson.dumps(value, default=step, option=_OPTIONS)
    except TypeError as error:
        if _TOO_LARGE not in str(error):
            raise
    return json.dumps(_walked(value, step), ensure_ascii=False, separators=(",", ":")).encode("utf-8")


def is_frame(value: Any) -> bool:
    """Is this a DataFrame?"""
    return hasattr(value, "iloc") and hasattr(value, "columns")


def is_tensor(value: Any) -> bool:
    """Is this one of torch's?"""
    return hasattr(value, "detach") and hasattr(value, "cpu")


def is_sparse(value: Any) -> bool:
    """Is this one of scipy's sparse matrices?"""
    return hasattr(value, "tocsr") and hasattr(value, "toarray")


def is_missing(value: Any) -> bool:
    """Is this what pandas puts in the place of a missing value, beside None and NaN?"""
    return type(value).__name__ in _MISSING


def records(frame: Any) -> List[Dict[str, Any]]:
    """A DataFrame's rows as objects; of columns with the same name the last one stays."""
    names = [str(name) for name in frame.columns]
    return [dict(zip(names, row)) for row in frame.itertuples(index=False, name=None)]


def converted(value: Any) -> Any:
    """What a library's object says that it is in a plainer form; any other value as it is."""
    for name in ("model_dump", "to_pandas", "toPandas"):
        if hasattr(value, name):
            return getattr(value, name)()
    return dict(value) if isinstance(value, Mapping) and not isinstance(value, dict) else value


def listed(value: Any) -> Any:
    """A list of what is iterable and no list; any other value as it is."""
    return list(value) if isinstance(value, _ITERABLES) or hasattr(value, "__next__") else value


def _walked(value: Any, step: Callable[[Any], Any]) -> Any:
    """A value as Python's own JSON has it, which knows integers of any size; for what orjson cannot say."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _walked(each, step) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_walked(each, step) for each in value]
    if getattr(getattr(value, "dtype", None), "kind", "") == "f":
        return _walked(value.tolist(), step)
    try:
        return orjson.loads(orjson.dumps(value, default=step, option=_OPTIONS))
    except TypeError as error:
        if _TOO_LARGE not in str(error):
            raise
        return _walked(step(value), step)


def duration(value: Any) -> str:
    """A timedelta of Python, pandas or numpy as text: the same for all of them."""
    if hasattr(value, "astype"):
        value = value.astype("timedelta64[us]").item()
    return str(datetime.timedelta(value.days, value.seconds, value.microseconds))


def _duration_or_none(value: Any) -> Any:
    return None if str(value) == "NaT" else duration(value)


def plain_step(value: Any) -> Any:
    """One step towards what JSON knows; called for what orjson does not."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(value).decode("ascii")
    if is_missing(value):
        return None
    if is_frame(value):
        return records(value)
    if is_tensor(value):
        value = value.detach().cpu()
        return value.float().tolist() if "bfloat16" in str(value.dtype) else value.tolist()
    if is_sparse(value):
        value = value.toarray()
    if hasattr(value, "tolist"):
        return _of_array(value)
    if hasattr(value, "__array__") and hasattr(value, "dtype"):  # a tensor of TensorFlow
        import numpy as np

        return _of_array(np.asarray(value))
    plainer = converted(value)
    if plainer is value:
        plainer = listed(value)
    return _scalar(value) if plainer is value else plainer


def _scalar(value: Any) -> Any:
    if hasattr(value, "total_seconds"):
        return duration(value)
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if hasattr(value, "as_tuple"):
        return float(value)
    if hasattr(value, "getbands") and hasattr(value, "save"):
        target = io.BytesIO()
        value.save(target, "PNG")
        return target.getvalue()
    if isinstance(value, complex) or type(value).__name__ in ("Period", "Interval"):
        return str(value)
    raise TypeError(f"a {type(value).__name__} has no JSON form")


def _of_array(value: Any) -> Any:
    """Arrays, numpy scalars, Series and indexes."""
    kind = getattr(getattr(value, "dtype", None), "kind", "")
    if kind == "M" and hasattr(value, "to_numpy"):
        return list(value)  # pandas' own text of them is not ISO 8601
    if kind == "m" and hasattr(value, "to_numpy"):
        value = value.to_numpy()
    if kind == "m":
        return value.astype("timedelta64[us]").astype(object).tolist() if value.ndim else _duration_or_none(value)
    if kind == "M":
        return _without_nat(value.astype(str).tolist())  # tolist() alone would give nanoseconds as numbers
    return _of_floats(value) if kind == "f" else value.tolist()


def _of_floats(value: Any) -> Any:
    size = value.dtype.itemsize
    if size > 8:
        return value.astype("float64").tolist()
    if _FRAGMENT is not None and type(value).__name__ == "ndarray" and value.dtype.isnative:
        wide = value.astype("float32") if size == 2 else value
        if wide.ndim and wide.dtype.itemsize in (4, 8):
            # With as few digits as the elements' own type needs: 0.1 and not 0.10000000149011612.
            contiguous = wide if wide.flags.c_contiguous else wide.copy()
            return _FRAGMENT(orjson.dumps(contiguous, option=orjson.OPT_SERIALIZE_NUMPY))
    if not getattr(value, "ndim", 1) and size < 8:
        return float(str(value))
    return value.tolist()


def _without_nat(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_nat(each) for each in value]
    return None if value == "NaT" else value
