"""Unmodified clients against the warm gateway: tritonclient and the KServe SDK over REST and gRPC, MLServer's codecs.

One run of a client's script asks everything; each of its answers is a test.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from support.client_scripts import answers_of
from support.gateway_process import Gateway

Asked = Callable[[str], dict[str, dict[str, Any]]]

SUM, DIFFERENCE = [11.0, 22.0, 33.0], [-9.0, -18.0, -27.0]
PAIR = ["request 7", "pair", {"sum": SUM, "difference": DIFFERENCE}]
BOTH_WAYS = [f"in {a}, out {b}" for a in (False, True) for b in (False, True)]
CODINGS = ("None", "gzip", "deflate")


@dataclass(frozen=True)
class Client:
    """What the cases of one script come to, without their prefix `case_`."""

    environment: str
    results: dict[str, Any]
    #: The status or code as the client says it, and a pattern for its message.
    errors: dict[str, tuple[Any, str]]
    #: Looked at by tests of their own.
    others: tuple[str, ...] = ()


CLIENTS = {
    "tritonclient": Client(
        "tritonclient",
        {
            "live": True,
            "ready": True,
            "model_ready": [True, True, False, False],
            "metadata_of_a_version": ["sepal_length", "sepal_width", "petal_length", "petal_width"],
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
        },
        {
            "error_unknown_model": ("404", "nosuch"),
            "error_unknown_version": ("404", "99"),
            "error_metadata_of_unknown_model": ("404", "nosuch"),
            "error_shape": ("400", "shape|dimension"),
            "error_unknown_input": ("400", "middle"),
            "error_unknown_output": ("400", "product"),
            "error_in_the_model": ("500", "ValueError.*broadcast"),
        },
        ("server_metadata", "model_metadata", "repository_index"),
    ),
    "tritonclient_grpc": Client(
        "tritonclient",
        {
            "live": True,
            "ready": True,
            "model_ready": [True, True, False, False],
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
        },
        {
            "error_unknown_model": ("StatusCode.NOT_FOUND", "nosuch"),
            "error_unknown_version": ("StatusCode.NOT_FOUND", "99"),
            "error_shape": ("StatusCode.INVALID_ARGUMENT", "shape"),
            "error_unknown_output": ("StatusCode.INVALID_ARGUMENT", "product"),
            "error_in_the_model": ("StatusCode.INTERNAL", "ValueError.*broadcast"),
        },
        ("server_metadata", "model_metadata", "model_config", "repository_index"),
    ),
    "kserve": Client(
        "kserve",
        {
            "live": True,
            "ready": True,
            "model_ready": [True, False],
            "json": PAIR,
            "binary": PAIR[2],
            "requested_outputs": {"difference": DIFFERENCE, "sum": SUM},
            "dictionary": {"value": [3.0, 4.0], "label": ["3!", "4!"]},
            "every_datatype": {"True": [], "False": []},
        },
        # The client's own text holds ours only if our content type is exact.
        {
            "error_unknown_model": (404, "nosuch.*'404 Not Found'"),
            "error_shape": (400, "(shape|dimension).*'400 Bad Request'"),
            "error_in_the_model": (500, "ValueError.*broadcast.*'500 Internal Server Error'"),
        },
    ),
    "kserve_grpc": Client(
        "kserve",
        {
            "live": True,
            "ready": True,
            "model_ready": True,
            "raw": PAIR,
            "typed": PAIR,
            "strings": [["positive", "negative"]] * 2,
        },
        {
            "error_unknown_model": ("NOT_FOUND", "nosuch"),
            "error_shape": ("INVALID_ARGUMENT", "shape"),
            "error_in_the_model": ("INTERNAL", "ValueError.*broadcast"),
        },
    ),
    "mlserver": Client(
        "mlserver",
        {
            "numpy": ["float32", [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]],
            "vector": {"sum": [2.0, 4.0, 6.0], "difference": [0.0, 0.0, 0.0]},
            "every_datatype": [],
            "pandas": {"output-0": [0, 2]},
            "pandas_strings": [["positive", "negative"], "float64"],
            "strings": ["", "naïve ☃ 🎉", 'quote " and \\ and \n'],
            "bytes": ["ff00", "", "61"],
            "datetimes": ["2024-02-29T12:30:00"],
            "id_outputs_and_parameters": ["request 7", "params", ["value"], [4.0, 5.0]],
            "metadata": ["modelhub-serving", "pair", ["left", "right"], ["sum", "difference"]],
        },
        {
            "error_unknown_model": (404, "nosuch"),
            "error_unknown_input": (400, "middle"),
        },
    ),
}


@pytest.fixture(scope="module")
def asked(shared_gateway: Gateway) -> Asked:
    """The answers to a script's cases; it runs when the first of them is looked at."""
    known: dict[str, dict[str, dict[str, Any]]] = {}

    def ask(script: str) -> dict[str, dict[str, Any]]:
        if script not in known:
            url = shared_gateway.grpc_url if script.endswith("_grpc") else shared_gateway.url
            known[script] = answers_of(CLIENTS[script].environment, url, script)
        return known[script]

    return ask


@pytest.mark.parametrize("script", CLIENTS)
def test_every_case_is_looked_at(asked: Asked, script: str) -> None:
    client = CLIENTS[script]
    assert set(asked(script)) == {f"case_{name}" for name in (*client.results, *client.errors, *client.others)}


@pytest.mark.parametrize(("script", "case"), [(name, case) for name, each in CLIENTS.items() for case in each.results])
def test_result(asked: Asked, script: str, case: str) -> None:
    assert asked(script)[f"case_{case}"] == {"result": CLIENTS[script].results[case]}


@pytest.mark.parametrize(("script", "case"), [(name, case) for name, each in CLIENTS.items() for case in each.errors])
def test_error(asked: Asked, script: str, case: str) -> None:
    status, pattern = CLIENTS[script].errors[case]
    answer = asked(script)[f"case_{case}"]
    assert answer.get("status") == status, answer
    assert re.search(pattern, answer["message"]), answer


# ---- tritonclient's metadata ----------------------------------------------------------------------


@pytest.mark.parametrize(("script", "variable"), [("tritonclient", -1), ("tritonclient_grpc", "-1")])
def test_metadata(asked: Asked, shared_gateway: Gateway, script: str, variable: Any) -> None:
    """Over gRPC tritonclient reads our messages with field numbers of its own: names and values must agree."""
    answers = asked(script)
    server, rest = answers["case_server_metadata"]["result"], shared_gateway.get("/v2").json()
    only_grpc = {"schedule_policy"} if script.endswith("_grpc") else set()
    assert set(server.pop("extensions")) == {*rest.pop("extensions"), *only_grpc}
    assert server == rest
    pair = answers["case_model_metadata"]["result"]
    tensors = [
        {"name": name, "datatype": "FP32", "shape": [variable]} for name in ("left", "right", "sum", "difference")
    ]
    assert (pair["name"], pair["versions"]) == ("pair", ["1"])
    assert [pair["inputs"], pair["outputs"]] == [tensors[:2], tensors[2:]]
    assert pair["platform"].startswith("mlflow")
    index = answers["case_repository_index"]["result"]
    assert index == sorted(shared_gateway.get("/v2/models").json()["models"])


def test_configuration(asked: Asked) -> None:
    config = asked("tritonclient_grpc")["case_model_config"]["result"]["config"]
    assert (config["name"], config["platform"], config["backend"]) == ("iris", "mlflow_sklearn", "mlflow")
    assert config["input"][0] == {"name": "sepal_length", "data_type": "TYPE_FP64", "dims": ["-1"]}
    assert config["instance_group"] == [{"name": "iris", "kind": "KIND_CPU", "count": 1}]
