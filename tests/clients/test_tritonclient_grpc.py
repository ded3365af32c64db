"""The unmodified tritonclient over gRPC, its streams and its asyncio form, against the warm gateway."""

from __future__ import annotations

import re
from typing import Any

import pytest
from client_scripts import answers_of
from gateway_process import Gateway

SUM, DIFFERENCE = [11.0, 22.0, 33.0], [-9.0, -18.0, -27.0]

RESULTS: dict[str, Any] = {
    "live": True,
    "ready": True,
    "model_ready": [True, True],
    "statistics": ["pair", True],
    "id_and_outputs": ["request 7", "pair", ["difference"], DIFFERENCE],
    "parameters": [[4.0, 5.0], ["4!", "5!"]],
    "every_datatype": [],
    "compression": [SUM, SUM],
    "priority_and_timeout": SUM,
    "large_tensor": True,
    "asynchronous": [True, SUM],
    "stream": ["0", "1", "ValueError: operands could not"[:30], "3"],
    "asyncio_client": [True, SUM],
}

#: The status that the client raises as text, and a pattern that the message must match.
ERRORS = {
    "error_unknown_model": ("NOT_FOUND", "nosuch"),
    "error_unknown_version": ("NOT_FOUND", "99"),
    "error_not_ready_of_unknown_model": ("NOT_FOUND", "nosuch"),
    "error_shape": ("INVALID_ARGUMENT", "shape"),
    "error_unknown_output": ("INVALID_ARGUMENT", "product"),
    "error_in_the_model": ("INTERNAL", "ValueError.*broadcast"),
}

#: Looked at by tests of their own.
OTHERS = {"server_metadata", "model_metadata", "model_config", "repository_index"}


@pytest.fixture(scope="module")
def answers(shared_gateway: Gateway) -> dict[str, dict[str, Any]]:
    return answers_of("tritonclient", shared_gateway.grpc_url, "tritonclient_grpc")


def test_every_case_is_looked_at(answers: dict[str, Any]) -> None:
    assert set(answers) == {f"case_{name}" for name in (*RESULTS, *ERRORS, *OTHERS)}


@pytest.mark.parametrize("case", RESULTS)
def test_result(answers: dict[str, dict[str, Any]], case: str) -> None:
    assert answers[f"case_{case}"] == {"result": RESULTS[case]}


@pytest.mark.parametrize("case", ERRORS)
def test_error(answers: dict[str, dict[str, Any]], case: str) -> None:
    status, pattern = ERRORS[case]
    answer = answers[f"case_{case}"]
    assert answer.get("status") == f"StatusCode.{status}", answer
    assert re.search(pattern, answer["message"]), answer


def test_metadata_and_configuration(answers: dict[str, dict[str, Any]], shared_gateway: Gateway) -> None:
    """tritonclient reads our messages with field numbers of its own: names and values must agree."""
    server, rest = answers["case_server_metadata"]["result"], shared_gateway.get("/v2").json()
    assert set(server.pop("extensions")) == {*rest.pop("extensions"), "schedule_policy"}
    assert server == rest
    metadata = answers["case_model_metadata"]["result"]
    tensors = [{"name": name, "datatype": "FP32", "shape": ["-1"]} for name in ("left", "right", "sum", "difference")]
    assert [metadata["inputs"], metadata["outputs"]] == [tensors[:2], tensors[2:]]
    config = answers["case_model_config"]["result"]["config"]
    assert (config["name"], config["platform"], config["backend"]) == ("iris", "mlflow_sklearn", "mlflow")
    assert config["input"][0] == {"name": "sepal_length", "data_type": "TYPE_FP64", "dims": ["-1"]}
    assert config["instance_group"] == [{"name": "iris", "kind": "KIND_CPU", "count": 1}]
    assert answers["case_repository_index"]["result"] == sorted(shared_gateway.get("/v2/models").json()["models"])
