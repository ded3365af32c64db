"""The table of datatypes against what numpy says of its codes."""

from __future__ import annotations

import numpy as np
import pytest

from modelhub.serving.protocol.datatypes import DATATYPES, datatype
from modelhub.serving.protocol.errors import InvalidRequest


def test_all_of_v2_and_bf16() -> None:
    integers = {f"{sign}INT{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)}
    assert set(DATATYPES) == {"BOOL", "FP16", "BF16", "FP32", "FP64", "BYTES"} | integers


@pytest.mark.parametrize("name", sorted(set(DATATYPES) - {"BYTES", "BF16"}))
def test_sizes_and_ranges_are_numpys(name: str) -> None:
    row = datatype(name)
    dtype = np.dtype(row.numpy)
    assert dtype.itemsize == row.size
    if row.kind == "int":
        assert (row.low, row.high) == (np.iinfo(dtype).min, np.iinfo(dtype).max)


def test_an_unknown_name() -> None:
    with pytest.raises(InvalidRequest, match="FP32"):
        datatype("FLOAT32")
