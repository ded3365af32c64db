"""The direct way into a model gives it, and its clients, exactly what pyfunc's own `predict` would."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelhub.serving.protocol.signature import Field, Signature
from modelhub.serving.workers.convert.inputs import InputAdapter
from modelhub.serving.workers.model.direct import direct_predict
from modelhub.serving.workers.model.served import ServedModel
from support.served_calls import columns, tensors

Served = Callable[[str], ServedModel]
Save = Callable[..., ServedModel]

#: What a model sees of its argument, as text.
DESCRIBE = """
frame = isinstance(model_input, pd.DataFrame)
if frame:
    seen = [(str(name), str(series.dtype), series.tolist()) for name, series in model_input.items()]
    seen += [str(model_input.index), str(model_input.columns)]
elif isinstance(model_input, dict):
    seen = [(name, str(each.dtype), each.shape, each.tolist()) for name, each in model_input.items()]
else:
    seen = (str(model_input.dtype), model_input.shape, model_input.tolist())
return repr((type(model_input).__name__, seen, params))
"""

EVERY_COLUMN = {
    "flag": np.array([True, False]),
    "small": np.array([1, -1], dtype="i4"),
    "large": np.array([1 << 40, 2]),
    "single": np.array([0.1, np.nan], dtype="f4"),
    "double": np.array([0.1, np.inf]),
    "text": np.array(["a", "ü"], dtype=object),
    "raw": np.array([b"\0a", b""], dtype=object),
    "when": np.array(["2024-01-31T12:00:00", "NaT"], dtype="datetime64[ns]"),
}
TYPES = ("boolean", "integer", "long", "float", "double", "string", "binary", "datetime")


def both(model: ServedModel, inputs: dict[str, Any], params: dict[str, Any] | None = None) -> tuple[Any, Any]:
    """What the direct way gives, and what pyfunc gives."""
    direct = direct_predict(model.model, model.signature)
    assert direct is not None
    assert direct.accepts(inputs)
    assembled = InputAdapter(model.signature).assemble
    return direct(assembled(inputs), params or {}), model.model.predict(assembled(inputs), params=params)


def test_every_column_type(save: Save) -> None:
    model = save(DESCRIBE, signature=columns(**dict(zip(EVERY_COLUMN, TYPES, strict=True))))
    ours, theirs = both(model, EVERY_COLUMN)
    assert ours == theirs
    assert "'double', 'float64'" in ours


def test_nameless_columns(save: Save) -> None:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    model = save(DESCRIBE, signature=ModelSignature(Schema([ColSpec("double"), ColSpec("long")])))
    ours, theirs = both(model, {"input-0": np.array([0.5]), "input-1": np.array([2])})
    assert ours == theirs


def test_an_optional_column_may_be_missing(save: Save) -> None:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    optional = [ColSpec("double", "a", required=False), ColSpec("long", "b"), ColSpec("string", "c", required=False)]
    model = save(DESCRIBE, signature=ModelSignature(Schema(optional)))
    ours, theirs = both(model, {"b": np.array([2])})
    assert ours == theirs


NUMBERS = ("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64")


@pytest.mark.parametrize("dtype", [*NUMBERS, "float16", "float32", "float64"])
def test_tensors(save: Save, dtype: str) -> None:
    array = np.arange(6).reshape(2, 3).astype(dtype)
    for name in (None, "x"):
        model = save(DESCRIBE, signature=tensors((dtype, (-1, 3), name)))
        ours, theirs = both(model, {name or "input-0": array})
        assert ours == theirs


def test_named_tensors(save: Save) -> None:
    model = save(DESCRIBE, signature=tensors(("float32", (-1, 2), "b"), ("int64", (-1,), "a")))
    ours, theirs = both(model, {"b": np.ones((2, 2), "f4"), "a": np.arange(2)})
    assert ours == theirs


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=4, max_size=40))
@settings(max_examples=25)
def test_sklearn(served: Served, numbers: list[float]) -> None:
    rows = len(numbers) // 4
    matrix = np.array(numbers[: rows * 4]).reshape(rows, 4)
    iris = served("iris")
    ours, theirs = both(iris, {each.name: matrix[:, at].copy() for at, each in enumerate(iris.signature.inputs)})
    assert np.array_equal(ours, theirs)
    assert ours.dtype == theirs.dtype
    ours, theirs = both(served("digits"), {"input-0": np.resize(matrix, (rows, 64))})
    assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("params", [None, {}, {"factor": 2.5}, {"factor": 2, "suffix": "!", "offset": 3}])
def test_params_and_their_defaults(served: Served, params: dict[str, Any] | None) -> None:
    ours, theirs = both(served("params"), {"value": np.array([1.0, 2.0])}, params)
    pd.testing.assert_frame_equal(ours, theirs)


@pytest.mark.parametrize("arguments", ["self, context, model_input", "self, model_input", "self, model_input, params"])
def test_every_form_of_predict(save: Save, arguments: str) -> None:
    code = DESCRIBE if "params" in arguments else DESCRIBE.replace(", params))", "))")
    model = save(code, predict=arguments, signature=tensors(("float32", (-1, 2), None)))
    ours, theirs = both(model, {"input-0": np.ones((1, 2), "f4")})
    assert ours == theirs


def test_the_context_of_traces_is_set(save: Save) -> None:
    code = "from mlflow.pyfunc.context import get_prediction_context\nreturn repr(vars(get_prediction_context()))"
    ours, theirs = both(save(code, signature=tensors(("float32", (-1,), None))), {"input-0": np.ones(1, "f4")})
    assert ours == theirs


@pytest.mark.parametrize(
    "inputs",
    [
        {"b": np.ones((2, 3), "f4")},
        {"b": np.ones((2, 2), "f8"), "a": np.arange(2)},
        {"b": np.ones((2, 3), "f4"), "a": np.arange(2)},
        {"b": np.ones((2, 2, 1), "f4"), "a": np.arange(2)},
        {"a": np.arange(2), "b": np.ones((2, 2), "f4")},
        {"b": np.ones((2, 2), "f4"), "a": np.arange(2), "c": np.arange(2)},
        {},
    ],
    ids=["missing", "dtype", "shape", "dimensions", "order", "extra", "none"],
)
def test_other_inputs_go_through_pyfunc(save: Save, inputs: dict[str, Any]) -> None:
    model = save(DESCRIBE, signature=tensors(("float32", (-1, 2), "b"), ("int64", (-1,), "a")))
    direct = direct_predict(model.model, model.signature)
    assert direct is not None
    assert not direct.accepts(inputs)


def test_unfamiliar_models_go_through_pyfunc(served: Served, save: Save) -> None:
    from mlflow.models import ModelSignature
    from mlflow.types.schema import Array, ColSpec, DataType, Schema

    hinted = save("return model_input", predict="self, model_input: list[str]")
    nested = save(DESCRIBE, signature=ModelSignature(Schema([ColSpec(Array(DataType.string), "a")])))
    for model in (served("echo"), served("datatypes"), hinted, nested):
        assert direct_predict(model.model, model.signature) is None
    assert direct_predict(object(), served("iris").signature) is None


def test_an_mlflow_that_does_more_goes_through_pyfunc(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow.pyfunc

    def predict(self: Any, data: Any, params: Any = None) -> Any:
        return self._predict(data, params).a_new_step()

    iris = served("iris")
    monkeypatch.setattr(mlflow.pyfunc.PyFuncModel, "predict", predict)
    assert direct_predict(iris.model, iris.signature) is None


@pytest.mark.parametrize("dtype", ["bool", "int32", "int64", "float32", "float64"])
@pytest.mark.parametrize("rows", [0, 1, 3])
def test_a_frame_is_what_pandas_makes(dtype: str, rows: int) -> None:
    names = {"bool": "boolean", "int32": "integer", "int64": "long", "float32": "float", "float64": "double"}
    kinds = {"bool": "BOOL", "int32": "INT32", "int64": "INT64", "float32": "FP32", "float64": "FP64"}
    fields = [Field(name, "column", names[dtype], kinds[dtype], (-1,)) for name in "cab"]
    adapter = InputAdapter(Signature(fields))
    arrays = {each.name: np.arange(rows * 2)[::2].astype(dtype) for each in fields}
    for _ in range(2):
        frame = adapter.assemble(arrays)
        pd.testing.assert_frame_equal(frame, pd.DataFrame(arrays), check_index_type="exact", check_column_type="exact")
        frame.columns.name = "changed"
        frame["c"] = 7
        frame.iloc[:, 1] = frame.iloc[:, 1]
    assert all(array.tolist() == np.arange(rows * 2)[::2].astype(dtype).tolist() for array in arrays.values())
