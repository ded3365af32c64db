"""The outputs of a model by its answer to its own input example."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from modelhub.serving.protocol.signature import Field, output_metadata
from modelhub.serving.workers.convert.outputs import to_outputs
from modelhub.serving.workers.convert.seen import outputs_seen

NAN = float("nan")


def column(name: str, kind: str, datatype: str, *, required: bool = True, named: bool = True) -> Field:
    return Field(name, "column", kind, datatype, (-1,), required=required, named=named)


def tensor(dtype: str, datatype: str, *shape: int) -> Field:
    return Field("output-0", "tensor", dtype, datatype, shape, named=False)


LABELS = column("output-0", "long", "INT64", named=False)
PROBABILITIES = np.full((4, 3), 1 / 3)


def said(result: Any, *fields: Field, variable: Any = ()) -> list[tuple[str, str, list[int]]]:
    seen = output_metadata(outputs_seen(result, fields, frozenset(variable)))
    return [(each["name"], each["datatype"], each["shape"]) for each in seen]


WRONG: dict[str, tuple[Any, list[Field], list[tuple[str, str, list[int]]]]] = {
    "probabilities, logged as labels": (PROBABILITIES, [LABELS], [("output-0", "FP64", [-1, 3])]),
    "their rows": (list(PROBABILITIES), [LABELS], [("output-0", "FP64", [-1, 3])]),
    "lists": (PROBABILITIES.tolist(), [tensor("int64", "INT64", -1)], [("output-0", "FP64", [-1, 3])]),
    "float labels": (np.array([1.0, 2.5]), [LABELS], [("output-0", "FP64", [-1])]),
    "single floats": (np.array([1.0, 2.5], "f4"), [LABELS], [("output-0", "FP32", [-1])]),
    "text labels": (np.array(["a", "b"]), [LABELS], [("output-0", "BYTES", [-1])]),
    "flags": ([True, False], [LABELS], [("output-0", "BOOL", [-1])]),
    "objects": ([{"a": 1}, {"b": 2}], [LABELS], [("output-0", "BYTES", [-1])]),
    "a wider tensor": (PROBABILITIES, [tensor("float64", "FP64", -1, 2)], [("output-0", "FP64", [-1, 3])]),
    "one dimension more": (np.ones((4, 1)), [tensor("float64", "FP64", -1)], [("output-0", "FP64", [-1, 1])]),
    "one dimension less": (np.ones(4), [tensor("float64", "FP64", -1, 1)], [("output-0", "FP64", [-1])]),
    "an object of several": ({"a": [0.5], "b": ["x"]}, [LABELS], [("a", "FP64", [-1]), ("b", "BYTES", [-1])]),
    "a table of several": (
        pd.DataFrame({"label": ["x"], "p": [0.5]}),
        [LABELS],
        [("label", "BYTES", [-1]), ("p", "FP64", [-1])],
    ),
    "a column by its name": (
        pd.DataFrame({"label": ["x"], "p": [0.5]}),
        [column("p", "long", "INT64"), column("label", "string", "BYTES")],
        [("p", "FP64", [-1]), ("label", "BYTES", [-1])],
    ),
    "a column more": (
        pd.DataFrame({"label": ["x"], "p": [0.5]}),
        [column("label", "string", "BYTES")],
        [("label", "BYTES", [-1]), ("p", "FP64", [-1])],
    ),
    "no outputs": (PROBABILITIES, [], [("output-0", "FP64", [-1, 3])]),
    "none of an object": ({"a": 1, "b": None}, [], [("a", "INT64", [-1]), ("b", "BYTES", [-1])]),
}


@pytest.mark.parametrize("name", WRONG)
def test_the_answer_corrects_the_signature(name: str) -> None:
    result, fields, expected = WRONG[name]
    assert said(result, *fields) == expected


@pytest.mark.parametrize("name", WRONG)
def test_and_is_what_is_promised_from_then_on(name: str) -> None:
    """The fields that were seen change neither names, nor datatypes, nor values, and are seen again."""
    result, fields, _ = WRONG[name]
    before = [(each.name, each.datatype, each.array.tolist()) for each in to_outputs(result, fields)]
    seen = outputs_seen(result, fields, frozenset())
    assert [(each.name, each.datatype, each.array.tolist()) for each in to_outputs(result, seen)] == before
    assert outputs_seen(result, seen, frozenset()) == seen


@pytest.mark.parametrize(
    ("result", "field"),
    [
        (np.array([1, 2], "i4"), LABELS),
        ([1, None], LABELS),
        ([None, None], LABELS),
        (pd.Series([1, None]), LABELS),
        ([], LABELS),
        (np.zeros((0, 3)), LABELS),
        (PROBABILITIES, tensor("float64", "FP64", -1, -1)),
        (PROBABILITIES.astype("f4"), tensor("float64", "FP64", -1, 3)),
        (np.ones((4, 3)).tolist(), tensor("float32", "FP32", -1, 3)),
        ({"a": 1}, column("output-0", "object", "BYTES", named=False)),
        ([{"a": 1}, {}], column("output-0", "any", "BYTES", named=False)),
        ({"yhat": [1.0]}, column("output-0", "double", "FP64", named=False)),
    ],
)
def test_what_fits_stays(result: Any, field: Field) -> None:
    assert outputs_seen(result, [field], frozenset()) == [field]


def test_outputs_that_this_answer_has_not_stay() -> None:
    label, note = column("label", "string", "BYTES"), column("note", "string", "BYTES", required=False)
    boxes = column("boxes", "array", "BYTES")
    assert outputs_seen({"label": ["a"]}, [boxes, label, note], frozenset()) == [boxes, label, note]
    assert outputs_seen({"other": [1]}, [boxes], frozenset()) != [boxes]


def test_a_size_that_the_inputs_may_have_otherwise_is_variable() -> None:
    assert said(np.ones((2, 7, 3)), LABELS, variable={7}) == [("output-0", "FP64", [-1, -1, 3])]
    assert said(np.ones((2, 7)), tensor("int64", "INT64", -1, -1)) == [("output-0", "FP64", [-1, -1])]


def test_later_answers_are_made_to_what_was_seen() -> None:
    (label,) = outputs_seen(np.array(["a", "b"]), [LABELS], frozenset())
    (number,) = outputs_seen([0.5, 1.5], [LABELS], frozenset())
    (thing,) = outputs_seen([{"a": 1}], [LABELS], frozenset())
    assert [(each.datatype, each.array.tolist()) for each in to_outputs([None, "b"], [label])] == [("BYTES", ["", "b"])]
    assert [(each.datatype, each.array.tolist()) for each in to_outputs([1, 2], [number])] == [("FP64", [1.0, 2.0])]
    assert to_outputs(["x", {"a": 1}], [thing])[0].array.tolist() == ['"x"', '{"a":1}']
    assert to_outputs(["x", "y"], [thing])[0].array.tolist() == ['"x"', '"y"']
