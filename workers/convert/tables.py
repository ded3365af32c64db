"""Tables in requests - records, rows, CSV - to one array per column of the model's signature.

Called for `data` of legacy requests, CSV bodies and KServe V1 instances. Values are checked as V2 tensors
are: numbers must fit the column's type exactly, text must be text. Columns that the signature does not
know are left out, as MLflow does, unless they look like an optional one that is not there. Whatever is wrong is an
InvalidRequest.
"""

from __future__ import annotations

import io
from difflib import get_close_matches
from typing import TYPE_CHECKING, AbstractSet, Any, Collection, Dict, Iterable, List, Mapping, Sequence

from ...protocol.datatypes import DATATYPES
from ...protocol.errors import InvalidRequest
from ...protocol.signature import Field, Signature
from ...protocol.v2 import InferInput, did_you_mean
from .files import decode_file
from .inputs import InputAdapter, is_optional_whole
from .plain import is_frame
from .sizes import check_csv, check_records
from .tensors import object_array, to_array

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]


def records_of_csv(raw: bytes, text_columns: Collection[str] = frozenset()) -> List[Dict[str, Any]]:
    """A CSV file with a header line as records; None is what pandas takes for missing: empty cells, NA, null, None …

    `text_columns` stay text.
    """
    import pandas as pd

    check_csv(raw)
    try:
        frame = pd.read_csv(io.BytesIO(raw), dtype=dict.fromkeys(text_columns, str), encoding="utf-8")
    except UnicodeDecodeError:
        raise InvalidRequest("the CSV body is not UTF-8") from None
    except Exception as error:  # pandas' parsers raise many kinds, and all of them speak of the body
        raise InvalidRequest(f"the body is no CSV with a header line: {type(error).__name__}") from None
    if frame.empty:
        raise InvalidRequest("the CSV body has a header line and no rows (curl keeps lines with --data-binary, not -d)")
    frame = frame.astype(object).where(frame.notna(), None)
    names = [str(name) for name in frame.columns]
    return [dict(zip(names, row)) for row in frame.itertuples(index=False, name=None)]


def rows_of(fields: Mapping[str, Any], *, mixed: bool = False) -> List[Any]:
    """The rows of a table: of `data`, or as pandas writes one in two parts, `columns` and `data`."""
    rows = as_rows(fields.get("data"), mixed=mixed)
    columns, index = fields.get("columns"), fields.get("index")
    if index is not None and (columns is None or index != list(range(len(rows)))):
        raise InvalidRequest('"index" is not given to a model: leave it out, or make a column of it')
    if columns is None:
        return rows
    labels = list(map(str, columns)) if isinstance(columns, list) else []
    if not labels or len(set(labels)) < len(labels):
        raise InvalidRequest('"columns" must be a list of different names, one for each value of a row of "data"')
    for row in rows:
        if not isinstance(row, list) or len(row) != len(labels):
            raise InvalidRequest(f'each row of "data" must be a list of {len(labels)} values, as "columns" has names')
    return [dict(zip(labels, row)) for row in rows]


def bare_frame(rows: int) -> Any:
    """A DataFrame of so many rows in which no column is given, for a model whose columns are all optional."""
    import pandas as pd

    return pd.DataFrame(index=range(rows))


def is_bare(data: Any) -> bool:
    """Is this what `bare_frame` makes?"""
    return is_frame(data) and len(data) > 0 and not len(data.columns)


def with_missing(data: Any, fields: Sequence[Field]) -> Any:
    """A bare frame with the columns that can be missing, all of them: MLflow makes no rows of one without any."""
    import numpy as np
    import pandas as pd

    found: Dict[str, Any] = {}
    for each in fields:
        if each.datatype in ("FP32", "FP64"):
            found[each.name] = np.full(len(data), np.nan, dtype=DATATYPES[each.datatype].numpy)
        elif each.type == "datetime":
            found[each.name] = np.full(len(data), np.datetime64("NaT"), dtype="datetime64[ns]")
        elif each.datatype in ("BYTES", "BOOL"):
            found[each.name] = object_array([None] * len(data))
    return pd.DataFrame(found) if found else data


def as_rows(data: Any, *, mixed: bool = False) -> List[Any]:
    """The rows of `data`: a list of objects, of lists or of values (`mixed`: of all these); one object is one row."""
    rows = [data] if isinstance(data, dict) else data
    if not isinstance(rows, list) or not rows:
        raise InvalidRequest('the table must be records (objects), at least one: {"data": [{"column": 1}]}')
    kinds = set(map(type, rows))
    if not mixed and len(kinds) > 1 and (dict in kinds or list in kinds):
        raise InvalidRequest("the rows of the table are of different kinds: send objects only")
    return rows


def columns_of(rows: List[Any], fields: Sequence[Field]) -> Dict[str, Array]:
    """One array per column of the signature, in its order, of records, of rows by position, or of single values."""
    if isinstance(rows[0], dict):
        check_records(rows, len(fields))
        values = {each.name: [row.get(each.name) for row in rows] for each in fields}
        _check_missing(rows, fields)
        check_unknown([row.keys() for row in rows], fields)
        given = {name for row in rows for name in row}
        fields = [each for each in fields if each.required or each.name in given]
    else:
        values = _by_position(rows, fields)
    return {each.name: column(each, values[each.name]) for each in fields if not _is_left_out(each, values[each.name])}


def _by_position(rows: List[Any], fields: Sequence[Field]) -> Dict[str, List[Any]]:
    width = len(fields)
    if not isinstance(rows[0], list):
        rows = [[value] for value in rows]
    for row in rows:
        if len(row) != width:
            raise InvalidRequest(f"a row of the table has {len(row)} values, but the model has {width} columns")
    return {each.name: [row[at] for row in rows] for at, each in enumerate(fields)}


def column(each: Field, values: List[Any]) -> Array:
    """The values of one column, as its type. None is a missing one where the type has such."""
    if each.datatype == "BOOL" and not each.required and None in values:
        known = iter(column(each, [value for value in values if value is not None]).tolist())
        return object_array([None if value is None else next(known) for value in values])
    if each.datatype != "BYTES":
        return to_array(InferInput(each.name, [len(values)], each.datatype, data=values))
    if each.holds_json:
        return object_array(values)
    if each.type == "binary":
        return object_array([None if value is None else decode_file(value, each.name) for value in values])
    wrong = set(map(type, values)) - {str, type(None)}
    if wrong:
        raise InvalidRequest(f"the column {each.name!r} takes text ({each.type}), not {_named(wrong)}")
    if each.type == "datetime":
        texts = object_array(["" if value is None else value for value in values])
        return InputAdapter(Signature(inputs=[each])).conform({each.name: texts})[each.name]
    return object_array(values)


def matrix_of(rows: List[Any]) -> List[Any]:
    """Rows for a nameless tensor: records give their values in the order of the first one's keys."""
    if not isinstance(rows[0], dict):
        return rows
    names = list(rows[0])
    for row in rows:
        if row.keys() != rows[0].keys():
            raise InvalidRequest("the records of the table do not all have the same fields")
    return [[row[name] for name in names] for row in rows]


def shape_of(values: Any) -> List[int]:
    """The shape of nested lists, by their first elements."""
    shape: List[int] = []
    while isinstance(values, list):
        shape.append(len(values))
        if not values:
            break
        values = values[0]
    return shape


def _is_left_out(each: Field, values: List[Any]) -> bool:
    """Is this an optional column without a single value, of a type that has no missing one?"""
    return is_optional_whole(each) and all(value is None for value in values)


def _check_missing(rows: List[Dict[str, Any]], fields: Sequence[Field]) -> None:
    for each in fields:
        if not each.required:
            continue
        for number, row in enumerate(rows):
            if each.name not in row:
                hint = did_you_mean(each.name, row) if row else "the record is empty"
                raise InvalidRequest(f"the column {each.name!r} is missing in record {number}: {hint}")


def check_unknown(rows: Iterable[AbstractSet[str]], fields: Sequence[Field]) -> None:
    """Refuses names that are no columns and look like optional ones that are not there, and rows of nothing else."""
    known = {each.name for each in fields}
    for number, names in enumerate(rows):
        if names <= known:
            continue
        absent = [each.name for each in fields if not each.required and each.name not in names]
        for name in names - known:
            near = get_close_matches(str(name), absent, n=1)
            if near or names.isdisjoint(known):
                hint = did_you_mean(str(name), near or known)
                raise InvalidRequest(f"record {number} has the field {str(name)[:60]!r}, which is no column: {hint}")


def _named(types: Collection[type]) -> str:
    names = {dict: "an object", list: "a list", bool: "true or false"}
    return names.get(next(iter(types)), "a number")
