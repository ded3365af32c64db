"""What a model's value is in V2: its datatype, and an array of it.

Called by `outputs.py`, whose docstring has the table. `declared` gives a value with missing ones the datatype that
the signature promises; a missing whole number or boolean is None in an array of objects. `narrowed` does so for
numbers of Python itself.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime
import decimal
import itertools
from typing import TYPE_CHECKING, Any, List, Optional, Set, Tuple

from ...protocol.datatypes import DATATYPES
from .plain import converted, duration, encoded, is_missing, is_sparse, is_tensor, listed, plain_step
from .tensors import object_array

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

#: By dtype.str, of either byte order.
_BY_DTYPE = {
    order + row.numpy[1:]: row.name
    for row in DATATYPES.values()
    for order in "<>|"
    if row.name not in ("BF16", "BYTES")
}
#: What becomes text as it is, beside text itself and the kinds of pandas' own.
_TEXTUAL = (str, bytes, datetime.date, datetime.time, datetime.timedelta, complex)
_TEXTUAL_OF_PANDAS = ("Period", "Interval")


def plain_value(value: Any) -> Any:
    """Values of libraries that know a plainer form of themselves, as that."""
    if value is None or is_array(value) or isinstance(value, (str, bytes, int, float, list, tuple, dict)):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
    plainer = converted(value)
    if plainer is not value:
        return plainer
    if is_sparse(value):
        return value.toarray()
    if hasattr(value, "mask") and hasattr(value, "filled"):
        return value.tolist() if value.mask.any() else value.data
    return listed(value)


def is_array(value: Any) -> bool:
    """Exactly numpy's own array, asked without importing numpy."""
    kind = type(value)
    return kind.__name__ == "ndarray" and kind.__module__ == "numpy"


def typed(value: Any) -> Tuple[str, Array]:
    """The V2 datatype of a value, and its array."""
    import numpy as np

    if is_array(value):
        return typed_array(value)
    if value is None:
        return "BYTES", object_array([""])
    if isinstance(value, dict):
        return "BYTES", json_rows([value])
    if isinstance(value, (str, bytes, bytearray)):
        return "BYTES", object_array([value if isinstance(value, str) else bytes(value)])
    if isinstance(value, (list, tuple)):
        return _typed_list(list(value))
    if is_tensor(value):
        value = value.detach().cpu()
        if str(value.dtype) == "torch.bfloat16":
            return "BF16", np.asarray(value.float())
    if hasattr(value, "to_numpy") and hasattr(value, "dtype"):  # a Timestamp has no dtype
        return _typed_series(value)
    if hasattr(value, "__array__") or hasattr(value, "dtype"):
        return typed_array(np.asarray(value))
    return _typed_list([value])


def typed_array(array: Array) -> Tuple[str, Array]:
    name = _BY_DTYPE.get(array.dtype.str)
    if name:
        return name, array
    import numpy as np

    kind = array.dtype.kind
    if array.dtype.name == "bfloat16":
        return "BF16", array.astype("<f4")
    if kind == "f":
        return "FP64", array.astype("<f8")
    if kind in "SU":
        return "BYTES", array.astype(object)
    if kind == "M":
        return "BYTES", _datetime_texts(array)
    if kind == "O":
        datatype, flat = _typed_list(array.ravel().tolist())
        return datatype, flat.reshape(array.shape) if flat.size == array.size else flat
    if kind == "m":
        return typed_array(array.astype("timedelta64[us]").astype(object))
    return "BYTES", object_array([str(each) for each in np.ravel(array)]).reshape(array.shape)


def _typed_series(series: Any) -> Tuple[str, Array]:
    """A pandas Series, Index or extension array."""
    import numpy as np

    dtype = series.dtype
    if isinstance(dtype, np.dtype) and dtype.kind != "O":
        return typed_array(np.asarray(series))
    if hasattr(dtype, "tz"):
        return "BYTES", object_array([_text(each) for each in series])
    categories = getattr(dtype, "categories", None)
    missing = np.asarray(series.isna())
    inner = getattr(dtype, "numpy_dtype", None) or getattr(categories, "dtype", None)
    if isinstance(inner, np.dtype) and inner.kind in "iufb" and not missing.any():
        return typed_array(series.to_numpy(dtype=inner))
    values = [None if gone else each for each, gone in zip(np.asarray(series, dtype=object).tolist(), missing.tolist())]
    if isinstance(inner, np.dtype) and inner.kind == "b":
        return "BOOL", object_array(values)
    if isinstance(inner, np.dtype) and inner.kind in "iuf":
        return "FP64", np.array(values, dtype="<f8")
    return _typed_list(values)


def _typed_list(values: List[Any]) -> Tuple[str, Array]:
    """Python values, perhaps nested in lists of equal lengths."""
    types = set(map(type, values))
    found = _typed_scalars(values, types)
    if found is None and (_are_lists(types) or all(hasattr(each, "__array__") for each in values)):
        found = _nested(values)
    return _typed_mixture(values, types) if found is None else found


def _are_lists(types: Set[type]) -> bool:
    return all(issubclass(each, (list, tuple)) for each in types)


def _typed_scalars(values: List[Any], types: Set[type]) -> Optional[Tuple[str, Array]]:
    """Values that have one datatype in common; None for all others."""
    import numpy as np

    if not values:
        return "FP64", np.empty(0)
    if types <= {str, bytes}:
        return "BYTES", object_array(values)
    if types <= {bool}:
        return "BOOL", np.array(values)
    if types == {bool, type(None)}:
        return "BOOL", object_array(values)
    if types <= {int}:
        return _integers(values)
    if types <= {float, int, type(None), decimal.Decimal} and types != {type(None)}:
        return "FP64", np.array([None if each is None else float(each) for each in values], dtype="<f8")
    if all(issubclass(each, np.generic) for each in types):
        return typed_array(np.array(values))
    return None


def _typed_mixture(values: List[Any], types: Set[type]) -> Tuple[str, Array]:
    """Values with numpy's own among them, text with missing ones; else the JSON of each."""
    import numpy as np

    plain = [each.item() if isinstance(each, np.generic) and each.dtype.kind != "M" else each for each in values]
    if any(isinstance(each, np.generic) for each in values) and set(map(type, plain)) != types:
        return _typed_list(plain)
    if all(_is_text(each) or _is_missing(each) for each in plain):
        return "BYTES", object_array([_text(each) for each in plain])
    return "BYTES", json_rows(values)


def _integers(values: List[int]) -> Tuple[str, Array]:
    import numpy as np

    low, high = min(values), max(values)
    for name in ("INT64", "UINT64"):
        row = DATATYPES[name]
        if low >= row.low and high <= row.high:
            return name, np.array(values, dtype=row.numpy)
    return "BYTES", object_array([str(each) for each in values])


def _nested(values: List[Any]) -> Optional[Tuple[str, Array]]:
    """Rows of equal shape as one array; None for ragged ones, mixtures and rows of objects."""
    import numpy as np

    if all(hasattr(each, "__array__") for each in values):
        rows = [typed(each) for each in values]
        if len({(datatype, array.shape) for datatype, array in rows}) > 1:
            return None
        return rows[0][0], np.stack([array for _, array in rows])
    shape = [len(values)]
    while values and _are_lists(set(map(type, values))):
        lengths = set(map(len, values))
        if len(lengths) > 1:
            return None
        shape.append(lengths.pop())
        values = list(itertools.chain.from_iterable(values))
    types = set(map(type, values))
    if not (types <= {str, bytes} or types <= {bool} or types <= {int, float, type(None)}) or types == {type(None)}:
        return None
    datatype, flat = _typed_list(values)
    return datatype, flat.reshape(shape)


def _is_text(value: Any) -> bool:
    return isinstance(value, _TEXTUAL) or type(value).__name__ in _TEXTUAL_OF_PANDAS


def _is_missing(value: Any) -> bool:
    return value is None or is_missing(value) or (isinstance(value, float) and value != value)


def _text(value: Any) -> Any:
    if isinstance(value, (str, bytes)):
        return value
    if _is_missing(value):
        return ""
    if isinstance(value, datetime.timedelta):
        return duration(value)
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _datetime_texts(array: Array) -> Array:
    import numpy as np

    texts = np.atleast_1d(np.datetime_as_string(array)).astype(object)
    texts[np.isnat(array)] = ""
    return np.asarray(texts, dtype=object)


def rows_of_value(value: Any) -> List[Any]:
    """The rows of a value that the signature calls array, object, map or any."""
    value = plain_value(value)
    if isinstance(value, (str, bytes, dict)) or value is None:
        return [value]
    if hasattr(value, "tolist"):
        value = value.tolist()
    return list(value) if isinstance(value, (list, tuple)) else [value]


def json_rows(values: List[Any]) -> Array:
    return object_array([_json(each) for each in values])


def _json(value: Any) -> str:
    return encoded(value, _json_step).decode("utf-8")


def _json_step(value: Any) -> Any:
    return _bytes_text(bytes(value)) if isinstance(value, (bytes, bytearray, memoryview)) else plain_step(value)


def _bytes_text(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return base64.b64encode(value).decode("ascii")


# ---- what the signature promises -------------------------------------------------------------------


def declared(value: Any, array: Array, name: str) -> Optional[Array]:
    """A value with missing ones as the datatype `name`; None where nothing is missing, or the others do not fit it.

    `array`: what `typed` made of it. Missing text is "", a missing number NaN, a missing whole number or boolean None.
    """
    import numpy as np

    elements = _elements(value, array)
    missing = [_is_missing(each) for each in elements]
    if not any(missing):
        return None
    kind = DATATYPES[name].kind
    found = [None if gone else _fitting(each, kind) for each, gone in zip(elements, missing)]
    if any(each is None and not gone for each, gone in zip(found, missing)):
        return None
    if kind == "bytes":
        made = object_array(["" if each is None else each for each in found])
    elif kind == "float":
        made = np.array(found, dtype="<f8")
        if DATATYPES[name].size < 8 and not all(missing):
            return narrowed(value, made.reshape(array.shape), name) if made.size == array.size else None
        made = made.astype(DATATYPES[name].numpy)
    else:
        made = object_array(found)
    return made.reshape(array.shape) if made.size == array.size else made


def narrowed(value: Any, array: Array, name: str) -> Optional[Array]:
    """Floats of Python itself as the smaller float `name`; None for all others, and where one is beyond it.

    They have no width of their own, so the signature's counts; floats of numpy are never narrowed.
    """
    import numpy as np

    row = DATATYPES[name]
    if row.kind != "float" or row.size >= 8 or array.dtype != np.dtype("<f8") or not _of_python(value):
        return None
    with np.errstate(over="ignore"):
        made = array.astype(row.numpy)
    return made if bool((np.isinf(made) == np.isinf(array)).all()) else None


def _of_python(value: Any) -> bool:
    """Are these Python's own numbers, or missing ones, in lists or as objects?"""
    if getattr(getattr(value, "dtype", None), "kind", "O") != "O":
        return False
    values = value.tolist() if hasattr(value, "tolist") else value
    values = list(values) if isinstance(values, (list, tuple)) else [values]
    while values and _are_lists(set(map(type, values))):
        values = list(itertools.chain.from_iterable(values))
    return all(type(each) in (float, int, decimal.Decimal) or _is_missing(each) for each in values)


def _elements(value: Any, array: Array) -> List[Any]:
    """The values one by one, as they came."""
    import numpy as np

    if array.dtype.kind == "f" or (array.dtype.kind == "O" and None in array.ravel().tolist()):
        return array.ravel().tolist()
    if isinstance(value, (list, tuple)):
        while value and _are_lists(set(map(type, value))):
            value = list(itertools.chain.from_iterable(value))
        return list(value)
    if hasattr(value, "__array__"):
        return np.asarray(value, dtype=object).ravel().tolist()
    return [value]


def _fitting(value: Any, kind: str) -> Any:
    """A value as an element of a datatype of this kind; None where it is none."""
    if getattr(getattr(value, "dtype", None), "kind", "") in ("i", "u", "f", "b", "S", "U"):
        value = value.item()
    if kind == "bytes":
        return _text(value) if _is_text(value) else None
    if kind == "bool":
        return value if isinstance(value, bool) else None
    if isinstance(value, bool) or not isinstance(value, (int, float, decimal.Decimal)):
        return None
    if kind == "float":
        return float(value)
    whole = int(value)
    return whole if whole == value else None
