"""What models and services return, as plain values: JSON of anything, and the shapes of things by which they are told.

    DataFrame                    list of records            numpy, torch, scipy     lists and numbers
    Series, set, generator       list                       date, time, datetime    ISO 8601 text
    bytes, PIL image             base64 text (PNG)          Decimal                 number
    pydantic, dataclass          object                     NaN, NaT, NA, infinity  null

Libraries are told by what their objects can do, so none of them is imported for it.
"""

from __future__ import annotations

import base64
import io
from typing import Any, Dict, List, Tuple

import orjson

from ...protocol.errors import MESSAGE_LIMIT, ModelError

#: Without orjson's own support for numpy, which writes NaT as a date.
_OPTIONS = orjson.OPT_NON_STR_KEYS
#: Not in every model's orjson.
_FRAGMENT = getattr(orjson, "Fragment", None)
#: pandas' own for what is missing.
_MISSING = ("NaTType", "NAType")
_ITERABLES: Tuple[type, ...] = (set, frozenset, range, tuple, type({}.keys()), type({}.values()), type({}.items()))


def dumps(value: Any) -> bytes:
    """JSON of what models return; see the module. Raises ModelError naming the type that cannot be sent."""
    try:
        return orjson.dumps(value, default=_plain, option=_OPTIONS)
    except (TypeError, ValueError, RecursionError) as error:
        raise ModelError(f"the model's answer cannot be sent as JSON: {error}"[:MESSAGE_LIMIT]) from error


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
    return value


def listed(value: Any) -> Any:
    """A list of what is iterable and no list; any other value as it is."""
    return list(value) if isinstance(value, _ITERABLES) or hasattr(value, "__next__") else value


def _plain(value: Any) -> Any:
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
    plainer = converted(value)
    if plainer is value:
        plainer = listed(value)
    return _scalar(value) if plainer is value else plainer


def _scalar(value: Any) -> Any:
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


def _of_array(value: Any) -> Any:
    """Arrays, numpy scalars, Series and indexes."""
    kind = getattr(getattr(value, "dtype", None), "kind", "")
    if kind == "M" and hasattr(value, "to_numpy"):
        return list(value)  # pandas' own text of them is not ISO 8601
    if kind in ("m", "M"):
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
