"""The unmodified KServe SDK's gRPC client, with raw and typed contents, against the warm gateway."""

from __future__ import annotations

import re
from typing import Any

import pytest
from client_scripts import answers_of
from gateway_process import Gateway

PAIR = ["request 7", "pair", {"sum": [11.0, 22.0, 33.0], "difference": [-9.0, -18.0, -27.0]}]

RESULTS: dict[str, Any] = {
    "live": True,
    "ready": True,
    "model_ready": True,
    "raw": PAIR,
    "typed": PAIR,
    "strings": [["positive", "negative"]] * 2,
}

#: The name of the code, and a pattern that the message must match.
ERRORS = {
    "error_unknown_model": ("NOT_FOUND", "nosuch"),
    "error_shape": ("INVALID_ARGUMENT", "shape"),
    "error_in_the_model": ("INTERNAL", "ValueError.*broadcast"),
}


@pytest.fixture(scope="module")
def answers(shared_gateway: Gateway) -> dict[str, dict[str, Any]]:
    return answers_of("kserve", shared_gateway.grpc_url, "kserve_grpc")


def test_every_case_is_looked_at(answers: dict[str, Any]) -> None:
    assert set(answers) == {f"case_{name}" for name in (*RESULTS, *ERRORS)}


@pytest.mark.parametrize("case", RESULTS)
def test_result(answers: dict[str, dict[str, Any]], case: str) -> None:
    assert answers[f"case_{case}"] == {"result": RESULTS[case]}


@pytest.mark.parametrize("case", ERRORS)
def test_error(answers: dict[str, dict[str, Any]], case: str) -> None:
    code, pattern = ERRORS[case]
    answer = answers[f"case_{case}"]
    assert answer.get("status") == code, answer
    assert re.search(pattern, answer["message"]), answer
