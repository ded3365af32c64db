"""Real MLflow models end to end: a client's bytes in, an answer's bytes out."""

from __future__ import annotations

import gzip
import time
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from modelhub.serving.protocol.errors import (
    InvalidRequest,
    ModelError,
    NotSupported,
    TooLarge,
    UnsupportedMediaType,
)
from modelhub.serving.protocol.messages import InferRequest
from modelhub.serving.workers.model.served import ServedModel
from support.served_calls import ask, columns, outputs, tensors
from support.v2_client import Tensor, binary_request, parse, request, tensor

Served = Callable[[str], ServedModel]
Save = Callable[..., ServedModel]

IRIS = {"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}


def iris(**changes: dict[str, Any]) -> list[dict[str, Any]]:
    return [{**tensor(name, "FP64", [1], [value]), **changes.get(name, {})} for name, value in IRIS.items()]


# ---- columns -------------------------------------------------------------------------------------


def test_columns(served: Served) -> None:
    answer = ask(served("iris"), request(*iris(), id="a/ü"))
    document, found = parse(bytes(answer.body))
    assert (answer.content_type, answer.status, answer.rows) == ("application/json", 0, 1)
    assert {key: document[key] for key in ("model_name", "model_version", "id")} == {
        "model_name": "iris",
        "model_version": "3",
        "id": "a/ü",
    }
    assert found == {"output-0": Tensor("INT64", [1], [0])}


def test_metadata(served: Served) -> None:
    assert served("iris").metadata == {
        "platform": "mlflow_sklearn",
        "inputs": [{"name": name, "datatype": "FP64", "shape": [-1]} for name in IRIS],
        "outputs": [{"name": "output-0", "datatype": "INT64", "shape": [-1]}],
    }
    assert {"mlflow", "numpy", "pandas", "sklearn"} <= served("iris").versions.keys()


@pytest.mark.parametrize(
    "inputs",
    [
        iris()[::-1],
        iris(sepal_width={"datatype": "INT64", "data": [3]}, petal_width={"shape": [1, 1], "data": [[0.2]]}),
        [tensor("input-0", "FP64", [1, 4], list(IRIS.values()))],
        [tensor("X", "FP32", [1, 4], [list(IRIS.values())])],
    ],
    ids=["another order", "exact casts", "one matrix", "one matrix of any name"],
)
def test_other_ways_to_send_columns(served: Served, inputs: list[dict[str, Any]]) -> None:
    assert outputs(served("iris"), *inputs)["output-0"].data == [0]


@pytest.mark.parametrize(
    ("inputs", "named"),
    [
        (iris()[1:], "sepal_length"),
        (iris(sepal_length={"name": "sepal_lenght"}), "did you mean 'sepal_length'"),
        ([*iris(), tensor("petal_widht", "FP64", [1], [1])], "did you mean 'petal_width'"),
        (iris(sepal_width={"shape": [2], "data": [1, 2]}), "sepal_width"),
        (iris(sepal_width={"shape": [1, 2], "data": [1, 2]}), "sepal_width"),
        (iris(sepal_width={"shape": []}), "sepal_width"),
        (iris(sepal_width={"datatype": "INT64", "data": [2**53 + 1]}), "FP64"),
        (iris(sepal_width={"datatype": "BYTES", "data": ["1"]}), "FP64: not BYTES"),
        (iris(sepal_width={"datatype": "BOOL", "data": [True]}), "FP64: not BOOL"),
        ([tensor("input-0", "FP64", [1, 3], [1, 2, 3])], "input-0"),
    ],
)
def test_what_does_not_fit_the_signature(served: Served, inputs: list[dict[str, Any]], named: str) -> None:
    with pytest.raises(InvalidRequest, match=named):
        ask(served("iris"), request(*inputs))


def test_no_rows(save: Save) -> None:
    model = save("return model_input * 2", signature=columns(a="double"))
    assert outputs(model, tensor("a", "FP64", [0], [])) == {"a": Tensor("FP64", [0], [])}


# ---- tensors -------------------------------------------------------------------------------------


def test_tensor_signature(served: Served) -> None:
    from sklearn.datasets import load_digits

    pixels, digits = load_digits(return_X_y=True)
    flat = (pixels[:5] / 16).ravel().tolist()
    found = outputs(served("digits"), tensor("anything", "FP64", [5, 64], flat))
    assert found["output-0"] == Tensor("INT64", [5], digits[:5].tolist())


def test_binary_both_ways(served: Served) -> None:
    body, json_size = binary_request(
        tensor("left", "FP32", [3], [1.5, 2.5, 1e30]),
        tensor("right", "FP32", [3], [0.5, 1.0, 1e30]),
        outputs=[{"name": "difference", "parameters": {"binary_data": True}}, {"name": "sum"}],
    )
    answer = ask(served("pair"), memoryview(body), json_size)  # type: ignore[arg-type]
    assert answer.content_type == "application/octet-stream"
    document, found = parse(bytes(answer.body), answer.json_size)
    assert list(found) == ["difference", "sum"]
    assert found["difference"] == Tensor("FP32", [3], [1.0, 1.5, 0.0])
    assert found["sum"].data == [2.0, 3.5, 2e30]
    assert "data" not in document["outputs"][0]


def test_raw_request(served: Served) -> None:
    pixels = np.zeros((2, 64))
    answer = ask(served("digits"), pixels.tobytes(), 0, content_type="application/octet-stream")
    assert answer.json_size
    assert parse(bytes(answer.body), answer.json_size)[1]["output-0"].shape == [2]


def test_raw_request_of_a_text(served: Served) -> None:
    answer = ask(served("sentiment"), b"a wonderful day", 0, content_type="application/octet-stream")
    assert parse(bytes(answer.body), answer.json_size)[1]["label"].data == [b"positive"]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([tensor("left", "FP32", [1], [1])], "'right' is missing"),
        ([tensor("left", "FP32", [1], [1]), tensor("rigth", "FP32", [1], [1])], "did you mean 'right'"),
        ([tensor("left", "FP32", [1, 2], [1, 2]), tensor("right", "FP32", [1], [1])], "shape"),
        ([tensor("left", "FP64", [1], [0.1]), tensor("right", "FP32", [1], [1])], "takes FP32"),
    ],
)
def test_tensors_that_do_not_fit(served: Served, inputs: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        ask(served("pair"), request(*inputs))


def test_models_may_write_to_their_input(save: Save) -> None:
    """Binary tensors are views of the request's body, which nobody may change."""
    model = save("model_input += 1\nreturn model_input", signature=tensors(("float32", (-1, 2), None)))
    body, json_size = binary_request(tensor("x", "FP32", [1, 2], [1, 2]))
    before = bytes(body)
    assert parse(bytes(ask(model, body, json_size).body))[1]["output-0"].data == [2.0, 3.0]
    assert body == before


# ---- text, params, dicts, NaN --------------------------------------------------------------------


@pytest.mark.parametrize("binary", [False, True])
def test_text_in_labels_and_probabilities_out(served: Served, binary: bool) -> None:
    texts = ["what a wonderful day", "awful, I hate it"]
    if binary:
        body, json_size = binary_request(tensor("text", "BYTES", [2], [each.encode() for each in texts]))
    else:
        body, json_size = request(tensor("text", "BYTES", [2, 1], texts)), None
    found = parse(bytes(ask(served("sentiment"), body, json_size).body))[1]
    assert found["label"] == Tensor("BYTES", [2], [b"positive", b"negative"])
    assert found["probability"].datatype == "FP64"
    assert all(0.5 < each <= 1 for each in found["probability"].data)


def test_text_that_is_no_utf8(served: Served) -> None:
    body, json_size = binary_request(tensor("text", "BYTES", [1], [b"\xff"]))
    with pytest.raises(InvalidRequest, match="UTF-8"):
        ask(served("sentiment"), body, json_size)


def test_params_reach_the_model(served: Served) -> None:
    value = tensor("value", "FP64", [2], [1, 2])
    parameters = {"factor": 2, "suffix": " kg", "binary_data_output": False, "priority": 1}
    found = outputs(served("params"), value, parameters=parameters)
    assert found == {"value": Tensor("FP64", [2], [2.0, 4.0]), "label": Tensor("BYTES", [2], [b"2 kg", b"4 kg"])}
    assert outputs(served("params"), value)["value"].data == [1.0, 2.0]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"offset": 1.5}, "'offset' must be a long"),
        ({"offset": 2**63}, "'offset' must be a long"),
        ({"factor": "2"}, "'factor' must be a double"),
        ({"factor": True}, "'factor' must be a double"),
        ({"suffix": 1}, "'suffix' must be a string"),
        ({"faktor": 2}, "did you mean 'factor'"),
    ],
)
def test_wrong_params(served: Served, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        outputs(served("params"), tensor("value", "FP64", [1], [1]), parameters=parameters)


def test_lists_as_params(save: Save) -> None:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

    model = save(
        "return {'stop': params['stop']}",
        signature=ModelSignature(
            Schema([ColSpec(DataType.double, "a")]),
            params=ParamSchema([ParamSpec("stop", DataType.string, ["."], shape=(-1,))]),
        ),
    )
    a = tensor("a", "FP64", [1], [1])
    assert outputs(model, a, parameters={"stop": '["x", "y"]'})["stop"].data == [b"x", b"y"]
    assert outputs(model, a)["stop"].data == [b"."]
    for wrong in ("x", "[1]", '"x"', 3):
        with pytest.raises(InvalidRequest, match="stop"):
            outputs(model, a, parameters={"stop": wrong})


def test_a_dict_of_many_kinds(save: Save) -> None:
    model = save("return {'scores': np.array([[0.5, 0.25]], 'f4'), 'label': 'cat', 'extra': {'a': [1, None]}}")
    assert outputs(model, tensor("x", "FP32", [1], [1])) == {
        "scores": Tensor("FP32", [1, 2], [0.5, 0.25]),
        "label": Tensor("BYTES", [1], [b"cat"]),
        "extra": Tensor("BYTES", [1], [b'{"a":[1,null]}']),
    }


def test_nan_and_infinity(save: Save) -> None:
    model = save("return pd.DataFrame({'y': model_input['x'] / 0.0})", signature=columns(x="double"))
    inputs = tensor("x", "FP64", [4], [1, -1, 0, None])
    assert outputs(model, inputs)["y"].data == [None, None, None, None]
    answer = ask(model, request(inputs, parameters={"binary_data_output": True}))
    first, second, *rest = parse(bytes(answer.body), answer.json_size)[1]["y"].data
    assert (first, second) == (float("inf"), float("-inf"))
    assert all(each != each for each in rest)


# ---- errors --------------------------------------------------------------------------------------


def test_the_models_own_exception(save: Save) -> None:
    model = save("raise KeyError('no such thing')")
    with pytest.raises(ModelError, match="KeyError: 'no such thing'") as caught:
        outputs(model, tensor("x", "FP32", [1], [1]))
    assert isinstance(caught.value.__cause__, KeyError)


def test_exceptions_in_a_generator_are_the_models_too(save: Save) -> None:
    model = save("return (1 / each for each in (1, 0))")
    with pytest.raises(ModelError, match="ZeroDivisionError"):
        outputs(model, tensor("x", "FP32", [1], [1]))


def test_an_mlflow_exception_of_the_models_own(save: Save) -> None:
    model = save("raise mlflow.exceptions.MlflowException('the tracking server is gone')")
    with pytest.raises(ModelError, match="tracking server"):
        outputs(model, tensor("x", "FP32", [1], [1]))


def test_an_unknown_output(served: Served) -> None:
    with pytest.raises(InvalidRequest, match="did you mean 'label'"):
        outputs(served("sentiment"), tensor("text", "BYTES", [1], ["a"]), outputs=[{"name": "labels"}])


def test_requested_outputs_keep_their_order(served: Served) -> None:
    asked = [{"name": "probability"}, {"name": "label"}]
    assert list(outputs(served("sentiment"), tensor("text", "BYTES", [1], ["a"]), outputs=asked)) == [
        "probability",
        "label",
    ]


def test_unknown_kinds(served: Served) -> None:
    with pytest.raises(NotSupported, match="nobody"):
        served("iris").decode(InferRequest(id=1, kind="nobody"), b"{}")


def test_media_types(served: Served) -> None:
    with pytest.raises(UnsupportedMediaType):
        ask(served("iris"), request(*iris()), content_type="application/xml")
    ask(served("iris"), b" \n" + request(*iris()), content_type="application/x-www-form-urlencoded")


# ---- compression, deadlines ----------------------------------------------------------------------


@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_compressed_binary_both_ways(served: Served, encoding: str, pack: Callable[[bytes], bytes]) -> None:
    """The lengths of the JSON parts are those of the bodies before compression, as tritonclient has it."""
    left, right = ([float(each) for each in range(500)] for _ in range(2))
    body, json_size = binary_request(
        tensor("left", "FP32", [500], left),
        tensor("right", "FP32", [500], right),
        parameters={"binary_data_output": True},
    )
    answer = ask(served("pair"), pack(body), json_size, content_encoding=encoding, accept_encoding=encoding)
    assert answer.content_encoding == encoding
    plain = zlib.decompress(answer.body, wbits=47)
    assert parse(plain, answer.json_size)[1]["difference"].data == [0.0] * 500


def test_small_answers_are_not_compressed(served: Served) -> None:
    answer = ask(served("iris"), request(*iris()), accept_encoding="gzip")
    assert answer.content_encoding == ""
    parse(bytes(answer.body))


def test_bombs(save: Save) -> None:
    model = save("return 1")
    model.max_inflated = 1000
    with pytest.raises(TooLarge):
        ask(model, gzip.compress(bytes(2000)), content_encoding="gzip")


def test_deadlines(served: Served) -> None:
    now = time.monotonic()

    def deadline(parameters: dict[str, Any], **header: float) -> float:
        body = request(*iris(), parameters=parameters)
        return served("iris").decode(InferRequest(id=1, **header), body).deadline

    assert deadline({}) == 0
    assert deadline({"timeout": 0}, deadline=now + 9, received=now) == now + 9
    assert deadline({"timeout": 250_000}, received=now) == pytest.approx(now + 0.25)
    assert deadline({"timeout": 250_000}, received=now, deadline=now + 0.1) == now + 0.1
    assert deadline({"timeout": 250_000}, received=now, deadline=now + 1) == pytest.approx(now + 0.25)
    for wrong in (-1, 1.5, True, "1"):
        with pytest.raises(InvalidRequest, match="timeout"):
            deadline({"timeout": wrong})


# ---- what a batcher needs ------------------------------------------------------------------------


def test_calls_that_belong_together(served: Served) -> None:
    model = served("params")

    def call(body: bytes) -> Any:
        return model.decode(InferRequest(id=1), body)

    one = call(request(tensor("value", "FP64", [1], [1]), parameters={"factor": 2}))
    two = call(request(tensor("value", "INT64", [2, 1], [2, 3]), parameters={"factor": 2}, id="x"))
    other = call(request(tensor("value", "FP64", [1], [1]), parameters={"factor": 3}))
    assert one.group_key() == two.group_key() != other.group_key()
    assert (one.rows, two.rows) == (1, 2)
    one.inputs = {"value": np.concatenate([one.inputs["value"], two.inputs["value"]])}
    result = model.predict(one)
    assert isinstance(result, pd.DataFrame)
    assert result["value"].tolist() == [2.0, 4.0, 6.0]
