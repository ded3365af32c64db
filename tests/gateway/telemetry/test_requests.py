"""What the log says about requests: errors with an id that the client has too, every one at level debug."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from modelhub.serving.gateway.telemetry import requests
from modelhub.serving.protocol.errors import ModelError, QueueFull
from modelhub.serving.protocol.messages import InferReply, InferRequest
from support.gateway_process import Gateway
from support.http_front import Model, echo, serving

SECRET = "the-payload"


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [
        vars(record) | {"text": record.getMessage()} for record in caplog.records if record.name == "modelhub.requests"
    ]


async def raising(request: InferRequest, body: Any) -> tuple[InferReply, Any]:
    raise ModelError(f"could not convert {SECRET}")


async def full(request: InferRequest, body: Any) -> tuple[InferReply, Any]:
    raise QueueFull("model iris/1 has 200 requests waiting")


async def refusing(request: InferRequest, body: Any) -> tuple[InferReply, Any]:
    return InferReply(id=0, status=422), b'{"message": "the-payload"}'


async def failing_in_its_form(request: InferRequest, body: Any) -> tuple[InferReply, Any]:
    return InferReply(id=0, status=400, code="invalid_request"), b'{"error_code": "X", "message": "the-payload"}'


async def test_a_models_error_is_a_warning_without_the_payload(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with serving(Model(answering=raising)) as front:
        answer = await front.post("/v2/models/iris/infer", SECRET.encode(), {"X-Request-Id": "abc-1"})
    (line,) = lines(caplog)
    assert (line["levelname"], line["request_id"], line["model"], line["version"]) == ("WARNING", "abc-1", "iris", "1")
    assert (line["status"], line["route"]) == (500, "infer")
    assert line["ms"] > 0
    assert SECRET not in line["text"]
    assert answer.headers["x-request-id"] == "abc-1"


async def test_an_error_without_an_id_is_given_one_that_the_client_gets(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with serving(Model(answering=raising)) as front:
        answers = [await front.post("/v2/models/iris/infer", b"{}") for _ in range(2)]
    given = [answer.headers["x-request-id"] for answer in answers]
    assert [line["request_id"] for line in lines(caplog)] == given
    assert len(set(given)) == 2


@pytest.mark.parametrize(
    ("answering", "level", "status", "words"),
    [
        (full, "INFO", 429, "200 requests waiting"),
        (refusing, "INFO", 422, "the service's own statusCode"),
        (failing_in_its_form, "INFO", 400, "answered with 400: invalid_request"),
    ],
)
async def test_what_is_the_clients_is_info(
    caplog: pytest.LogCaptureFixture, answering: Any, level: str, status: int, words: str
) -> None:
    caplog.set_level(logging.INFO)
    async with serving(Model(answering=answering)) as front:
        await front.post("/v2/models/iris/infer", b"{}")
    (line,) = lines(caplog)
    assert (line["levelname"], line["status"]) == (level, status)
    assert words in line["text"]
    assert SECRET not in line["text"]


async def test_success_is_silent_but_at_level_debug(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(Model(answering=echo)) as front:
        caplog.set_level(logging.INFO)
        answer = await front.post("/v2/models/iris/infer", b"{}")
        assert lines(caplog) == []
        assert "x-request-id" not in answer.headers
        caplog.set_level(logging.DEBUG)
        await front.post("/v2/models/iris/infer", b"{}", {"X-Request-Id": "abc-2"})
    (line,) = lines(caplog)
    assert (line["status"], line["request_id"]) == (200, "abc-2")
    assert {"queue_ms", "batch_wait_ms", "decode_ms", "predict_ms", "encode_ms"} <= set(line)


@pytest.mark.parametrize("answering", [echo, raising])
async def test_streams(caplog: pytest.LogCaptureFixture, answering: Any) -> None:
    """A stream's id comes with its headers, because an error can follow at any time."""
    caplog.set_level(logging.DEBUG, "modelhub")
    async with serving(Model(answering=answering)) as front:
        answer = await front.post("/v2/models/iris/infer_stream", b"{}")
        (line,) = lines(caplog)
        assert (line["route"], line["status"]) == ("stream", answer.status)
        assert answer.headers["x-request-id"] == line["request_id"]
        assert answer.status == (200 if answering is echo else 500)
        named = await front.post("/v2/models/iris/generate_stream", b"{}", {"X-Request-Id": "abc-3"})
    assert named.headers["x-request-id"] == lines(caplog)[-1]["request_id"] == "abc-3"


async def test_a_flood_of_errors_is_counted_not_written(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    clock = 1000.0
    monkeypatch.setattr(requests.time, "monotonic", lambda: clock)
    caller, version, error = requests.Caller(), Model(), ModelError("no")
    for _ in range(50):
        requests.failed(caller, version, "infer", 500, 1, error)  # type: ignore[arg-type]
    assert len(lines(caplog)) == requests.LINES_PER_SECOND
    requests.failed(caller, Model(), "infer", 503, 1, error)  # type: ignore[arg-type]
    assert lines(caplog)[-1]["status"] == 503, "another model's error was hidden"
    clock += 1
    requests.failed(caller, version, "infer", 500, 1, error)  # type: ignore[arg-type]
    assert lines(caplog)[-1]["left_out"] == 50 - requests.LINES_PER_SECOND


@pytest.mark.parametrize("path", ["/models/iris/invocations", "/v1/models/iris:predict"])
def test_a_failure_in_a_form_of_its_own_is_not_said_to_be_the_services(shared_gateway: Gateway, path: str) -> None:
    name = f"seen-{path[1]}"
    answer = shared_gateway.post(
        path, b'{"instances": [[1]]}', {"X-Request-Id": name, "Content-Type": "application/json"}
    )
    assert answer.status == 400
    (line,) = [line for line in shared_gateway.log().splitlines() if f'"{name}"' in line]
    assert "invalid_request" in line
    assert "statusCode" not in line
