"""The KServe SDK's unmodified REST client against the warm gateway."""

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
    "model_ready": [True, False],
    "json": ["request 7", "pair", {"sum": SUM, "difference": DIFFERENCE}],
    "binary": {"sum": SUM, "difference": DIFFERENCE},
    "requested_outputs": {"difference": DIFFERENCE, "sum": SUM},
    "dictionary": {"value": [3.0, 4.0], "label": ["3!", "4!"]},
    "every_datatype": {"True": [], "False": []},
}

#: The status, and a pattern for the client's own text, which holds ours only if our content type is exact.
ERRORS = {
    "error_unknown_model": (404, "nosuch.*'404 Not Found'"),
    "error_shape": (400, "(shape|dimension).*'400 Bad Request'"),
    "error_in_the_model": (500, "ValueError.*broadcast.*'500 Internal Server Error'"),
}


@pytest.fixture(scope="module")
def answers(shared_gateway: Gateway) -> dict[str, dict[str, Any]]:
    return answers_of("kserve", shared_gateway.url)


def test_every_case_is_looked_at(answers: dict[str, Any]) -> None:
    assert set(answers) == {f"case_{name}" for name in (*RESULTS, *ERRORS)}


@pytest.mark.parametrize("case", RESULTS)
def test_result(answers: dict[str, dict[str, Any]], case: str) -> None:
    assert answers[f"case_{case}"] == {"result": RESULTS[case]}


@pytest.mark.parametrize("case", ERRORS)
def test_error(answers: dict[str, dict[str, Any]], case: str) -> None:
    status, pattern = ERRORS[case]
    answer = answers[f"case_{case}"]
    assert answer.get("status") == status, answer
    assert re.search(pattern, answer["message"]), answer
