"""What a model without a signature is called with: what its input example is in Python (`Signature.example_kind`).

Called by `inputs.py` for V2 tensors and by `fields.py` for the rows of a table. Without an example, a table or an array
is guessed from the shapes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, List

from ...protocol.errors import InvalidRequest

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]


def as_example(kind: str, inputs: Dict[str, Array]) -> Any:
    """Tensors by name as the argument of `predict`."""
    if kind in ("table", "records") and look_like_columns(inputs):
        columns = {name: array.reshape(-1) for name, array in inputs.items()}
        if kind == "table":
            import pandas as pd

            return pd.DataFrame(columns)
        return [dict(zip(columns, row)) for row in zip(*[array.tolist() for array in columns.values()])]
    if kind == "object":
        return {name: _unwrapped(array) for name, array in inputs.items()}
    if len(inputs) > 1:
        return {name: owned(array) for name, array in inputs.items()}
    (array,) = inputs.values()
    if kind == "text":
        return _unwrapped(array)
    return array.tolist() if kind == "list" else owned(array)


def rows_as_example(rows: List[Any], kind: str) -> Any:
    """Records, lists or values as the argument of `predict`; a DataFrame where the kind does not fit."""
    import numpy as np
    import pandas as pd

    if isinstance(rows[0], dict):
        if kind == "records":
            return rows
        return rows[0] if kind == "object" and len(rows) == 1 else pd.DataFrame(rows)
    if kind == "list":
        return rows
    if kind != "array":
        return pd.DataFrame(rows)
    try:
        return np.array(rows)
    except ValueError:
        raise InvalidRequest("the rows of the table are of different lengths, and the model takes an array") from None


def look_like_columns(inputs: Dict[str, Array]) -> bool:
    """Are they flat, and of one length?"""
    shapes = [array.shape for array in inputs.values()]
    flat = all(len(shape) == 1 or (len(shape) == 2 and shape[1] == 1) for shape in shapes)
    return flat and len({shape[0] for shape in shapes}) == 1


def owned(array: Array) -> Array:
    """The array itself, or a copy where it is a view of the request's body: models may write to it."""
    return array if array.flags.writeable and array.flags.aligned else array.copy()


def _unwrapped(array: Array) -> Any:
    """The one value of an array of one, else its list."""
    values = array.tolist()
    return values[0] if array.ndim and len(values) == 1 else values
