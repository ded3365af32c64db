"""Bounds of what a small body may become: a table with a column of its own for each row, a megabyte of zeros.

What grows faster than its body is refused, before anything is made of it.
"""

from __future__ import annotations

from typing import Any, List

from ...protocol.errors import InvalidRequest
from ...protocol.limits import FULL_CELLS, MAX_COLUMNS, SPARSE


def check_cells(rows: int, columns: int, given: int) -> None:
    """`given`: the values that were sent; a table is as large as its rows times its columns. Raises InvalidRequest."""
    if columns > MAX_COLUMNS:
        raise InvalidRequest(f"the table has {columns} columns, more than the {MAX_COLUMNS} that one may have")
    if rows * columns > max(FULL_CELLS, SPARSE * given):
        raise InvalidRequest(
            f"the table has {rows} rows and {columns} columns, but only {given} values: send records with the same "
            "fields"
        )


def check_records(rows: List[Any], columns: int = 0) -> None:
    """Records (other rows pass) whose table has the columns of all of them, or so many. Raises InvalidRequest."""
    if not isinstance(rows[0], dict):
        return
    given = sum(len(row) for row in rows if isinstance(row, dict))
    if not columns:
        columns = len({name for row in rows if isinstance(row, dict) for name in row})
    check_cells(len(rows), columns, given)


def check_csv(raw: bytes) -> None:
    """A CSV file, before it is read. Raises InvalidRequest."""
    header = raw[: raw.find(b"\n") + 1 or len(raw)]
    commas = raw.count(b",")
    check_cells(raw.count(b"\n"), header.count(b",") + 1, commas + raw.count(b"\n"))
