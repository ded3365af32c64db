"""No door drops a part of a body in silence: it is taken, or refused with what to do about it."""

from __future__ import annotations

from typing import Any

import pytest

from modelhub.serving.protocol.signature import Param
from modelhub.serving.workers.model.served import ServedModel
from support.files import column, form, keeping, pdf_file, send, tensor
from support.v2_client import binary_request

A, B = column("double", "a"), column("double", "b")
PRICE, NAME = column("double", "price", required=False), column("string", "name", required=False)


def with_params(*inputs: dict[str, Any]) -> tuple[ServedModel, Any]:
    model, kept = keeping(*inputs)
    model.signature.params.append(Param("top_k", "long", 1))
    model.__post_init__()
    return model, kept


# ---- fields ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"data": [{"a": 1}]}, "infer"),
        ({"instances": [{"a": 1}]}, "v1_predict"),
        ({"dataframe_records": [{"a": 1}]}, "invocations"),
    ],
)
def test_a_parameter_beside_the_rows_is_refused_and_says_where_it_goes(
    mlflow_imported: None, body: dict[str, Any], kind: str
) -> None:
    model, _ = with_params(column("double", "a"))
    status, answer = send(model, {**body, "top_k": 7}, kind=kind)
    assert status in (0, 400)
    wanted = "the request has the field 'top_k', which nothing reads: the model's parameters go into \"params\""
    assert answer["error"] == wanted


@pytest.mark.parametrize("name", ["params", "parameters"])
@pytest.mark.parametrize(("body", "kind"), [({"data": [{"a": 1}]}, "infer"), ({"instances": [{"a": 1}]}, "v1_predict")])
def test_params_and_parameters_are_the_same(name: str, body: dict[str, Any], kind: str) -> None:
    model, kept = with_params(column("double", "a"))
    assert send(model, {**body, name: {"top_k": 7}}, kind=kind)[0] == 200
    assert kept.params == {"top_k": 7}
    status, answer = send(model, {**body, "params": {"top_k": 7}, "parameters": {"top_k": 8}}, kind=kind)
    assert (status, "it has the fields params and parameters" in str(answer)) in ((400, True), (0, True))
    assert send(model, {**body, name: {"top_k": None}}, kind=kind)[0] == 200
    assert kept.params is None


@pytest.mark.parametrize(("body", "kind"), [({"data": [{"a": 1}]}, "infer"), ({"instances": [{"a": 1}]}, "v1_predict")])
def test_a_model_without_parameters_takes_none(body: dict[str, Any], kind: str) -> None:
    status, answer = send(keeping(column("double", "a"))[0], {**body, "params": {"top_k": 7}}, kind=kind)
    assert status in (0, 400)
    assert "the model has no parameter 'top_k'" in str(answer)
    assert send(keeping(column("double", "a"))[0], {**body, "params": {}}, kind=kind)[0] == 200


V2 = {"inputs": [{"name": "a", "datatype": "FP64", "shape": [1], "data": [1]}]}
#: What clients of V2 send of themselves, whatever the model: tritonclient's reserved names, and MLServer's codecs'.
OF_THE_PROTOCOL = {
    "binary_data_output": False,
    "content_type": "pd",
    "headers": "x",
    "priority": 1,
    "sequence_end": False,
    "sequence_id": 7,
    "sequence_start": True,
    "timeout": 1_000_000,
    "triton_enable_empty_final_response": True,
}


@pytest.mark.parametrize("kind", ["infer", "stream"])
def test_a_v2_request_gives_a_model_without_parameters_those_of_the_protocol_alone(kind: str) -> None:
    model, _ = keeping(column("double", "a"))
    assert send(model, {**V2, "parameters": OF_THE_PROTOCOL}, kind=kind)[0] == 200
    assert send(model, {**V2, "parameters": {"top_k": None}}, kind=kind)[0] == 200
    for parameters in ({"top_k": 7}, {**OF_THE_PROTOCOL, "top_k": 7}, {"timeout_ms": 5}):
        status, answer = send(model, {**V2, "parameters": parameters}, kind=kind)
        assert (status, "its signature has none at all" in str(answer)) == (0, True)


def test_a_binary_request_too() -> None:
    model, _ = keeping(column("double", "a"))
    tensor_ = {"name": "a", "datatype": "FP64", "shape": [1], "data": [1.0]}
    for parameters, expected in ((OF_THE_PROTOCOL, 200), ({"top_k": 7}, 0)):
        body, size = binary_request(tensor_, parameters=parameters)
        assert send(model, body, json_size=size)[0] == expected


def test_a_text_to_generate_from_too() -> None:
    model, _ = keeping(column("string", "text"))
    for parameters, expected in (({"stream": True, "seed": None}, 200), ({"max_tokens": 7}, 0)):
        assert send(model, {"text_input": "x", "parameters": parameters}, kind="generate")[0] == expected


@pytest.mark.parametrize(
    ("inputs", "body", "word"),
    [
        ([column("string", "review")], {"text": "x", "other": 1}, "'other', which nothing reads"),
        ([column("string", "review")], {"text": "x", "review": "y"}, "the input 'review' twice"),
        ([column("string", "review")], {"text": "x", "param": {}}, "did you mean 'params'"),
        ([column("double", "a")], {"data": [[1]], "inference_type": "tabular"}, "inference_type goes into the address"),
        ([], {"text": "x", "other": 1}, "the model takes no parameters"),
        ([tensor("float64", -1, 2)], {"data": [[1, 2]], "b": 1}, "'b', which nothing reads"),
    ],
)
def test_a_field_that_nothing_reads_is_refused(inputs: list[Any], body: dict[str, Any], word: str) -> None:
    status, answer = send(keeping(*inputs)[0], body)
    assert status in (0, 400)
    assert word in str(answer)


def test_what_is_read_is_not_refused() -> None:
    model, kept = keeping(column("string", "text"), column("long", "n"))
    assert send(model, {"text": "x", "n": 3, "image": None, "other": None})[0] == 200
    assert kept.got["n"].tolist() == [3]
    model, _ = keeping(column("binary", "document"), column("long", "n"))
    assert send(model, *form(("file", pdf_file("red"), "a.pdf"), ("n", "3")))[0] in (200, 400)
    model, _ = keeping(column("string", "text"))
    assert send(model, {"text": "x", "image": "AAAA"}, query={"inference_type": "text"})[0] == 200


def test_v1_says_which_signature_there_is() -> None:
    body = {"instances": [{"a": 1}], "signature_name": "serving_default"}
    assert send(keeping(column("double", "a"))[0], body, kind="v1_predict")[0] == 200
    status, answer = send(keeping(column("double", "a"))[0], {**body, "signature_name": "mine"}, kind="v1_predict")
    assert (status, "the model has one signature" in answer["error"]) == (0, True)


# ---- tables in two parts ---------------------------------------------------------------------------


def test_a_table_in_two_parts_goes_by_its_columns() -> None:
    body = {"columns": ["b", "a"], "data": [[1, 2], [3, 4]]}
    model, kept = keeping(A, B)
    assert send(model, body)[0] == 200
    assert kept.got.to_dict("list") == {"a": [2.0, 4.0], "b": [1.0, 3.0]}
    assert send(model, {**body, "index": [0, 1]})[0] == 200
    model, kept = keeping()
    assert send(model, body)[0] == 200
    assert kept.got.to_dict("list") == {"b": [1, 3], "a": [2, 4]}
    model, kept = keeping(tensor("float64", -1, 2))
    assert send(model, body)[0] == 200
    assert kept.got.tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"columns": ["b", "c"]}, "the column 'a' is missing in record 0"),
        ({"columns": ["a"]}, "must be a list of 1 values"),
        ({"columns": ["a", "a"]}, "a list of different names"),
        ({"columns": "ab"}, "a list of different names"),
        ({"data": [{"a": 1, "b": 2}]}, "must be a list of 2 values"),
        ({"index": [7, 8]}, '"index" is not given to a model'),
        ({"columns": None, "index": [0, 1]}, '"index" is not given to a model'),
    ],
)
def test_a_table_in_two_parts_that_do_not_fit(change: dict[str, Any], word: str) -> None:
    status, answer = send(keeping(A, B)[0], {"columns": ["b", "a"], "data": [[1, 2], [3, 4]], **change})
    assert (status, word in answer["message"]) == (400, True), answer


# ---- columns ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "content_type", "kind"),
    [
        ({"data": [{"price": 1, "nmae": "x"}]}, "application/json", "infer"),
        ({"data": [{"price": 1, "name": "y"}, {"price": 1, "nmae": "x"}]}, "application/json", "infer"),
        ({"columns": ["price", "nmae"], "data": [[1, "x"]]}, "application/json", "infer"),
        ({"instances": [{"price": 1, "nmae": "x"}]}, "application/json", "v1_predict"),
        (b"price,nmae\n1,x\n", "text/csv", "infer"),
        (b"price,nmae\n1,x\n", "text/csv", "invocations"),
        ({"dataframe_records": [{"price": 1, "nmae": "x"}]}, "application/json", "invocations"),
        ({"dataframe_split": {"columns": ["price", "nmae"], "data": [[1, "x"]]}}, "application/json", "invocations"),
    ],
)
def test_a_misspelt_optional_column_is_refused(mlflow_imported: None, body: Any, content_type: str, kind: str) -> None:
    status, answer = send(keeping(PRICE, NAME)[0], body, content_type, kind=kind)
    assert status in (0, 400)
    assert "has the field 'nmae', which is no column: did you mean 'name'?" in str(answer)


def test_a_record_of_nothing_that_is_a_column_is_refused() -> None:
    status, answer = send(keeping(PRICE, NAME)[0], {"data": [{"cost": 1}]})
    assert (status, "has the field 'cost', which is no column" in answer["message"]) == (400, True)


def test_columns_that_are_like_no_other_are_left_out() -> None:
    model, kept = keeping(PRICE, NAME)
    assert send(model, {"data": [{"price": 1, "row_id": 7}]})[0] == 200
    assert list(kept.got.columns) == ["price"]
