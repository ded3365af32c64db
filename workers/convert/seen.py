"""What a model's outputs are, by its answer to its own input example.

A signature says what MLflow inferred from what its author gave it, which need not be what `predict` returns: labels
are logged, and `predict_proba` is served; a number, and an object of several is returned. The warm-up's answer corrects
that (`model/promises.py`), so that metadata promise what requests get:

    in the signature                                in the metadata
    an output of that datatype and shape            stays
    one of another datatype, or shape               the answer's, [-1, …]; a size that a variable dimension of the
                                                    inputs has too is variable
    names of which the answer has none, or none     the answer's outputs
    an output that this answer has not              stays: others may have it
    an empty one                                    stays
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, AbstractSet, Any, List, Optional, Sequence, Tuple

from ...protocol.datatypes import DATATYPES
from ...protocol.signature import Field
from .inputs import fits
from .outputs import named, output_of
from .values import json_rows, rows_of_value

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]


def outputs_seen(result: Any, fields: Sequence[Field], variable: AbstractSet[int]) -> List[Field]:
    """The fields of the outputs, the signature's first. `variable`: sizes that other requests may have otherwise.

    Raises what `to_outputs` does of a result that cannot be sent, and TypeError and its like.
    """
    found = {name: _seen(name, value, field, variable) for name, value, field in named(result, list(fields))}
    known = {each.name for each in fields}
    kept = list(fields) if not known.isdisjoint(found) else []
    outputs = [found.get(each.name) or each for each in kept]
    outputs.extend(each for name, each in found.items() if each is not None and (name not in known or not kept))
    return outputs or list(fields)


def _seen(name: str, value: Any, field: Optional[Field], variable: AbstractSet[int]) -> Optional[Field]:
    """The field of one output; None where an empty one tells nothing."""
    output = output_of(name, value, field)
    array = output.array
    if not array.size:
        return field
    fitting = field is not None and fits(array.shape, field.shape)
    shape = field.shape if field is not None and fitting else _shape(array, field, variable)
    if field is not None and field.datatype == output.datatype:
        return field if fitting else dataclasses.replace(field, shape=shape)
    is_json = output.datatype == "BYTES" and _is_json(value, array)
    kind, type_ = ("column", "any") if is_json else ("tensor", DATATYPES[output.datatype].name.lower())
    was_named = field.named if field is not None else not name.startswith("output-")
    return Field(name, kind, type_, output.datatype, shape, named=was_named)


def _shape(array: Array, field: Optional[Field], variable: AbstractSet[int]) -> Tuple[int, ...]:
    declared = field.shape if field is not None and len(field.shape) == array.ndim else (0,) * array.ndim
    rest = zip(array.shape[1:], declared[1:])
    return (-1, *(-1 if want == -1 or size in variable else size for size, want in rest))


def _is_json(value: Any, array: Array) -> bool:
    """Are these texts the JSON of the rows, and no texts by themselves?"""
    rows = rows_of_value(value)
    return len(rows) == array.size and bool((json_rows(rows) == array.ravel()).all())
