"""MLServer's unmodified codecs as a client, against the warm gateway."""

from __future__ import annotations

import re
from typing import Any

import pytest
from client_scripts import answers_of
from gateway_process import Gateway

RESULTS: dict[str, Any] = {
    "numpy": ["float32", [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]],
    "every_datatype": [],
    "pandas": {"output-0": [0, 2]},
    "pandas_strings": [["positive", "negative"], "float64"],
    "strings": ["", "naïve ☃ 🎉", 'quote " and \\ and \n'],
    "bytes": ["ff00", "", "61"],
    "datetimes": ["2024-02-29T12:30:00"],
    "id_outputs_and_parameters": ["request 7", "params", ["value"], [4.0, 5.0]],
    "metadata": ["modelhub-serving", "pair", ["left", "right"], ["sum", "difference"]],
}

#: The status, and a pattern for the message.
ERRORS = {
    "error_unknown_model": (404, "nosuch"),
    "error_unknown_input": (400, "middle"),
}


@pytest.fixture(scope="module")
def answers(shared_gateway: Gateway) -> dict[str, dict[str, Any]]:
    return answers_of("mlserver", shared_gateway.url)


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
