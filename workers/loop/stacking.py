"""Requests stacked to one call along the first axis, and its result taken apart again."""

from __future__ import annotations

from typing import Any, List, Optional, Sequence

from ..model.call import Call


def stack(calls: Sequence[Call]) -> Call:
    """One call for all of them; they are of one `group_key`."""
    import numpy as np

    first = calls[0]
    columns = zip(*(call.inputs.values() for call in calls))
    return Call(
        first.kind,
        {name: np.concatenate(arrays) for name, arrays in zip(first.inputs, columns)},
        first.params,
        None,
        rows=sum(call.rows for call in calls),
        name=first.name,
        version=first.version,
    )


def split(result: Any, rows: Sequence[int], outputs: int = 0) -> Optional[List[Any]]:
    """The result of a stacked call, taken apart into so many rows each; None where its rows are not theirs.

    `outputs`: of the signature; a list of so many arrays is these outputs, as `convert/outputs.py` has it.
    """
    if isinstance(result, dict):
        return _split_members(list(result), list(result.values()), rows, dict)
    if isinstance(result, tuple) or (isinstance(result, list) and _are_outputs(result, outputs)):
        make = type(result) if type(result) in (tuple, list) else tuple
        return _split_members(range(len(result)), result, rows, lambda pairs: make(value for _, value in pairs))
    if hasattr(result, "tocsr"):
        result = result.tocsr()  # other sparse matrices have no rows that could be taken
    if isinstance(result, list):
        length = len(result)
    elif getattr(result, "ndim", 0) and hasattr(result, "__getitem__"):
        length = result.shape[0]
    else:
        return None
    if length != sum(rows):
        return None
    rowwise = getattr(result, "iloc", result)
    found: List[Any] = []
    start = 0
    for count in rows:
        found.append(rowwise[start : start + count])
        start += count
    return found


def _are_outputs(result: List[Any], outputs: int) -> bool:
    return len(result) == outputs > 1 and all(hasattr(each, "dtype") and getattr(each, "ndim", 0) for each in result)


def _split_members(names: Sequence[Any], values: Sequence[Any], rows: Sequence[int], make: Any) -> Optional[List[Any]]:
    parts: List[List[Any]] = []
    for value in values:
        part = None if isinstance(value, (dict, tuple)) else split(value, rows)
        if part is None:
            return None
        parts.append(part)
    return [make(zip(names, row)) for row in zip(*parts)] if parts else None
