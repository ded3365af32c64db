"""Requests stacked to one call along the first axis, and its result taken apart again.

A list of two arrays may be two rows or two outputs, and an array of two rows two outputs of a row each: one result does
not tell. Results for different numbers of rows do: where rows are, a length follows their number, and everywhere else
it stays. `Layouts` keeps what was learned so, for each form of requests that may be stacked; `split` takes nothing
apart without it.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

from ..convert.plain import is_frame, is_sparse
from ..model.call import Call

#: Members of a list that are looked at as outputs; a longer one is a list of rows or nothing that is understood.
_MOST_OUTPUTS = 64
#: Forms of requests that are remembered: by their inputs and parameters.
_MOST_FORMS = 64
#: Arrays and columns that hold text, whatever holds it: which of them depends on the values.
_TEXT = "text"
_SEQUENCES: Dict[str, Any] = {"list": list, "tuple": tuple}


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


class Outline(NamedTuple):
    """What is known of a result without its values."""

    form: str  # array | list | tuple | dict; "": nothing that can be taken apart
    length: int = 0
    types: Any = None  # of an array: its dtype, of a frame its columns and theirs
    names: Any = None  # of a dict: its keys, of a tuple its type
    members: Tuple[Outline, ...] = ()


class Layout(NamedTuple):
    """Where the rows of a model's results are: along the first axis of this (`rows`), or of each of its members."""

    outline: Outline
    rows: bool
    members: Tuple[Layout, ...] = ()


class Layouts:
    """What is known of one model's results. Changed by whoever runs it; a lost change is learned again."""

    def __init__(self) -> None:
        self._known: OrderedDict[Any, Layout] = OrderedDict()
        self._seen: OrderedDict[Any, Tuple[int, Outline]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._known)

    def saw(self, form: Any, rows: int, result: Any) -> Optional[Layout]:
        """The layout of results for requests of this form (`Call.form`), of which this is one for so many rows.

        None: there was only one number of rows until now.

        Raises LookupError where results do not have their rows in one place.
        """
        known = self._known.get(form)
        if known is not None:
            return known
        outline = outline_of(result)
        before = self._seen.get(form)
        if before is None or before[0] == rows:
            _remember(self._seen, form, (rows, outline))
            return None
        layout = layout_of(*before, rows, outline)
        if layout is None:
            raise LookupError
        _remember(self._known, form, layout)
        self._seen.pop(form, None)
        return layout

    def needs(self, form: Any, rows: int) -> bool:
        """Would a result for so many rows, of requests of this form, still say nothing?"""
        if form in self._known:
            return False
        before = self._seen.get(form)
        return before is None or before[0] == rows


def _remember(kept: OrderedDict[Any, Any], form: Any, value: Any) -> None:
    kept[form] = value
    while len(kept) > _MOST_FORMS:
        kept.popitem(last=False)


def outline_of(result: Any) -> Outline:
    """What a result is, without its values."""
    kind = type(result)
    if isinstance(result, dict):
        return Outline("dict", len(result), None, tuple(result), _members(list(result.values())))
    if isinstance(result, tuple):
        return Outline("tuple", len(result), None, kind, _members(result))
    if isinstance(result, list):
        return Outline("list", len(result), None, None, _members(result))
    if getattr(result, "ndim", 0) and (hasattr(result, "__getitem__") or is_sparse(result)):
        return Outline("array", result.shape[0], _types(result))
    return Outline("")


def _members(values: Sequence[Any]) -> Tuple[Outline, ...]:
    return tuple(map(outline_of, values)) if len(values) <= _MOST_OUTPUTS else ()


def _types(array: Any) -> Any:
    if is_frame(array):
        return tuple(array.columns), tuple(map(_type, array.dtypes))
    return _type(getattr(array, "dtype", None))


def _type(dtype: Any) -> Any:
    return _TEXT if getattr(dtype, "kind", "") in ("O", "U", "S") or str(dtype).startswith("str") else str(dtype)


def layout_of(rows: int, one: Outline, more: int, other: Outline) -> Optional[Layout]:
    """Where the rows are, of results for two different numbers of them; None where they are not in one place."""
    if (one.form, one.types, one.names) != (other.form, other.types, other.names) or not one.form:
        return None
    if one.form != "dict" and (one.length, other.length) == (rows, more):
        return Layout(one, rows=True)
    if one.form == "array" or one.length != other.length or not one.members or not other.members:
        return None
    members = [layout_of(rows, each, more, another) for each, another in zip(one.members, other.members)]
    found = tuple(each for each in members if each is not None)
    return Layout(one, rows=False, members=found) if len(found) == len(members) else None


class Unlike(Exception):
    """A result that has another type, or other members, than those from which its layout is known."""


def split(result: Any, rows: Sequence[int], layout: Layout) -> Optional[List[Any]]:
    """The result of a stacked call, taken apart into so many rows each; None where its rows are not theirs.

    Raises Unlike.
    """
    known = layout.outline
    if layout.rows:
        return _split_rows(result, rows, known)
    now = outline_of(result)
    if (now.form, now.names, now.length) != (known.form, known.names, known.length):
        raise Unlike(f"a {type(result).__name__} that is made otherwise than before")
    values = list(result.values()) if known.form == "dict" else result
    parts: List[List[Any]] = []
    for value, member in zip(values, layout.members):
        part = split(value, rows, member)
        if part is None:
            return None
        parts.append(part)
    return [_joined(result, known, row) for row in zip(*parts)]


def _split_rows(result: Any, rows: Sequence[int], known: Outline) -> Optional[List[Any]]:
    if known.form == "array":
        if not getattr(result, "ndim", 0) or known.types != _types(result):
            raise Unlike(f"a {type(result).__name__} of other types than before")
        length = result.shape[0]
    else:
        if not isinstance(result, _SEQUENCES[known.form]):
            raise Unlike(f"a {type(result).__name__} in place of a {known.form}")
        length = len(result)
    if length != sum(rows):
        return None
    if is_sparse(result):
        result = result.tocsr()  # other sparse matrices have no rows that could be taken
    rowwise = getattr(result, "iloc", result)
    found: List[Any] = []
    start = 0
    for count in rows:
        part = rowwise[start : start + count]
        found.append(part if known.form != "tuple" else _tuple(type(result), part))
        start += count
    return found


def _joined(result: Any, known: Outline, parts: Sequence[Any]) -> Any:
    if known.form == "dict":
        return dict(zip(result, parts))
    return list(parts) if known.form == "list" else _tuple(type(result), parts)


def _tuple(kind: Any, parts: Sequence[Any]) -> Any:
    """A tuple of a kind that may have names for its members."""
    return kind._make(parts) if hasattr(kind, "_make") else tuple(parts)
