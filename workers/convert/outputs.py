"""What an MLflow model returned to named V2 outputs.

Called by the V2 dialect (`dialects/v2.py`) with the value of `predict` and the output fields of the signature.

    DataFrame                 one output per column, [n], named as the column
    dict, pydantic, dataclass one output per member
    tuple, list of arrays     one output each, where the signature has as many outputs (or it is a tuple of arrays)
    2-D array                 one output per column, where the signature has as many outputs (more than one)
    list of dicts             one output per column, where these are the signature's; else JSON, one per row
    anything else             one output: the signature's name, a Series' own, or `output-0`

    values                                  datatype
    numpy numbers and booleans, tensors     their own; widened to the signature's where that is lossless
    Python int, float, bool                 INT64 (UINT64 above it), FP64, BOOL; None among numbers: NaN
    Decimal                                 FP64
    str, bytes                              BYTES; None, NaN or NA among them: ""
    dates, times, datetime64                BYTES, ISO 8601; NaT: ""
    complex, timedelta, period, interval    BYTES, as text
    ragged lists, objects, mixtures         BYTES, the JSON of each row (NaN: null)
    None                                    BYTES, the text null

A scalar has shape [1]. Numbers of an output that the signature calls array, object, map or any are JSON
rows too: clients read the metadata first.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import itertools
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Sequence, Set, Tuple

import orjson

from ...protocol.datatypes import DATATYPES
from ...protocol.errors import ModelError
from ...protocol.signature import Field
from .inputs import cast_exactly
from .plain import converted, is_frame, is_missing, is_sparse, is_tensor, listed
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
_JSON_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS
#: What becomes text as it is, beside text itself and the kinds of pandas' own.
_TEXTUAL = (str, bytes, datetime.date, datetime.time, datetime.timedelta, complex)
_TEXTUAL_OF_PANDAS = ("Period", "Interval")


#: Outputs before their values are looked at: names, values, and what the signature says of each.
Named = List[Tuple[str, Any, Optional[Field]]]


@dataclasses.dataclass
class ModelOutput:
    """One output: BF16 held as float32, BYTES as objects that are str or bytes."""

    name: str
    datatype: str
    array: Array


def to_outputs(result: Any, fields: Sequence[Field] = ()) -> List[ModelOutput]:
    """The model's result as outputs, in the result's order. Raises ModelError if it cannot be sent."""
    try:
        if len(fields) == 1 and _is_array(result) and result.dtype.names is None:
            return [_output(fields[0].name, result, fields[0])]
        return [_output(name, value, field) for name, value, field in _named(result, list(fields))]
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ModelError(
            f"the model's answer, a {type(result).__name__}, cannot be sent: {type(error).__name__}: {error}"
        ) from error


def _named(result: Any, fields: List[Field]) -> Named:
    result = _plain(result)
    by_name = {each.name: each for each in fields}
    if is_frame(result):
        return _columns(result, fields, by_name)
    if isinstance(result, dict) and result:
        names = _unique([str(key) for key in result])
        return [(name, value, by_name.get(name)) for name, value in zip(names, result.values())]
    if isinstance(result, (list, tuple)) and result:
        members = _members(result, fields, by_name)
        if members is not None:
            return members
    dtype_names = getattr(getattr(result, "dtype", None), "names", None)
    if dtype_names:
        return [(name, result[name], by_name.get(name)) for name in dtype_names]
    return _whole(result, fields)


def _members(result: Sequence[Any], fields: List[Field], by_name: Dict[str, Field]) -> Optional[Named]:
    """The members of a list or a tuple as outputs of their own; None where they are not that."""
    are_arrays = all(hasattr(each, "dtype") and getattr(each, "ndim", 0) for each in result)
    if len(fields) == len(result) > 1 and (are_arrays or isinstance(result, tuple)):
        return [(each.name, value, each) for each, value in zip(fields, result)]
    if isinstance(result, tuple) and are_arrays:
        return [(f"output-{position}", value, None) for position, value in enumerate(result)]
    if fields and all(isinstance(each, dict) and by_name.keys() >= each.keys() for each in result):
        return [(each.name, [row.get(each.name) for row in result], each) for each in fields]
    return None


def _whole(result: Any, fields: List[Field]) -> Named:
    """A result as one output, or a matrix as one per column of the signature."""
    if len(fields) == 1:
        return [(fields[0].name, result, fields[0])]
    if len(fields) > 1 and getattr(result, "ndim", 0) == 2 and result.shape[1] == len(fields):
        return [(each.name, result[:, position], each) for position, each in enumerate(fields)]
    name = getattr(result, "name", None) if hasattr(result, "to_numpy") else None
    return [(str(name) if name is not None else "output-0", result, None)]


def _plain(value: Any) -> Any:
    """Values of libraries that know a plainer form of themselves, as that."""
    if value is None or _is_array(value) or isinstance(value, (str, bytes, int, float, list, tuple, dict)):
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


def _is_array(value: Any) -> bool:
    """Exactly numpy's own array, asked without importing numpy."""
    kind = type(value)
    return kind.__name__ == "ndarray" and kind.__module__ == "numpy"


def _columns(frame: Any, fields: List[Field], by_name: Dict[str, Field]) -> Named:
    names = [str(each) for each in frame.columns]
    default_names = names == [str(position) for position in range(len(names))]
    if len(fields) == len(names) and (default_names or not any(each.named for each in fields)):
        by_position = [each if default_names or len(fields) == 1 else None for each in fields]
        names = [each.name if each else name for each, name in zip(by_position, names)]
        return [(name, frame.iloc[:, at], fields[at]) for at, name in enumerate(names)]
    return [(name, frame.iloc[:, at], by_name.get(name)) for at, name in enumerate(_unique(names))]


def _unique(names: List[str]) -> List[str]:
    found: List[str] = []
    for name in names:
        label, number = name, 1
        while label in found:
            label, number = f"{name}-{number}", number + 1
        found.append(label)
    return found


def _output(name: str, value: Any, field: Optional[Field]) -> ModelOutput:
    if field is not None and field.holds_json:
        return ModelOutput(name, "BYTES", _json_rows(_rows(value)))
    datatype, array = _typed_array(value) if _is_array(value) else _typed(_plain(value))
    if array.ndim == 0:
        array = array.reshape(1)
    if field is not None and field.datatype != datatype:
        if not array.size:
            return ModelOutput(name, field.datatype, array.astype(DATATYPES[field.datatype].numpy))
        widened = _widen(array, field.datatype) if field.datatype not in ("BYTES", "BF16", "BOOL") else None
        if widened is not None:
            return ModelOutput(name, field.datatype, widened)
    return ModelOutput(name, datatype, array)


def _widen(array: Array, datatype: str) -> Optional[Array]:
    """The array as the signature's datatype. Floats are never narrowed, not even when these values would
    survive: the datatype of an answer should not depend on its values."""
    import numpy as np

    target = np.dtype(DATATYPES[datatype].numpy)
    if array.dtype.kind == "f" and not np.can_cast(array.dtype, target, "safe"):
        return None
    return cast_exactly(array, target.str) if array.dtype != object else None


def _typed(value: Any) -> Tuple[str, Array]:
    """The V2 datatype of a value, and its array."""
    import numpy as np

    if _is_array(value):
        return _typed_array(value)
    if value is None:
        return "BYTES", object_array(["null"])
    if isinstance(value, dict):
        return "BYTES", _json_rows([value])
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
        return _typed_array(np.asarray(value))
    return _typed_list([value])


def _typed_array(array: Array) -> Tuple[str, Array]:
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
    return "BYTES", object_array([str(each) for each in np.ravel(array)]).reshape(array.shape)


def _typed_series(series: Any) -> Tuple[str, Array]:
    """A pandas Series, Index or extension array."""
    import numpy as np

    dtype = series.dtype
    if isinstance(dtype, np.dtype) and dtype.kind != "O":
        return _typed_array(np.asarray(series))
    if hasattr(dtype, "tz"):
        return "BYTES", object_array([_text(each) for each in series])
    categories = getattr(dtype, "categories", None)
    missing = np.asarray(series.isna())
    inner = getattr(dtype, "numpy_dtype", None) or getattr(categories, "dtype", None)
    if isinstance(inner, np.dtype) and inner.kind in "iufb" and not missing.any():
        return _typed_array(series.to_numpy(dtype=inner))
    values = np.asarray(series, dtype=object).tolist()
    return _typed_list([None if gone else each for each, gone in zip(values, missing.tolist())])


def _typed_list(values: List[Any]) -> Tuple[str, Array]:
    """Python values, perhaps nested in lists of equal lengths."""
    types = set(map(type, values))
    found = _typed_scalars(values, types)
    if found is None and (types <= {list, tuple} or all(hasattr(each, "__array__") for each in values)):
        found = _nested(values)
    return _typed_mixture(values, types) if found is None else found


def _typed_scalars(values: List[Any], types: Set[type]) -> Optional[Tuple[str, Array]]:
    """Values that have one datatype in common; None for all others."""
    import numpy as np

    if not values:
        return "FP64", np.empty(0)
    if types <= {str, bytes}:
        return "BYTES", object_array(values)
    if types <= {bool}:
        return "BOOL", np.array(values)
    if types <= {int}:
        return _integers(values)
    if types <= {float, int, type(None), decimal.Decimal} and types != {type(None)}:
        return "FP64", np.array([None if each is None else float(each) for each in values], dtype="<f8")
    if all(issubclass(each, np.generic) for each in types):
        return _typed_array(np.array(values))
    return None


def _typed_mixture(values: List[Any], types: Set[type]) -> Tuple[str, Array]:
    """Values with numpy's own among them, text with missing ones; else the JSON of each."""
    import numpy as np

    plain = [each.item() if isinstance(each, np.generic) and each.dtype.kind != "M" else each for each in values]
    if any(isinstance(each, np.generic) for each in values) and set(map(type, plain)) != types:
        return _typed_list(plain)
    if any(map(_is_text, plain)) and all(_is_text(each) or _is_missing(each) for each in plain):
        return "BYTES", object_array([_text(each) for each in plain])
    return "BYTES", _json_rows(values)


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
        rows = [_typed(each) for each in values]
        if len({(datatype, array.shape) for datatype, array in rows}) > 1:
            return None
        return rows[0][0], np.stack([array for _, array in rows])
    shape = [len(values)]
    while values and set(map(type, values)) <= {list, tuple}:
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
    return str(value) if isinstance(value, datetime.timedelta) or not hasattr(value, "isoformat") else value.isoformat()


def _datetime_texts(array: Array) -> Array:
    import numpy as np

    texts = np.atleast_1d(np.datetime_as_string(array)).astype(object)
    texts[np.isnat(array)] = ""
    return np.asarray(texts, dtype=object)


def _rows(value: Any) -> List[Any]:
    """The rows of a value that the signature calls array, object, map or any."""
    value = _plain(value)
    if isinstance(value, (str, bytes, dict)) or value is None:
        return [value]
    if hasattr(value, "tolist"):
        value = value.tolist()
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _json_rows(values: List[Any]) -> Array:
    return object_array([_json(each) for each in values])


def _json(value: Any) -> str:
    return orjson.dumps(value, default=_json_default, option=_JSON_OPTIONS).decode("utf-8")


def _json_default(value: Any) -> Any:
    plain = listed(_plain(value))
    if plain is not value:
        return plain
    if isinstance(value, decimal.Decimal):
        return float(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return _bytes_text(bytes(value))
    if _is_missing(value):
        return None
    if is_frame(value):
        return value.to_dict(orient="records")
    if hasattr(value, "tolist"):
        return value.tolist()
    return str(value)


def _bytes_text(value: bytes) -> str:
    import base64

    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return base64.b64encode(value).decode("ascii")
