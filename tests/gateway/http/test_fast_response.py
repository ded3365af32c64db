"""The short ways of the hot path say the same as the long ones: the ready-made head, and paths that are remembered."""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from typing import Any

import pytest

from modelhub.serving.gateway.http import fast_response, match_cache
from modelhub.serving.protocol.messages import InferReply, InferRequest
from support.http_front import Answer, Front, Model, read_answer, serving, to_bytes

INFER = "/v2/models/iris/infer"


def replying(**fields: Any) -> Model:
    async def answering(request: InferRequest, body: Any) -> Any:
        return InferReply(id=request.id, **fields), bytes(body)

    return Model(answering=answering)


def without_date(answer: Answer) -> dict[str, str]:
    parsedate_to_datetime(answer.headers["date"])
    return {name: value for name, value in answer.headers.items() if name != "date"}


async def quick_and_long(front: Front, body: bytes, monkeypatch: pytest.MonkeyPatch) -> tuple[Answer, Answer]:
    quick = await front.post(INFER, body)
    with monkeypatch.context() as patch:
        patch.setattr(fast_response.FastResponse, "fits", staticmethod(lambda request: False))
        return quick, await front.post(INFER, body)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"content_type": "application/octet-stream", "json_size": 3},
        {"json_size": 0},
        {"content_type": "text/event-stream; charset=utf-8"},
        {"status": 200},
    ],
)
@pytest.mark.parametrize("size", [0, 5, 8192, 8193, 65536, 65537])
async def test_the_same_head_as_aiohttps_own(fields: Any, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(replying(**fields)) as front:
        quick, long = await quick_and_long(front, b"x" * size, monkeypatch)
    assert without_date(quick) == without_date(long)
    assert (quick.status, quick.body) == (long.status, long.body) == (200, b"x" * size)


async def test_the_date_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = fast_response._FirstLines()
    for second, shown in ((1.0, b"00:00:01"), (1.9, b"00:00:01"), (2.0, b"00:00:02"), (1.5, b"00:00:01")):
        monkeypatch.setattr("time.time", lambda second=second: second)
        assert b"Date: Thu, 01 Jan 1970 " + shown + b" GMT\r\n" in lines.now()


async def test_connections_end_as_the_client_says() -> None:
    async with serving(Model()) as front:
        async with front.connection() as (reader, writer):
            writer.write(to_bytes("POST", INFER, b"1") + to_bytes("POST", INFER, b"2"))  # both at once
            assert [(await read_answer(reader)).body for _ in "12"] == [b"1", b"2"]
            writer.write(to_bytes("POST", INFER, b"3", {"Connection": "close"}))
            last = await read_answer(reader)
            assert (last.body, last.headers["connection"]) == (b"3", "close")
            assert await reader.read() == b""
        async with front.connection() as (reader, writer):
            writer.write(to_bytes("POST", INFER, b"4").replace(b"HTTP/1.1", b"HTTP/1.0"))
            assert (await read_answer(reader)).body == b"4"
            assert await reader.read() == b""


async def test_a_request_id_is_repeated() -> None:
    async with serving(Model()) as front:
        assert (await front.post(INFER, b"", {"X-Request-Id": "seven"})).headers["x-request-id"] == "seven"


# ---- paths that are remembered -------------------------------------------------------------------


async def test_a_remembered_path_is_only_that_path(monkeypatch: pytest.MonkeyPatch) -> None:
    remember, remembered = match_cache.MatchCache._remember, []

    def remembering(self: Any, path: str, match: Any) -> None:
        remembered.append(path)
        remember(self, path, match)

    monkeypatch.setattr(match_cache.MatchCache, "_remember", remembering)
    iris, digits = Model(), Model("digits")
    async with serving(iris, digits) as front:
        for _ in range(3):
            assert (await front.post(INFER, b"a")).body == b"a"
            assert (await front.post("/v2/models/digits/infer", b"b")).body == b"b"
            assert (await front.post("/v2/models/iris/versions/1/infer", b"c")).body == b"c"
            assert (await front.post(f"{INFER}?a=b", b"d")).body == b"d"
            (await front.post("/v2/models/iris/versions/2/infer", b"e")).assert_error(404, "version")
            (await front.post("/v2/models/no/infer", b"f")).assert_error(404, "'no'")
            (await front.get(INFER)).assert_error(405)
            (await front.post(INFER, b"g", {"Expect": "200-maybe"})).assert_error(417)
    once = [INFER, "/v2/models/digits/infer", "/v2/models/iris/versions/1/infer"]
    assert [path for path in remembered if "?" not in path] == once, "and no name that is made up"
    assert [body for _, body in iris.asked] == [b"a", b"c", b"d"] * 3
    assert [body for _, body in digits.asked] == [b"b"] * 3
    assert [request.query for request, _ in iris.asked] == [{}, {}, {"a": "b"}] * 3


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    async def handler(request: Any) -> Any:
        raise AssertionError("unused")

    monkeypatch.setattr(match_cache, "MOST", 2)
    match = match_cache.MatchCache(handler)
    for path in ("/a", "/b", "/b?c", "/" + "d" * match_cache.LONGEST):
        match._remember(path, None)  # type: ignore[arg-type]
    assert list(match._known) == ["/a", "/b"]
    match._remember("/e", None)  # type: ignore[arg-type]
    assert list(match._known) == ["/e"], "it begins anew"
