"""V2 input tensors to what an MLflow model is called with.

Made once per model (`model/served.py`), from its signature; then for every request
    conform     checks names, shapes and types, and casts: one array per input, as the signature says.
                Part of decoding: arrays of several requests can be stacked along their first axis.
    assemble    makes of them the argument of `predict`.

    signature            takes                                            the model is called with
    columns              each column as [n] or [n, 1]; or one 2-D tensor  DataFrame, the signature's order
                         as wide as there are columns
    tensors, named       each tensor                                      dict of arrays
    one nameless tensor  one tensor of any name                           array
    none                 one tensor                                       array
                         several, all [n] or [n, 1] with the same n       DataFrame
                         several others                                   dict of arrays

Numbers are cast where every value survives exactly, and refused otherwise, naming the datatype that is
wanted. BYTES become text (UTF-8), bytes (column type binary), datetimes (ISO 8601, with a zone: turned
into UTC; "" is a missing one) or what their JSON says (array, object, map, any). Without a signature
BYTES are text where all of them are UTF-8, else bytes. None, a missing element of BYTES, is one in columns
(NaT, or None) and where there is no signature, and refused in tensors of text.

A tensor may come with one more or one less dimension of size 1 at its end, as clients write a column of a matrix.
Whatever is wrong is an InvalidRequest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, List, Optional, Tuple

import orjson

from ...protocol.datatypes import DATATYPES
from ...protocol.errors import InvalidRequest
from ...protocol.signature import Field, Signature
from ...protocol.v2 import InferInput, did_you_mean
from .params import PROTOCOL_PARAMETERS, moments, param_value
from .tensors import object_array
from .unsigned import as_example, look_like_columns, owned

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

#: Whole numbers up to this are exact in a float of so many bytes.
_EXACT = {2: 1 << 11, 4: 1 << 24, 8: 1 << 53}
#: Optional columns may be missing in many ways; so many are remembered.
_MAX_INDEXES = 32


class InputAdapter:
    """The way into one model; see the module."""

    def __init__(self, signature: Optional[Signature]) -> None:
        known = signature or Signature()
        self._fields = {each.name: each for each in known.inputs}
        self._params = {each.name: each for each in known.params}
        self._columns = bool(known.inputs) and all(each.kind == "column" for each in known.inputs)
        self._nameless = bool(known.inputs) and not any(each.named for each in known.inputs)
        self._only = known.inputs[0] if self._nameless and len(known.inputs) == 1 else None
        self._example_kind = "" if known.inputs else known.example_kind
        #: Is one request one object that cannot be stacked with others?
        self.whole = self._example_kind in ("object", "text")
        self._indexes: Dict[Any, Any] = {}  # of columns by their names
        #: The model's own labels of columns, where these are no texts.
        self._labels = {each.name: each.label for each in known.inputs if each.label is not None and not self._nameless}

    def conform(self, inputs: Dict[str, Array]) -> Dict[str, Array]:
        """The request's tensors as the signature wants them, in its order."""
        if not self._fields:
            return {name: _text_or_bytes(array) for name, array in inputs.items()}
        if self._columns:
            return self._conform_columns(inputs)
        if self._only is not None and len(inputs) == 1:
            (array,) = inputs.values()
            return {self._only.name: _tensor(self._only, array)}
        self._check_names(inputs)
        return {name: _tensor(each, inputs[name]) for name, each in self._fields.items()}

    def assemble(self, inputs: Dict[str, Array]) -> Any:
        """What `predict` is called with, of conformed (and perhaps stacked) inputs."""
        if self._columns:
            if self._labels:
                return self._frame({self._labels.get(name, name): array for name, array in inputs.items()})
            return self._frame(dict(enumerate(inputs.values())) if self._nameless else inputs)
        if self._example_kind:
            return as_example(self._example_kind, inputs)
        if len(inputs) == 1 and (self._nameless or not self._fields):
            return owned(next(iter(inputs.values())))
        if not self._fields and look_like_columns(inputs):
            return _data_frame({name: array.reshape(-1) for name, array in inputs.items()})
        return {name: owned(array) for name, array in inputs.items()}

    def _frame(self, columns: Dict[Any, Array]) -> Any:
        """As `_data_frame`, but columns of one dtype are put into one block here: pandas does it six times slower."""
        import numpy as np
        import pandas as pd

        dtypes = {array.dtype for array in columns.values()}
        if len(dtypes) != 1 or next(iter(dtypes)).kind not in "biuf":
            return _data_frame(columns)
        names = tuple(columns)
        index = self._indexes.get(names)
        if index is None:
            index = _data_frame(columns).columns
            if len(self._indexes) < _MAX_INDEXES:
                self._indexes[names] = index
        # A view of the index: its name is the model's to change.
        return pd.DataFrame(np.array(list(columns.values())).T, columns=index.view(), copy=False)

    def params(self, parameters: Dict[str, Any], *, from_client: bool = False) -> Dict[str, Any]:
        """The request's parameters that the model's params schema knows, checked.

        A list or an object is given as its JSON text. Others are refused (a typo should be heard) unless the protocol
        knows them. A parameter in the schema is the model's, even one that the protocol knows too (`timeout`).
        `from_client`: no service has seen them, for which they may be; else a model without any ignores them.
        """
        found: Dict[str, Any] = {}
        for name, value in parameters.items():
            spec = self._params.get(name)
            if spec is not None:
                found[name] = param_value(spec, value)
            elif (self._params or from_client) and not _of_the_protocol(name):
                raise self._unknown(name)
        return found

    def own_params(self, params: Dict[str, Any]) -> Dict[str, Any]:
        """As `params` of a client, where there are none but the model's: a model without any takes none."""
        given = {name: value for name, value in params.items() if value is not None}
        if given and not self._params:
            raise self._unknown(next(iter(given)))
        return self.params(given, from_client=True)

    def _unknown(self, name: str) -> InvalidRequest:
        why = did_you_mean(name, self._params) if self._params else "its signature has none at all"
        return InvalidRequest(f"the model has no parameter {name[:60]!r}: {why}")

    def is_left_out(self, given: InferInput) -> bool:
        """Is this an optional column of whole numbers or booleans of which no value is there? These know no missing."""
        if not given.data or given.data[0] is not None or any(value is not None for value in given.data):
            return False
        each = self._fields.get(given.name)
        return each is not None and is_optional_whole(each)

    def owns_parameter(self, name: str) -> bool:
        """Is this request parameter the model's own?"""
        return name in self._params

    def _conform_columns(self, inputs: Dict[str, Array]) -> Dict[str, Array]:
        inputs = self._split_matrix(inputs)
        self._check_names(inputs)
        found = {name: _column(each, inputs[name]) for name, each in self._fields.items() if name in inputs}
        if not found:
            raise InvalidRequest("none of the model's columns is given")
        first, rows = next((name, len(array)) for name, array in found.items())
        for name, array in found.items():
            if len(array) != rows:
                raise InvalidRequest(f"the input {name!r} has {len(array)} rows, but {first!r} has {rows}")
        return found

    def _split_matrix(self, inputs: Dict[str, Array]) -> Dict[str, Array]:
        """One 2-D tensor that stands for all columns, as columns; anything else as it is."""
        if len(inputs) != 1:
            return inputs
        ((name, array),) = inputs.items()
        width = len(self._fields)
        if name in self._fields or array.ndim != 2 or array.shape[1] != width or (width == 1 and name != "input-0"):
            return inputs
        return {each: array[:, position] for position, each in enumerate(self._fields)}

    def _check_names(self, inputs: Dict[str, Array]) -> None:
        if inputs.keys() == self._fields.keys():
            return
        for name in inputs:
            if name not in self._fields:
                raise InvalidRequest(f"the model has no input {name!r}: {did_you_mean(name, self._fields)}")
        missing = [name for name, each in self._fields.items() if each.required and name not in inputs]
        if missing:
            listed = ", ".join(repr(name) for name in missing[:20]) + (", …" if len(missing) > 20 else "")
            raise InvalidRequest(f"the model's input {listed} is missing")


def _of_the_protocol(name: str) -> bool:
    return name in PROTOCOL_PARAMETERS or name.startswith("triton_")


def is_optional_whole(each: Field) -> bool:
    """Is this an optional column of a type that knows no missing value?"""
    return each.kind == "column" and not each.required and DATATYPES[each.datatype].kind in ("int", "bool")


def fits(shape: Tuple[int, ...], wanted: Tuple[int, ...]) -> bool:
    """Is this shape one of those that a signature's shape (-1: any) stands for?"""
    return len(shape) == len(wanted) and False not in [want in (size, -1) for size, want in zip(shape, wanted)]


def cast_exactly(array: Array, dtype: str) -> Optional[Array]:
    """The numbers as `dtype`; None unless each of them survives. Booleans are no numbers."""
    import numpy as np

    target = np.dtype(dtype)
    source = array.dtype
    if source == target:
        return array
    kinds = source.kind.replace("u", "i") + target.kind.replace("u", "i")
    if kinds not in ("ii", "if", "fi", "ff"):
        return None
    if not array.size:
        return array.astype(target)
    if kinds == "ff":
        with np.errstate(over="ignore"):
            cast = array.astype(target)
        widening = target.itemsize >= source.itemsize
        return cast if widening or np.array_equal(cast.astype(source), array, equal_nan=True) else None
    low, high = array.min(), array.max()
    if kinds == "if":
        limit = _EXACT[target.itemsize]
        return array.astype(target) if -limit <= int(low) and int(high) <= limit else None
    if not (np.isfinite(low) and np.isfinite(high)):
        return None
    bounds = np.iinfo(target)
    if int(low) < bounds.min or int(high) > bounds.max:
        return None
    return array.astype(target) if kinds == "ii" or bool((array == np.trunc(array)).all()) else None


def _number(each: Field, array: Array) -> Array:
    row = DATATYPES[each.datatype]
    if array.dtype.str == row.numpy:
        return array
    cast = cast_exactly(array, row.numpy)
    if cast is not None:
        return cast
    if array.dtype.kind in "iuf" and row.kind in ("int", "float"):
        why = "the values given do not fit it exactly"
    else:
        why = f"not {_sent_as(array)}"
    raise InvalidRequest(f"the input {each.name!r} takes {each.datatype}: {why}")


def _sent_as(array: Array) -> str:
    """The V2 datatype that a client most likely sent this array as."""
    for row in DATATYPES.values():
        if array.dtype.str[1:] == row.numpy[1:] and row.name != "BF16":
            return row.name
    return "this"


def _column(each: Field, array: Array) -> Array:
    if array.ndim != 1 and not (array.ndim == 2 and array.shape[1] == 1):
        raise InvalidRequest(f"the input {each.name!r} is a column: its shape must be [n] or [n, 1]")
    array = array.reshape(-1)
    if each.datatype != "BYTES":
        return _number(each, array)
    _check_bytes(each, array)
    if each.type == "binary":
        return object_array([value.encode("utf-8") if isinstance(value, str) else value for value in array])
    if each.type == "datetime":
        return _datetimes(each, array)
    if each.type == "string":
        return object_array(_texts(each, array))
    return object_array([_from_json(each, value, row) for row, value in enumerate(array)])


def _tensor(each: Field, array: Array) -> Array:
    array = _reshaped(array, each.shape)
    if not fits(array.shape, each.shape) and not (each.type == "object" and each.shape == (-1,)):
        raise InvalidRequest(
            f"the input {each.name!r} has shape {list(array.shape)}, but the model takes {list(each.shape)} (-1: any)"
        )
    if each.datatype != "BYTES":
        return _number(each, array)
    import numpy as np

    if each.type == "object":
        return _text_or_bytes(array) if array.dtype == object else array.astype(object)
    _check_bytes(each, array)
    if each.type.startswith("datetime64"):
        return _datetimes(each, array.reshape(-1)).astype(each.type).reshape(array.shape)
    if None in array.ravel().tolist():
        raise InvalidRequest(f"the input {each.name!r} is a tensor of text: its data must be strings, not null")
    if each.type == "bytes":
        raws = [value.encode("utf-8") if isinstance(value, str) else value for value in array.ravel()]
        return np.array(raws, dtype=bytes).reshape(array.shape)
    return np.array(_texts(each, array.ravel()), dtype=str).reshape(array.shape)


def _reshaped(array: Array, wanted: Tuple[int, ...]) -> Array:
    """[n, 1] for a declared (-1,), and [n] for (-1, 1), as that; anything else as it is."""
    if array.ndim == len(wanted) + 1 and array.shape[-1] == 1 and fits(array.shape[:-1], wanted):
        return array.reshape(array.shape[:-1])
    if array.ndim + 1 == len(wanted) and wanted[-1] == 1 and fits((*array.shape, 1), wanted):
        return array.reshape((*array.shape, 1))
    return array


def _check_bytes(each: Field, array: Array) -> None:
    if array.dtype != object:
        what = "JSON text" if each.holds_json else each.type
        raise InvalidRequest(f"the input {each.name!r} takes BYTES ({what}), not {_sent_as(array)}")


def _texts(each: Field, array: Array) -> List[Any]:
    try:
        return [value.decode("utf-8") if isinstance(value, bytes) else value for value in array]
    except UnicodeDecodeError:
        raise InvalidRequest(f"the input {each.name!r} takes text: an element is not UTF-8") from None


def _text_or_bytes(array: Array) -> Array:
    if array.dtype != object:
        return array
    try:
        elements = [value.decode("utf-8") if isinstance(value, bytes) else value for value in array.ravel()]
    except UnicodeDecodeError:
        elements = [value.encode("utf-8") if isinstance(value, str) else value for value in array.ravel()]
    return object_array(elements).reshape(array.shape)


def _datetimes(each: Field, array: Array) -> Array:
    import numpy as np

    texts = ["" if text is None else text for text in _texts(each, array)]
    found: Array = moments(texts, f"the input {each.name!r}")
    return found.astype(np.dtype("datetime64[ns]"))


def _from_json(each: Field, value: Any, row: int) -> Any:
    if value is None:
        return None
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"the input {each.name!r} takes JSON text ({each.type}): row {row}: {error}") from None


def _data_frame(columns: Dict[Any, Array]) -> Any:
    import pandas as pd

    return pd.DataFrame(columns)
