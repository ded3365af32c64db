"""Calls that are stacked for one prediction, and its result taken apart again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelhub.serving.workers.loop.stacking import split, stack
from modelhub.serving.workers.model.call import Call


@given(st.lists(st.lists(st.floats(allow_nan=False), min_size=1, max_size=5), min_size=1, max_size=6))
def test_split_undoes_stack(rows: list[list[float]]) -> None:
    calls = [Call("infer", {"x": np.array(each)}, {}, None, rows=len(each)) for each in rows]
    together = stack(calls)
    lengths = [len(each) for each in rows]
    array = together.inputs["x"]
    assert together.rows == len(array) == sum(lengths)
    for result in (array, list(array), pd.Series(array), np.stack([array, array], axis=1)):
        parts = split(result, lengths)
        assert parts is not None
        assert [len(each) for each in parts] == lengths
        assert np.array_equal(np.concatenate([np.asarray(each) for each in parts]), np.asarray(result))
    pairs = split({"a": array, "b": list(array)}, lengths)
    assert pairs is not None
    assert [list(each["a"]) for each in pairs] == rows == [each["b"] for each in pairs]


def test_a_list_of_outputs_is_not_a_list_of_rows() -> None:
    outputs = [np.array([1, 2]), np.array([3, 4])]
    assert split(outputs, [1, 1], 2) == [[np.array([1]), np.array([3])], [np.array([2]), np.array([4])]]
    parts = split(outputs, [1, 1])
    assert parts is not None
    assert [each[0].tolist() for each in parts] == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    "result", [None, 3, "ab", np.float64(2), np.arange(3), [1], {}, {"a": [1, 2], "b": 1}, (1, 2), pd.Series([1])]
)
def test_what_has_other_rows_is_not_split(result: Any) -> None:
    assert split(result, [1, 1]) is None


@pytest.mark.parametrize("kind", ["coo_matrix", "bsr_matrix", "dia_matrix", "csr_matrix", "lil_matrix"])
def test_sparse_answers_are_taken_apart(kind: str) -> None:
    import scipy.sparse

    rows = np.arange(6.0).reshape(3, 2)
    parts = split(getattr(scipy.sparse, kind)(rows), [1, 2])
    assert parts is not None
    assert [each.toarray().tolist() for each in parts] == [rows[:1].tolist(), rows[1:].tolist()]
