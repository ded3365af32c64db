"""Every failure is a V2 error: on every route, from the router, from the parser, from what nobody expected."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelhub.serving.gateway.http.errors import error_response
from modelhub.serving.protocol import errors
from modelhub.serving.protocol.errors import ServingError
from modelhub.serving.protocol.messages import InferReply, InferRequest
from modelhub.serving.protocol.statuses import statuses
from support.http_front import Model, read_answer, serving, to_bytes

INFER = "/v2/models/iris/infer"
HOST = b"Host: localhost\r\n"


def raising(error: BaseException) -> Model:
    async def answering(request: Any, body: Any) -> Any:
        raise error

    return Model(answering=answering)


@pytest.mark.parametrize("code", sorted(errors.BY_CODE))
async def test_an_error_of_the_model_becomes_its_status(code: str) -> None:
    error = errors.from_wire(code, f"what happened: {code}")
    async with serving(raising(error)) as front:
        (await front.post(INFER, b"{}")).assert_error(statuses(error).http, f"what happened: {code}")


@pytest.mark.parametrize(("seconds", "header"), [(0.0, "1"), (0.2, "1"), (1.0, "1"), (1.01, "2"), (600.0, "600")])
def test_retry_after_is_whole_seconds_and_at_least_one(seconds: float, header: str) -> None:
    assert error_response(errors.QueueFull("full", retry_after=seconds)).headers["Retry-After"] == header


def test_no_retry_after_where_a_retry_cannot_help() -> None:
    assert "Retry-After" not in error_response(errors.NotReady("failed")).headers


@given(st.text(st.characters()))
def test_any_message_can_be_sent(message: str) -> None:
    body = error_response(ServingError(message)).body
    assert isinstance(body, bytes)
    body.decode()


async def test_what_nobody_expected_is_500_and_only_the_log_knows_more(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(raising(KeyError("a secret"))) as front:
        answer = await front.post(INFER, b"{}")
    answer.assert_error(500, "internal error")
    assert b"secret" not in answer.body
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.exc_info is not None
    assert INFER in record.getMessage()


@pytest.mark.parametrize("path", ["/nothing", "/v2/models/", "/v2/models/iris/nothing", "/v2/models/a/b/c/d", "/%ff"])
async def test_paths_that_are_not_there(path: str) -> None:
    async with serving(Model()) as front:
        for method in ("GET", "POST", "DELETE", "OPTIONS"):
            (await front.request(method, path)).assert_error(404)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", INFER, {"POST"}),
        ("PUT", "/v2/models/iris/versions/1/infer", {"POST"}),
        ("POST", "/v2/health/live", {"GET", "HEAD"}),
        ("DELETE", "/v2/models/iris", {"GET", "HEAD"}),
        ("POST", "/v2", {"GET", "HEAD"}),
        ("GET", "/v2/repository/index", {"POST"}),
        ("POST", "/metrics", {"GET", "HEAD"}),
        ("POST", "/status", {"GET", "HEAD"}),
    ],
)
async def test_a_wrong_method_is_told_the_right_ones(method: str, path: str, allowed: set[str]) -> None:
    async with serving(Model()) as front:
        answer = await front.request(method, path)
    answer.assert_error(405, method, *allowed)
    assert {each.strip() for each in answer.headers["allow"].split(",")} == allowed


@pytest.mark.parametrize("path", ["/v2/models/irs", "/v2/models/irs/ready", "/v2/models/iris/versions/7"])
async def test_unknown_models_and_versions(path: str) -> None:
    async with serving(Model()) as front:
        (await front.get(path)).assert_error(404, "iris")


async def test_a_name_that_is_no_text() -> None:
    async with serving(Model()) as front:
        (await front.get("/v2/models/%ff%fe")).assert_error(404)


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        pytest.param(b"BREW /v2 HTTP/1.1\r\n" + HOST + b"\r\n", 400, id="unknown method"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, id="tls"),
        pytest.param(b"GET\r\n\r\n", 400, id="no path"),
        pytest.param(b"GET /v2 HTTP/9.9\r\n" + HOST + b"\r\n", 400, id="http version"),
        pytest.param(b"GET /v2 HTTP/1.1\r\n\r\n", 400, id="no host"),
        pytest.param(b"GET http://[ HTTP/1.1\r\n" + HOST + b"\r\n", 400, id="url"),
        pytest.param(b"GET /\xff HTTP/1.1\r\n" + HOST + b"\r\n", 400, id="bytes in the path"),
        pytest.param(b"GET /v2 HTTP/1.1\r\nno colon\r\n\r\n", 400, id="header"),
        pytest.param(b"GET /" + b"a" * 66000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 431, id="long path"),
        pytest.param(b"GET /v2 HTTP/1.1\r\nA: " + b"a" * 66000 + b"\r\n\r\n", 431, id="long header"),
        pytest.param(b"GET /v2 HTTP/1.1\r\n" + b"A: 1\r\n" * 200 + b"\r\n", 400, id="many headers"),
        pytest.param(b"POST /v2 HTTP/1.1\r\n" + HOST + b"Content-Length: -1\r\n\r\n", 400, id="negative length"),
        pytest.param(
            b"POST /v2 HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400, id="two lengths"
        ),
        pytest.param(
            b"POST /v2 HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
            id="length and chunks",
        ),
    ],
)
async def test_what_the_parser_refuses(raw: bytes, status: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with serving(Model()) as front, front.connection() as (reader, writer):
        writer.write(raw)
        answer = await read_answer(reader)
        assert await reader.read() == b"", "the connection is closed: what follows cannot be told apart"
    answer.assert_error(status)
    assert b"aaaa" not in answer.body
    assert front.counters.errors[status] == 1
    [record] = caplog.records
    assert (record.levelno, record.name) == (logging.INFO, "modelhub.http")
    assert f"was refused ({status})" in record.getMessage()
    assert "aaaa" not in record.getMessage()


async def test_refusals_are_counted_all_and_told_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def answering(request: InferRequest, body: Any) -> tuple[InferReply, Any]:
        begun.set()
        await go_on.wait()
        return InferReply(id=request.id), b"{}"

    async with serving(Model(answering=answering), max_connections=1) as front:
        for _ in range(20):
            assert (await front.get("/nothing")).status == 404
            assert (await front.send(b"no request\r\n\r\n")).status == 400
        async with front.connection() as (reader, writer):
            writer.write(to_bytes("POST", INFER, b"{}"))
            await begun.wait()
            for _ in range(20):
                assert (await front.get("/v2")).status == 503
            go_on.set()
            assert (await read_answer(reader)).status == 200
        assert {status: front.counters.errors[status] for status in (404, 400, 503)} == {404: 20, 400: 20, 503: 20}
    told = [record.getMessage() for record in caplog.records if record.name == "modelhub.http"]
    assert len(told) == 3, told
    assert "server.max_connections" in told[-1]


async def test_malformed_chunks(caplog: pytest.LogCaptureFixture) -> None:
    head = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    async with serving(Model()) as front:
        (await front.send(head + b"zz\r\nabc\r\n0\r\n\r\n")).assert_error(400)
        async with front.connection() as (reader, writer):
            writer.write(head)
            await writer.drain()
            writer.write(b"3\r\nabc\r\nnot hexadecimal\r\n")
            (await read_answer(reader)).assert_error(400)
    assert not caplog.records


async def test_the_request_id_comes_back() -> None:
    async with serving(Model()) as front:
        for path, status in ((INFER, 200), ("/v2/models/none/infer", 404), ("/nothing", 404)):
            answer = await front.post(path, b"{}", {"X-Request-Id": "abc-123 ~"})
            assert (answer.status, answer.headers["x-request-id"]) == (status, "abc-123 ~")
        assert "x-request-id" not in (await front.post(INFER, b"{}")).headers


@pytest.mark.parametrize("unsafe", ["a\tb", "ü", "x" * 129, ""])
async def test_an_unsafe_request_id_is_left_out(unsafe: str) -> None:
    async with serving(Model()) as front:
        answer = await front.post(INFER, b"{}", {"x-request-id": unsafe})
    assert answer.status == 200
    assert "x-request-id" not in answer.headers


async def test_a_worker_cannot_write_headers_of_its_own() -> None:
    async def answering(request: InferRequest, body: Any) -> tuple[InferReply, Any]:
        return InferReply(id=0, content_type="text/plain\r\nX-Injected: yes"), b""

    async with serving(Model(answering=answering)) as front:
        answer = await front.post(INFER, b"{}")
    answer.assert_error(500, "content type")
    assert "x-injected" not in answer.headers


async def test_errors_are_counted_and_a_good_request_follows_on_the_same_connection() -> None:
    async with serving(Model()) as front, front.connection() as (reader, writer):
        for path, status in (("/nothing", 404), ("/v2/health/live", 200), ("/v2/models/none", 404)):
            writer.write(to_bytes("GET", path))
            assert (await read_answer(reader)).status == status
        assert front.counters.errors == {404: 2}


async def test_errors_that_are_answers_in_another_form_are_counted_too() -> None:
    async def refusing(request: InferRequest, body: Any) -> tuple[InferReply, Any]:
        return InferReply(id=0, status=422), b"{}"

    async with serving(Model(answering=refusing)) as front:
        assert (await front.post("/models/none/invocations", b"{}")).status == 404
        assert (await front.post(INFER, b"{}")).status == 422
        assert front.counters.errors == {404: 1, 422: 1}
