"""The unmodified tritonclient, HTTP and its asyncio form, against the warm gateway."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from client_scripts import answers_of
from gateway_process import Gateway

SUM, DIFFERENCE = [11.0, 22.0, 33.0], [-9.0, -18.0, -27.0]
BOTH_WAYS = [f"in {a}, out {b}" for a in (False, True) for b in (False, True)]
CODINGS = ("None", "gzip", "deflate")

RESULTS: dict[str, Any] = {
    "live": True,
    "ready": True,
    "model_ready": [True, True, False, False],
    "parameters": [[4.0, 5.0], ["4!", "5!"]],
    "every_datatype": {way: [] for way in BOTH_WAYS},
    "bfloat16": [[1.5, -2.0, 3.25]],
    "compression": {f"{request} {response}": SUM for request in CODINGS for response in CODINGS},
    "requested_outputs": [["difference", True], ["sum", False]],
    "all_outputs_are_binary_when_none_is_named": [[False, 12], [False, 12]],
    "version": SUM,
    "priority_and_timeout": SUM,
    "large_tensor": True,
    "empty_tensor": [0, 4],
    "many_at_once": [float(number) for number in range(64)],
    "asyncio_client": [True, SUM],
    "columns": {"id": "flower 1", "model": "iris", "data": [2, 2]},
    "strings": {binary: [["positive", "negative"], "float64"] for binary in ("False", "True")},
}

#: The status that the client raises as text, and a pattern that the message must match.
ERRORS = {
    "error_unknown_model": ("404", "nosuch"),
    "error_unknown_version": ("404", "99"),
    "error_metadata_of_unknown_model": ("404", "nosuch"),
    "error_shape": ("400", "shape|dimension"),
    "error_unknown_input": ("400", "middle"),
    "error_unknown_output": ("400", "product"),
    "error_in_the_model": ("500", "ValueError.*broadcast"),
}

#: Looked at by tests of their own.
OTHERS = {"server_metadata", "model_metadata", "repository_index"}


@pytest.fixture(scope="module")
def answers(shared_gateway: Gateway) -> dict[str, dict[str, Any]]:
    return answers_of("tritonclient", shared_gateway.url)


def test_every_case_is_looked_at(answers: dict[str, Any]) -> None:
    assert set(answers) == {f"case_{name}" for name in (*RESULTS, *ERRORS, *OTHERS)}


@pytest.mark.parametrize("case", RESULTS)
def test_result(answers: dict[str, dict[str, Any]], case: str) -> None:
    assert answers[f"case_{case}"] == {"result": RESULTS[case]}


@pytest.mark.parametrize("case", ERRORS)
def test_error(answers: dict[str, dict[str, Any]], case: str) -> None:
    status, pattern = ERRORS[case]
    answer = answers[f"case_{case}"]
    assert answer.get("status") == status, answer
    assert re.search(pattern, answer["message"]), answer


def test_server_metadata(answers: dict[str, dict[str, Any]]) -> None:
    metadata = answers["case_server_metadata"]["result"]
    assert metadata["name"]
    assert metadata["version"]
    assert "binary_tensor_data" in metadata["extensions"]


def test_model_metadata(answers: dict[str, dict[str, Any]]) -> None:
    pair, iris = answers["case_model_metadata"]["result"]
    tensors = [{"name": name, "datatype": "FP32", "shape": [-1]} for name in ("left", "right", "sum", "difference")]
    assert {key: pair[key] for key in ("name", "versions")} == {"name": "pair", "versions": ["1"]}
    assert [pair["inputs"], pair["outputs"]] == [tensors[:2], tensors[2:]]
    assert pair["platform"].startswith("mlflow")
    names = ("sepal_length", "sepal_width", "petal_length", "petal_width")
    assert [(each["name"], each["datatype"]) for each in iris["inputs"]] == [(name, "FP64") for name in names]


def test_repository_index(answers: dict[str, dict[str, Any]], shared_gateway: Gateway) -> None:
    index = answers["case_repository_index"]["result"]
    assert {entry["name"] for entry in index} == set(json.loads(shared_gateway.get("/v2/models").body)["models"])
    assert {entry["state"] for entry in index} == {"READY"}
