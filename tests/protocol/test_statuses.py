"""One table says what a client is told of an error."""

from __future__ import annotations

import grpc
import pytest

from modelhub.serving.protocol.errors import BY_CODE, ServingError
from modelhub.serving.protocol.statuses import STATUSES, code_of_status, statuses


def test_the_table_has_every_error_and_no_other() -> None:
    assert set(STATUSES) == set(BY_CODE)
    assert {status.grpc for status in STATUSES.values()} <= set(grpc.StatusCode.__members__)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        *((400, "invalid_request"), (404, "not_found"), (429, "queue_full"), (499, "cancelled")),
        *((500, "model_error"), (503, "not_ready"), (418, "invalid_request"), (507, "model_error")),
    ],
)
def test_a_bare_status_stands_for_an_error(status: int, code: str) -> None:
    assert code_of_status(status) == code


def test_an_error_of_somebody_else_is_ours() -> None:
    class Own(ServingError):
        code = "own"

    assert statuses(Own("why")).http == 500
