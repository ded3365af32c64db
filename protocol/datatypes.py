"""The datatypes of V2 tensors: names, sizes, numpy's codes, ranges.

Asked by `v2.py` (how long must a binary tensor be?), `signature.py` and the worker's tensors. Pure:
the numpy codes are plain text, so that the gateway can read this table without numpy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict

from .errors import InvalidRequest


@dataclass(frozen=True)
class Datatype:
    """One row of the table."""

    name: str
    kind: str  # bool | int | float | bytes
    size: int  # bytes of one element on the wire; 0: variable
    numpy: str  # dtype.str of the array that holds it; BF16 is held as FP32, BYTES as objects
    low: int = 0  # smallest and largest value of the integer types
    high: int = 0


def _integer(name: str, size: int, signed: bool) -> Datatype:
    bits = 8 * size
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    return Datatype(name, "int", size, f"{'<' if size > 1 else '|'}{'i' if signed else 'u'}{size}", low, high)


DATATYPES: Dict[str, Datatype] = {
    row.name: row
    for row in (
        Datatype("BOOL", "bool", 1, "|b1"),
        *(_integer(f"UINT{8 * size}", size, signed=False) for size in (1, 2, 4, 8)),
        *(_integer(f"INT{8 * size}", size, signed=True) for size in (1, 2, 4, 8)),
        Datatype("FP16", "float", 2, "<f2"),
        Datatype("BF16", "float", 2, "<f4"),
        Datatype("FP32", "float", 4, "<f4"),
        Datatype("FP64", "float", 8, "<f8"),
        Datatype("BYTES", "bytes", 0, "|O"),
    )
}


def datatype(name: str) -> Datatype:
    """The row of `name`. Raises InvalidRequest, naming all datatypes."""
    try:
        return DATATYPES[name]
    except KeyError:
        raise InvalidRequest(f"unknown datatype {name[:40]!r}: use one of {', '.join(DATATYPES)}") from None
