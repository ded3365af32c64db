"""The V2 routes as HTTP: paths, bodies and headers, both ways, to the byte."""

from __future__ import annotations

import asyncio
import gzip
import logging
import time
from typing import Any

import pytest

from modelhub.serving import __version__
from modelhub.serving.gateway.http import connection
from modelhub.serving.gateway.models.states import ModelState
from modelhub.serving.protocol.messages import InferReply, InferRequest
from support.http_front import Answer, Front, Model, echo, read_answer, serving, to_bytes

INFER = "/v2/models/iris/infer"
EXTENSIONS = b'["binary_tensor_data","generate","model_configuration","statistics","model_repository"]'
SERVER = f'{{"name":"modelhub-serving","version":"{__version__}","extensions":'.encode() + EXTENSIONS + b"}"


# ---- server and models ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v2/health/live", b'{"live":true}'),
        ("/v2/health/ready", b'{"ready":true,"live":true}'),
        ("/v2/models", b'{"models":["iris","digits"]}'),
        ("/v2/models/iris/ready", b'{"name":"iris","ready":true}'),
        ("/v2/models/iris/versions/1/ready", b'{"name":"iris","ready":true}'),
        ("/v2", SERVER),
    ],
)
async def test_exact_bodies_and_head(path: str, body: bytes) -> None:
    async with serving(Model(), Model("digits")) as front:
        answer = await front.get(path)
        head = await front.request("HEAD", path)
    assert (answer.status, answer.headers["content-type"], answer.body) == (200, "application/json", body)
    assert (head.status, head.body) == (200, b"")
    for name in ("content-type", "content-length"):
        assert head.headers[name] == answer.headers[name]


async def test_the_slash_behind_v2_makes_no_difference() -> None:
    async with serving(Model()) as front:
        assert (await front.get("/v2/")).body == (await front.get("/v2")).body


async def test_a_server_that_is_not_ready_says_why() -> None:
    loading, failed = Model(), Model("digits")
    loading.state = ModelState.LOADING
    failed.state, failed.reason = ModelState.FAILED, "no such file"
    async with serving(loading, failed) as front:
        answer = await front.get("/v2/health/ready")
        assert (await front.get("/v2/health/live")).status == 200
        ready = await front.get("/v2/models/digits/ready")
    assert answer.status == 503
    assert answer.json() == {
        "ready": False,
        "live": False,
        "reasons": {"iris/1": "LOADING for 2.1 s", "digits/1": "FAILED: no such file"},
    }
    assert (ready.status, ready.json()) == (503, {"name": "digits", "ready": False})


async def test_a_version_that_another_of_its_number_replaces_is_told_once() -> None:
    async with serving(Model("iris", "1"), Model("iris", "1"), Model("iris", "2")) as front:
        assert (await front.get("/v2/models/iris")).json()["versions"] == ["1", "2"]


async def test_metadata_of_models_and_versions() -> None:
    old, new, unresolved = Model(version="1"), Model(version="2"), Model("later", version="")
    new.known_metadata = {"platform": "mlflow_xgboost", "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1]}]}
    async with serving(old, new, unresolved) as front:
        serves = await front.get("/v2/models/iris")
        assert serves.json() == {"name": "iris", "versions": ["1", "2"], **new.known_metadata}
        assert serves.headers["content-type"] == "application/json"
        assert (await front.get("/v2/models/iris/versions/1")).json()["platform"] == "mlflow_sklearn"
        assert "versions" not in (await front.get("/v2/models/later")).json()


@pytest.mark.parametrize("name", ["a b", "é", "a.b-c_d", "100%", "a+b", "a:b"])
async def test_names_may_be_encoded(name: str) -> None:
    quoted = "".join(f"%{byte:02X}" for byte in name.encode())
    async with serving(Model(name)) as front:
        assert (await front.get(f"/v2/models/{quoted}")).json()["name"] == name
        assert (await front.post(f"/v2/models/{quoted}/versions/%31/infer", b"x")).body == b"x"


# ---- what the worker is given --------------------------------------------------------------------


async def asked(front: Front, model: Model, *, path: str = INFER, **headers: str) -> InferRequest:
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    assert (await front.post(path, b"{}", headers)).status == 200
    request, _ = model.asked[-1]
    return request


async def test_the_message_says_what_the_headers_say() -> None:
    model = Model()
    async with serving(model) as front:
        bare = await asked(front, model)
        full = await asked(
            front,
            model,
            path=f"{INFER}?inference_type=text&empty=&q=%C3%A9%26",
            content_type="application/octet-stream",
            content_encoding="gzip",
            accept="application/json",
            accept_encoding="gzip, deflate",
            traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            inference_header_content_length="0",
        )
    before = time.monotonic()
    assert 0 < bare.received <= before
    assert bare == InferRequest(id=0, received=bare.received, deadline=bare.received + model.timeout)
    assert full == InferRequest(
        id=0,
        received=full.received,
        deadline=full.received + model.timeout,
        content_type="application/octet-stream",
        content_encoding="gzip",
        accept="application/json",
        accept_encoding="gzip, deflate",
        trace_parent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        json_size=0,
        query={"inference_type": "text", "empty": "", "q": "é&"},
    )


async def test_a_service_that_reads_headers_gets_them() -> None:
    model = Model()
    async with serving(model) as front:
        assert (await asked(front, model, X_Tenant="a")).headers == {}
        model.wants_headers = True
        lines = "X-Tenant: a\r\nx-tenant: b\r\nX-Name: ü\r\nX-Bytes: \udcff"
        raw = f"POST {INFER} HTTP/1.1\r\nHost: h\r\n{lines}\r\nContent-Length: 0\r\n\r\n"
        assert (await front.send(raw.encode("utf-8", "surrogateescape"))).status == 200
    headers = model.asked[-1][0].headers
    expected = {"host": "h", "x-tenant": "a, b", "x-name": "ü", "x-bytes": "�", "content-length": "0"}
    assert headers == expected


@pytest.mark.parametrize(("header", "seconds"), [("250ms", 0.25), ("2s", 2.0), ("1.5", 1.5), ("5m", 30.0)])
async def test_the_client_may_shorten_the_deadline(header: str, seconds: float) -> None:
    model = Model()
    async with serving(model) as front:
        request = await asked(front, model, X_Request_Timeout=header)
    assert request.deadline - request.received == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-Request-Timeout", "soon"),
        ("X-Request-Timeout", "-1s"),
        ("X-Request-Timeout", "nan"),
        ("X-Request-Timeout", "１s"),
        ("Inference-Header-Content-Length", "-1"),
        ("Inference-Header-Content-Length", "+1"),
        ("Inference-Header-Content-Length", "１"),
        ("Inference-Header-Content-Length", "1_0"),
        ("Inference-Header-Content-Length", ""),
        ("Inference-Header-Content-Length", "9" * 5000),
        ("Content-Type", "application/json; x=ü"),
        ("Accept", "ü"),
        ("traceparent", "ü"),
    ],
)
async def test_headers_that_are_the_clients_mistake(name: str, value: str) -> None:
    model = Model()
    async with serving(model) as front:
        (await front.post(INFER, b"{}", {name: value})).assert_error(400, name)
    assert not model.asked
    assert model.stats.requests == {("infer", 400): 1}


@pytest.mark.parametrize("size", [0, 1, 100_000, 3_000_000])
@pytest.mark.parametrize("encoding", ["", "gzip"])
async def test_the_body_goes_on_and_comes_back_untouched(size: int, encoding: str) -> None:
    """Compressed ones as well: they are for the worker to inflate."""
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    if encoding:
        body = gzip.compress(body)
    model = Model()
    async with serving(model) as front:
        answer = await front.post(INFER, body, {"Content-Encoding": encoding} if encoding else {})
    assert model.asked[0][1] == body
    assert answer.body == body


async def test_a_body_in_chunks() -> None:
    model = Model()
    async with serving(model) as front, front.connection() as (reader, writer):
        writer.write(f"POST {INFER} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        for piece in (b"one ", b"two ", b"three"):
            writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        assert (await read_answer(reader)).body == b"one two three"


# ---- what the client is given --------------------------------------------------------------------


async def replied(body: Any, **reply: Any) -> Answer:
    async def answering(request: InferRequest, _: Any) -> tuple[InferReply, Any]:
        return InferReply(id=0, **reply), body

    async with serving(Model(answering=answering)) as front:
        return await front.post(INFER, b"{}", {"X-Request-Id": "me"})


@pytest.mark.parametrize("size", [0, 10, 65536, 65537, 5_000_000])
async def test_a_reply_that_zeromq_owns(size: int) -> None:
    answer = await replied(memoryview(b"x" * size), content_type="application/octet-stream", json_size=3)
    assert answer.body == b"x" * size
    assert answer.headers["content-length"] == str(size)
    assert answer.headers["inference-header-content-length"] == "3"
    assert answer.headers["x-request-id"] == "me"


@pytest.mark.parametrize("content_type", ["application/json", "text/csv; charset=utf-8", "image/png"])
async def test_content_types_are_exact(content_type: str) -> None:
    answer = await replied(b"{}", content_type=content_type)
    assert answer.headers["content-type"] == content_type
    assert "content-encoding" not in answer.headers
    assert "inference-header-content-length" not in answer.headers


async def test_a_compressed_reply_is_passed_on() -> None:
    body = gzip.compress(b"{}")
    answer = await replied(body, content_encoding="gzip")
    assert (answer.headers["content-encoding"], answer.body) == ("gzip", body)
    assert answer.headers["vary"] == "Accept-Encoding"


@pytest.mark.parametrize(("status", "seen"), [(0, 200), (201, 201), (422, 422), (99, 500), (700, 500), (-1, 500)])
async def test_a_service_chooses_its_status(status: int, seen: int) -> None:
    assert (await replied(b"{}", status=status)).status == seen


# ---- limits --------------------------------------------------------------------------------------


async def test_a_body_over_the_limit_is_refused_before_it_is_sent() -> None:
    model = Model()
    async with serving(model, max_body="1KiB") as front, front.connection() as (reader, writer):
        writer.write(f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: 1025\r\n\r\n".encode())
        (await read_answer(reader)).assert_error(413, "1KiB")
    assert not model.asked


@pytest.mark.parametrize("pieces", [1, 20])
async def test_chunks_stop_at_the_limit(pieces: int) -> None:
    """Whether they come at once with the head, or one after another without end."""
    model = Model()
    async with serving(model, max_body=1024) as front, front.connection() as (reader, writer):
        writer.write(f"POST {INFER} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        for _ in range(pieces):
            size = 2000 // pieces
            writer.write(f"{size:x}\r\n".encode() + b"x" * size + b"\r\n")
            if pieces > 1:
                await writer.drain()
        (await read_answer(reader)).assert_error(413, "1KiB")
    assert not model.asked


async def test_a_body_of_exactly_the_limit() -> None:
    async with serving(Model(), max_body=1024) as front:
        assert (await front.post(INFER, b"x" * 1024)).status == 200
        (await front.post(INFER, b"x" * 1025)).assert_error(413)


async def test_a_client_that_asks_first() -> None:
    head = "POST {} HTTP/1.1\r\nHost: x\r\nExpect: {}\r\nContent-Length: {}\r\n\r\n"
    async with serving(Model(), max_body=1024) as front:
        (await front.send(head.format(INFER, "100-continue", 1025).encode())).assert_error(413)
        (await front.send(head.format("/v2/models/no/infer", "100-continue", 1).encode())).assert_error(404)
        (await front.send(head.format(INFER, "200-maybe", 1).encode())).assert_error(417)
        old = head.format(INFER, "100-continue", 5).replace("HTTP/1.1", "HTTP/1.0") + "hello"
        assert (await front.send(old.encode())).body == b"hello"  # HTTP/1.0 knows no interim answers
        async with front.connection() as (reader, writer):
            writer.write(head.format(INFER, "100-Continue", 5).encode())
            assert (await reader.readuntil(b"\r\n\r\n")) == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(b"hello")
            assert (await read_answer(reader)).body == b"hello"


async def test_a_body_that_does_not_arrive_within_the_deadline() -> None:
    async with serving(Model()) as front, front.connection() as (reader, writer):
        writer.write(
            f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nX-Request-Timeout: 50ms\r\n\r\nhalf".encode()
        )
        (await read_answer(reader)).assert_error(504, "body")


# ---- connections ---------------------------------------------------------------------------------


async def test_a_connection_that_does_not_say_what_it_wants_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "FIRST_REQUEST", 0.05)
    async with serving(Model()) as front, front.connection() as (reader, writer):
        writer.write(b"POST /v2/models/iris/infer HTTP/1.1\r\nHost: ")
        assert await reader.read() == b""


async def test_a_client_that_leaves_takes_its_request_along() -> None:
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def answering(request: InferRequest, body: Any) -> tuple[InferReply, Any]:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return await echo(request, body)

    model = Model(answering=answering)
    async with serving(model) as front:
        async with front.connection() as (_, writer):
            writer.write(to_bytes("POST", INFER, b"{}"))
            await asyncio.wait_for(begun.wait(), 5)
        await asyncio.wait_for(cancelled.wait(), 5)
    assert model.stats.requests == {("infer", 499): 1}


async def test_a_client_that_leaves_in_the_middle_of_its_body_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    model = Model()
    async with serving(model) as front:
        async with front.connection() as (reader, writer):
            writer.write(to_bytes("POST", INFER, None, {"Expect": "100-continue", "Content-Length": "9"}))
            await reader.readuntil(b"\r\n\r\n")  # it waits for the body now
        async with asyncio.timeout(5):
            while not front.counters.errors:
                await front.get("/v2/health/live")
    assert model.stats.requests == {("infer", 499): 1}
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_requests_in_one_packet_are_answered_in_their_order() -> None:
    async with serving(Model()) as front, front.connection() as (reader, writer):
        bodies = [f"body {number}".encode() for number in range(50)]
        writer.write(b"".join(to_bytes("POST", INFER, body) for body in bodies))
        assert [(await read_answer(reader)).body for _ in bodies] == bodies


async def test_success_and_failure_are_counted() -> None:
    async def answering(request: InferRequest, body: Any) -> tuple[InferReply, Any]:
        status = 422 if body == b"wrong" else 0
        return InferReply(id=0, status=status, decode_ns=1, predict_ns=2, encode_ns=3, rows=4, batch=2), body

    model = Model(answering=answering)
    async with serving(model) as front:
        for size in ("0", "0", "x"):
            await front.post(INFER, b"{}", {"Inference-Header-Content-Length": size})
        await front.post(INFER, b"wrong")
    stats = model.stats
    assert stats.requests == {("infer", 200): 2, ("infer", 400): 1, ("infer", 422): 1}
    assert (stats.succeeded, stats.failed, stats.rows, stats.batches) == (2, 2, 8, 1.0)
    assert (stats.decode.total, stats.predict.total, stats.encode.total) == (2, 4, 6)
    assert stats.total.count == 4
    assert 0 < stats.transfer.total <= stats.total.total
