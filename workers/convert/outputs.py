"""What an MLflow model returned to named V2 outputs.

Called by the V2 dialect (`dialects/v2.py`) with the value of `predict` and the output fields of the signature.

    DataFrame                 one output per column, [n], named as the column
    dict, pydantic, dataclass one output per member; the signature's, where that has one without a name and there is one
                              member, or it is JSON
    tuple, list of arrays     one output each, where the signature has as many outputs (or it is a tuple of arrays)
    2-D array                 one output per column, where the signature has as many outputs (more than one)
    list of dicts             one output per column, where these are the signature's; else JSON, one per row
    anything else             one output: the signature's name, a Series' own, or `output-0`

The signature's names go by position only where text stands for text; its optional outputs that are not there are
missing ones.

    values                                  datatype
    numpy numbers and booleans, tensors     their own; widened to the signature's where that is lossless
    Python int, float, bool                 INT64 (UINT64 above it), FP64 (the signature's FP32, if it fits), BOOL;
                                            None among numbers: NaN
    Decimal                                 FP64
    str, bytes                              BYTES; None, NaN or NA among them: ""
    dates, times, datetime64                BYTES, ISO 8601; NaT: ""
    complex, timedelta, period, interval    BYTES, as text
    ragged lists, objects, mixtures         BYTES, the JSON of each row (NaN: null)
    None, and nothing but missing ones      BYTES, ""

Where the signature names a datatype, missing values do not change it, all of them or some: text is "", a float
is NaN, a whole number or a boolean is None, which JSON answers as null and binary data cannot say.

A scalar has shape [1]. Numbers of an output that the signature calls array, object, map or any are JSON
rows too: clients read the metadata first.
"""

from __future__ import annotations

import dataclasses
import datetime
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Sequence, Tuple

from ...protocol.datatypes import DATATYPES
from ...protocol.errors import ModelError
from ...protocol.signature import Field
from .inputs import cast_exactly
from .plain import is_frame, records
from .values import declared, is_array, json_rows, narrowed, plain_value, rows_of_value, typed, typed_array

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

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
        if len(fields) == 1 and is_array(result) and result.dtype.names is None:
            return [output_of(fields[0].name, result, fields[0])]
        return [output_of(name, value, field) for name, value, field in named(result, list(fields))]
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ModelError(
            f"the model's answer, a {type(result).__name__}, cannot be sent: {type(error).__name__}: {error}"
        ) from error


def named(result: Any, fields: List[Field]) -> Named:
    """The model's result as outputs by name, not yet looked at."""
    result = plain_value(result)
    by_name = {each.name: each for each in fields}
    only = fields[0] if len(fields) == 1 and not fields[0].named else None
    as_json = only if only is not None and only.holds_json else None
    if is_frame(result):
        if as_json is not None:
            return [(as_json.name, records(result), as_json)]
        return _with_absent(_columns(result, fields, by_name), fields)
    if isinstance(result, dict) and result:
        if as_json is not None:
            return [(as_json.name, result, as_json)]
        return _of_dict(result, only, fields, by_name)
    if as_json is None and isinstance(result, (list, tuple)) and result:
        members = _members(result, fields, by_name)
        if members is not None:
            return members
    dtype_names = getattr(getattr(result, "dtype", None), "names", None)
    if dtype_names:
        return [(name, result[name], by_name.get(name)) for name in dtype_names]
    return _whole(result, fields)


def _of_dict(result: Dict[Any, Any], only: Optional[Field], fields: List[Field], by_name: Dict[str, Field]) -> Named:
    """Its members as outputs, by their keys."""
    if only is not None and len(result) == 1:
        return [(only.name, next(iter(result.values())), only)]
    names = _unique([str(key) for key in result])
    return _with_absent([(name, value, by_name.get(name)) for name, value in zip(names, result.values())], fields)


def _members(result: Sequence[Any], fields: List[Field], by_name: Dict[str, Field]) -> Optional[Named]:
    """The members of a list or a tuple as outputs of their own; None where they are not that."""
    are_arrays = all(hasattr(each, "dtype") and getattr(each, "ndim", 0) for each in result)
    if len(fields) == len(result) > 1 and (are_arrays or isinstance(result, tuple)) and _all_fit(result, fields):
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
        columns = [result[:, position] for position in range(len(fields))]
        if _all_fit(columns, fields):
            return [(each.name, column, each) for each, column in zip(fields, columns)]
    name = getattr(result, "name", None) if hasattr(result, "to_numpy") else None
    return [(str(name) if name is not None else "output-0", result, None)]


def _columns(frame: Any, fields: List[Field], by_name: Dict[str, Field]) -> Named:
    names = [str(each) for each in frame.columns]
    default_names = names == [str(position) for position in range(len(names))]
    unnamed = default_names or not any(each.named for each in fields)
    if len(fields) == len(names) and unnamed and _all_fit([frame.iloc[:, at] for at in range(len(names))], fields):
        by_position = [each if default_names or len(fields) == 1 else None for each in fields]
        names = [each.name if each else name for each, name in zip(by_position, names)]
        return [(name, frame.iloc[:, at], fields[at]) for at, name in enumerate(names)]
    return [(name, frame.iloc[:, at], by_name.get(name)) for at, name in enumerate(_unique(names))]


def _with_absent(found: Named, fields: List[Field]) -> Named:
    """With the signature's optional outputs that the result has not, as missing ones."""
    given = {name for name, _, _ in found}
    absent = [each for each in fields if not each.required and each.named and each.name not in given]
    if not absent or given.isdisjoint(each.name for each in fields):
        return found
    first = found[0][1]
    rows = len(first) if hasattr(first, "__len__") and not isinstance(first, (str, bytes, dict)) else 1
    return [*found, *((each.name, [None] * rows, each) for each in absent)]


def _all_fit(values: Sequence[Any], fields: Sequence[Field]) -> bool:
    """Can these be the signature's outputs, one by one? Text is no number, and no number is text."""
    return all(
        _is_text(value) in (None, each.datatype == "BYTES") or each.holds_json for value, each in zip(values, fields)
    )


def _is_text(value: Any) -> Optional[bool]:
    """Is this text (moments too)? None: nothing tells."""
    kind = getattr(getattr(value, "dtype", None), "kind", "")
    if kind in ("i", "u", "f", "b"):
        return False
    if kind in ("U", "S", "M"):
        return True
    values = value.tolist() if hasattr(value, "tolist") else value
    while isinstance(values, (list, tuple)):
        values = next((each for each in values if each is not None and each == each), None)
    return None if values is None else isinstance(values, (str, bytes, datetime.date))


def _unique(names: List[str]) -> List[str]:
    found: List[str] = []
    for name in names:
        label, number = name, 1
        while label in found:
            label, number = f"{name}-{number}", number + 1
        found.append(label)
    return found


def output_of(name: str, value: Any, field: Optional[Field]) -> ModelOutput:
    """One output of `named`. Raises what numpy raises of values that cannot be sent."""
    if field is not None and field.holds_json:
        return ModelOutput(name, "BYTES", json_rows(rows_of_value(value)))
    datatype, array = typed_array(value) if is_array(value) else typed(plain_value(value))
    if array.ndim == 0:
        array = array.reshape(1)
    if field is not None and field.datatype != datatype:
        if not array.size:
            return ModelOutput(name, field.datatype, array.astype(DATATYPES[field.datatype].numpy))
        widened = _widen(array, field.datatype) if field.datatype not in ("BYTES", "BF16", "BOOL") else None
        if widened is not None:
            return ModelOutput(name, field.datatype, widened)
        promised = declared(value, array, field.datatype)
        if promised is None:
            promised = narrowed(value, array, field.datatype)
        if promised is not None:
            return ModelOutput(name, field.datatype, promised)
    return ModelOutput(name, datatype, array)


def _widen(array: Array, datatype: str) -> Optional[Array]:
    """The array as the signature's datatype. Floats are never narrowed, not even when these values would
    survive: the datatype of an answer should not depend on its values."""
    import numpy as np

    target = np.dtype(DATATYPES[datatype].numpy)
    if array.dtype.kind == "f" and not np.can_cast(array.dtype, target, "safe"):
        return None
    return cast_exactly(array, target.str) if array.dtype != object else None
