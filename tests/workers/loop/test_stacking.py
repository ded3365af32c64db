"""Calls that are stacked for one prediction, and its result taken apart again."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelhub.serving.workers.convert.outputs import to_outputs
from modelhub.serving.workers.convert.plain import dumps
from modelhub.serving.workers.loop.stacking import Layouts, Unlike, split, stack
from modelhub.serving.workers.model.call import Call

#: A model: the values of its rows to a result.
Model = Callable[[Sequence[float]], Any]
Pair = namedtuple("Pair", "label score")

ROWS: list[Model] = [
    lambda rows: np.array(rows, dtype=float),
    lambda rows: np.array(rows, dtype="float32").reshape(-1, 1),
    lambda rows: np.array([[row, -row] for row in rows]).reshape(-1, 2),
    lambda rows: np.array([str(row) for row in rows], dtype=object),
    lambda rows: np.array([str(row) for row in rows]),
    list,
    lambda rows: [[row, row + 1] for row in rows],
    lambda rows: [{"row": row} for row in rows],
    lambda rows: [np.array([row, row]) for row in rows],
    lambda rows: ["a" * int(abs(row) % 3) for row in rows],
    lambda rows: tuple(rows),
    lambda rows: pd.Series(rows, dtype=float, name="y"),
    lambda rows: pd.DataFrame({"a": np.array(rows, dtype=float), "b": [str(row) for row in rows]}),
]


def _of(members: list[Model], kind: str) -> Model:
    def model(rows: Sequence[float]) -> Any:
        found = [member(rows) for member in members]
        if kind == "dict":
            return {f"y{at}": value for at, value in enumerate(found)}
        if kind == "pair":
            return Pair(found[0], found[-1])
        return found if kind == "list" else tuple(found)

    return model


def _members(models: st.SearchStrategy[Model]) -> st.SearchStrategy[Model]:
    kinds = st.sampled_from(["list", "tuple", "dict", "pair"])
    return st.builds(_of, st.lists(models, min_size=1, max_size=5), kinds)


MODELS = st.recursive(st.sampled_from(ROWS), _members, max_leaves=8)
CLIENTS = st.lists(st.lists(st.integers(-99, 99).map(float), min_size=1, max_size=4), min_size=2, max_size=12)


def answers(result: Any) -> tuple[Any, bytes]:
    """What clients of V2, and of the dialects that answer with plain JSON, are sent."""
    return [(each.name, each.datatype, each.array.tolist()) for each in to_outputs(result)], dumps(result)


@given(MODELS, CLIENTS, st.booleans())
def test_whatever_the_result_each_client_gets_what_it_gets_alone(
    model: Model, clients: list[list[float]], together_first: bool
) -> None:
    """Any number of outputs in any form, rows and clients, with their numbers equal or not."""
    everything = [row for rows in clients for row in rows]
    seen = [(len(clients[0]), model(clients[0])), (len(everything), model(everything))]
    layouts = Layouts()
    found = [layouts.saw("form", *each) for each in (reversed(seen) if together_first else seen)]
    assert found[0] is None
    assert found[1] is not None
    parts = split(model(everything), [len(rows) for rows in clients], found[1])
    assert parts is not None
    assert [answers(part) for part in parts] == [answers(model(rows)) for rows in clients]


@given(st.lists(st.lists(st.floats(allow_nan=False), min_size=1, max_size=5), min_size=1, max_size=6))
def test_calls_are_stacked_row_by_row(rows: list[list[float]]) -> None:
    together = stack([Call("infer", {"x": np.array(each)}, {}, None, rows=len(each)) for each in rows])
    assert together.inputs["x"].tolist() == [value for each in rows for value in each]
    assert together.rows == sum(map(len, rows))


def learnt(one: Any, two: Any) -> Any:
    layouts = Layouts()
    assert layouts.saw("form", 1, one) is None
    return layouts.saw("form", 2, two)


def test_a_list_of_two_arrays_may_be_outputs_or_rows() -> None:
    result = [np.array([1, 2]), np.array([3, 4])]
    outputs = learnt([np.array([1]), np.array([3])], result)
    assert split(result, [1, 1], outputs) == [[np.array([1]), np.array([3])], [np.array([2]), np.array([4])]]
    parts = split(result, [1, 1], learnt([np.array([1, 2])], result))
    assert parts is not None
    assert [each[0].tolist() for each in parts] == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (None, None),
        (3, 3),
        ("a", "ab"),
        (np.float64(2), np.array([2.0, 2.0])),
        (np.arange(3), np.arange(3)),
        (np.ones((2, 1)), np.ones((2, 2))),  # an array of outputs
        ([1], [1]),
        ({}, {}),
        ({"a": [1], "b": 1}, {"a": [1, 2], "b": 1}),
        ({"a": [1]}, {"a": [1], "b": [1]}),
        ([1], (1, 2)),
        (np.array([1]), np.array([1.0, 2.0])),
        (pd.DataFrame({"a": [1]}), pd.DataFrame({"b": [1, 2]})),
    ],
)
def test_what_has_its_rows_in_no_one_place_is_not_taken_apart(one: Any, two: Any) -> None:
    with pytest.raises(LookupError):
        learnt(one, two)


def test_a_result_with_other_rows_is_not_split() -> None:
    assert split(np.arange(3), [1, 1], learnt(np.arange(1), np.arange(2))) is None
    assert split([[1]], [1, 1], learnt([[1]], [[1, 2]])) is None


@pytest.mark.parametrize(
    ("one", "two", "other"),
    [
        (np.arange(1), np.arange(2), np.arange(2.0)),
        (np.arange(1), np.arange(2), [1, 2]),
        (np.arange(1), np.arange(2), np.int64(2)),
        ([1], [1, 2], (1, 2)),
        ([[1]], [[1, 2]], [[1, 2], [3, 4]]),
        ({"a": [1]}, {"a": [1, 2]}, {"b": [1, 2]}),
        (pd.DataFrame({"a": [1]}), pd.DataFrame({"a": [1, 2]}), pd.DataFrame({"a": [1, None]})),
        (pd.DataFrame({"a": [1]}), pd.DataFrame({"a": [1, 2]}), pd.DataFrame({"b": [1, 2]})),
    ],
)
def test_a_result_that_another_clients_rows_have_changed_is_not_split(one: Any, two: Any, other: Any) -> None:
    """A missing value of one client would make floats of another one's integers."""
    with pytest.raises(Unlike):
        split(other, [1, 1], learnt(one, two))


@pytest.mark.parametrize(
    ("one", "two"), [(["a"], ["a", None]), (np.array(["a"]), np.array(["bb", "a"])), (["a"], ["a", "long"])]
)
def test_text_is_text_whatever_holds_it(one: Any, two: Any) -> None:
    frames = pd.DataFrame({"a": one}), pd.DataFrame({"a": two})
    assert split(frames[1], [1, 1], learnt(*frames)) is not None


def test_forms_of_requests_are_told_apart_and_not_kept_for_ever() -> None:
    layouts = Layouts()
    for form in range(1000):
        assert layouts.needs(form, 2)
        layouts.saw(form, 1, [1])
        assert not layouts.needs(form, 2)
        assert layouts.needs(form, 1)
        assert layouts.saw(form, 2, [1, 2]) is not None
        assert not layouts.needs(form, 1)
    assert layouts.needs(0, 1)
    assert len(layouts._known) <= 64


def test_a_dict_keeps_its_members_order() -> None:
    results = OrderedDict(b=[1], a=[2]), OrderedDict(b=[1, 3], a=[2, 4])
    parts = split(results[1], [1, 1], learnt(*results))
    assert parts is not None
    assert [list(part.items()) for part in parts] == [[("b", [1]), ("a", [2])], [("b", [3]), ("a", [4])]]


@pytest.mark.parametrize("kind", ["coo_matrix", "bsr_matrix", "dia_matrix", "csr_matrix", "lil_matrix"])
def test_sparse_answers_are_taken_apart(kind: str) -> None:
    import scipy.sparse

    make = getattr(scipy.sparse, kind)
    rows = np.arange(6.0).reshape(3, 2)
    parts = split(make(rows), [1, 2], learnt(make(rows[:1]), make(rows[:2])))
    assert parts is not None
    assert [each.toarray().tolist() for each in parts] == [rows[:1].tolist(), rows[1:].tolist()]
