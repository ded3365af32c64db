"""Several hundred malformed REST requests: each is answered with 4xx and a V2 error, or was none to be refused.

None ends in a 5xx or in silence, and no worker is lost. The requests are made from a good one by rules, always alike.
"""

from __future__ import annotations

import copy
import gzip
import json
import random
import socket
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from http.client import parse_headers
from typing import Any

import pytest

from support.gateway_process import Answer, Gateway
from support.workers_alive import workers

PATH = "/v2/models/identity/infer"
GOOD: dict[str, Any] = {
    "id": "7",
    "parameters": {"priority": 1},
    "inputs": [
        {"name": "input-0", "shape": [2, 2], "datatype": "FP32", "parameters": {}, "data": [1.0, 2.0, 3.0, 4.0]}
    ],
    "outputs": [{"name": "output-0", "parameters": {"binary_data": False}}],
}
TEXT = json.dumps(GOOD).encode()
SECONDS = 20.0

#: (label, body, headers, must it be refused?)
Request = tuple[str, bytes, dict[str, str], bool]


@pytest.fixture(scope="module", autouse=True)
def _no_worker_is_lost(shared_gateway: Gateway) -> Iterator[None]:
    before = workers(shared_gateway)
    yield
    assert workers(shared_gateway) == before
    assert shared_gateway.post(PATH, TEXT).status == 200


def check(answer: Answer, label: str, *, refused: bool) -> None:
    """A 4xx with a V2 error; 2xx only where the request may be one."""
    if answer.status == 200:
        assert not refused, f"{label}: {answer}"
        return
    assert 400 <= answer.status < 500 or answer.status == 501, f"{label}: {answer}"
    assert answer.headers["content-type"] == "application/json", label
    assert 0 < len(answer.json()["error"]) < 6000, label


# ---- what the bodies are -------------------------------------------------------------------------


def changed(path: list[Any], value: Any) -> bytes:
    """The good request with the member at `path` replaced; `...`: left out."""
    document = copy.deepcopy(GOOD)
    target: Any = document
    for key in path[:-1]:
        target = target[key]
    if value is ...:
        del target[path[-1]]
    else:
        target[path[-1]] = value
    return json.dumps(document).encode()


WRONG = [
    ...,
    None,
    True,
    0,
    -1,
    1.5,
    2**64,
    10**30,
    "",
    "x",
    "\0",
    [],
    {},
    [[]],
    [None],
    [{}],
    ["x"],
    {"x": []},
    "x" * 5000,
]
PLACES: list[list[Any]] = [
    *(["id"], ["parameters"], ["inputs"], ["outputs"], ["inputs", 0], ["outputs", 0]),
    *([*("inputs", 0), each] for each in ("name", "shape", "datatype", "parameters", "data")),
    *([*("outputs", 0), each] for each in ("name", "parameters")),
    *(["inputs", 0, "shape", 0], ["inputs", 0, "data", 3], ["outputs", 0, "parameters", "binary_data"]),
]  # fmt: skip
#: Whatever stands there, these are no requests.
NEEDED = [["inputs"], ["inputs", 0], ["inputs", 0, "shape"], ["inputs", 0, "datatype"], ["inputs", 0, "data"]]


def mistyped() -> Iterator[Request]:
    for path in PLACES:
        for value in WRONG:
            label = f"{'.'.join(map(str, path))} = {str(value)[:20]}"
            yield label, changed(path, value), {}, path in NEEDED


def truncated() -> Iterator[Request]:
    for end in range(0, len(TEXT), 4):
        yield f"the first {end} bytes", TEXT[:end], {}, True


def mutated() -> Iterator[Request]:
    """Single bytes of the good request replaced, by any others."""
    choose = random.Random(0)
    for _ in range(120):
        at, byte = choose.randrange(len(TEXT)), choose.randrange(256)
        yield f"byte {at} = {byte}", TEXT[:at] + bytes([byte]) + TEXT[at + 1 :], {}, False


def shapes() -> Iterator[Request]:
    for shape in (
        *(
            [2**62, 2**62],
            [2**32, 2**32],
            [2**40, 2**40],
            [2**63],
            [2**63 - 1],
            [1] * 33,
            [1] * 1000,
            [-1, 4],
            [-4, -1],
        ),
        *([1e300, 1], [4.0, 1.0], ["2", "2"], [[2, 2]], [True, 4], [None], [2, 3], [0, 2], [4], [], 4, "2,2", {"0": 4}),
    ):
        yield f"shape {str(shape)[:40]}", changed(["inputs", 0, "shape"], shape), {}, True
    for data in (
        [[1, 2], [3]],
        [[1, 2], 3, 4],
        [[[1]], 2, 3, 4],
        [1, 2, 3],
        [1] * 5,
        [[1, 2, 3, 4]],
        ["1"] * 4,
        [True] * 4,
    ):
        yield f"data {data}", changed(["inputs", 0, "data"], data), {}, True
    for number in ("1e999", "-1e999", "1e39", "9" * 400):
        body = TEXT.replace(b"4.0]", number.encode() + b"]")
        yield f"number {number[:10]}", body, {}, True


def not_json() -> Iterator[Request]:
    for label, body in {
        "single quotes": TEXT.replace(b'"', b"'"),
        "bad UTF-8": TEXT.replace(b'"7"', b'"\xff\xfe"'),
        "cut UTF-8": TEXT.replace(b'"7"', b'"\xe2\x98"'),
        "lone surrogate": TEXT.replace(b'"7"', b'"\\ud800"'),
        "a zero byte": TEXT.replace(b'"7"', b'"\0"'),
        "UTF-16": TEXT.decode().encode("utf-16"),
        "two byte order marks": b"\xef\xbb\xbf" * 2 + TEXT,
        "two documents": TEXT + TEXT,
        "something behind": TEXT + b"x",
        "a comment": TEXT + b"//",
        "trailing comma": TEXT[:-1] + b",}",
        "deep lists": b"[" * 100_000,
        "deep objects": b'{"a":' * 100_000,
        "deep and closed": b'{"inputs":' + b"[" * 5000 + b"]" * 5000 + b"}",
        "deep data": TEXT.replace(b"[1.0, 2.0, 3.0, 4.0]", b"[" * 900 + b"1" + b"]" * 900),
        "a string": b'"inputs"',
        "a number": b"1",
        "null": b"null",
        "a list": b"[" + TEXT + b"]",
        "nothing but spaces": b" " * 1000,
        "zero bytes": bytes(1000),
        "noise": random.Random(1).randbytes(1000),
    }.items():
        yield label, body, {}, True
    twice = TEXT.replace(b'{"id": "7"', b'{"inputs": [], "inputs": 3, "id": "7"')
    yield "duplicate members", twice, {}, False  # the last one counts, as everywhere
    yield "a name twice", json.dumps({"inputs": GOOD["inputs"] * 2}).encode(), {}, True
    many = json.dumps({"inputs": [{**GOOD["inputs"][0], "name": f"x{each}"} for each in range(2000)]}).encode()
    yield "2000 inputs", many, {}, True


def binary() -> Iterator[Request]:
    """Lengths that lie."""
    for size in (-1, 0, 1, 15, 17, 32, 10**9, 2**63, 2**64, 10**30, "16", 16.5, True, [], {}):
        document = changed(["inputs", 0, "parameters"], {"binary_data_size": size})
        without = json.loads(document)
        del without["inputs"][0]["data"]
        text = json.dumps(without).encode()
        header = {"Inference-Header-Content-Length": str(len(text))}
        yield f"binary_data_size {size}", text + bytes(16), header, True
        yield f"binary_data_size {size} and data", document + bytes(16), header, True
        yield f"binary_data_size {size} without the header", text, {}, True
    good = {"inputs": [{**GOOD["inputs"][0], "parameters": {"binary_data_size": 16}}]}
    del good["inputs"][0]["data"]
    text = json.dumps(good).encode()
    for extra in (0, 1, 4, 15, 17, 32):
        header = {"Inference-Header-Content-Length": str(len(text))}
        yield f"{extra} bytes for 16", text + bytes(extra), header, True
    for value in (
        *("-1", "+5", "abc", "", " ", "0x10", "1e3", "1.0", "9" * 15, "9" * 16, "9" * 400, "1,2", "1 2", "\u00b2", "0"),
        *(str(len(text) - 1), str(len(text) + 1), str(len(text) + 16), str(len(text) + 17), "1", "00"),
    ):
        yield f"header {value[:20]!r}", text + bytes(16), {"Inference-Header-Content-Length": value}, True


def encodings() -> Iterator[Request]:
    good = gzip.compress(TEXT)
    for label, body, coding in (
        ("no gzip", TEXT, "gzip"),
        ("cut gzip", good[:-9], "gzip"),
        ("gzip with a wrong sum", good[:-8] + bytes(8), "gzip"),
        ("something behind gzip", good + b"xxxx", "gzip"),
        ("gzip of nothing", gzip.compress(b""), "gzip"),
        ("an empty body", b"", "gzip"),
        ("no deflate", b"\xff" * 100, "deflate"),
        ("cut deflate", zlib.compress(TEXT)[:-6], "deflate"),
        ("unknown", TEXT, "br"),
        ("two", gzip.compress(good), "gzip, gzip"),
        ("empty members", gzip.compress(b"") * 3000, "gzip"),
        ("bomb", gzip.compress(b" " * (300 << 20), 9), "gzip"),
        ("nested lists, compressed", gzip.compress(b"[" * (32 << 20)), "gzip"),
    ):
        yield f"{coding}: {label}", body, {"Content-Encoding": coding}, True


def media_types() -> Iterator[Request]:
    for kind in (
        "application/xml",
        "text/html",
        "application/json; charset=utf-16",
        "x" * 500,
        "a/b/c",
        ";;;",
        "\u00fc",
    ):
        yield f"Content-Type {kind[:20]}", TEXT, {"Content-Type": kind}, False
    for kind in ("multipart/form-data", "multipart/form-data; boundary=x", "application/octet-stream", "image/png"):
        yield f"Content-Type {kind}", TEXT, {"Content-Type": kind}, False
    for value in ("", "x", "-1s", "1", "1e400s", "NaNs", "9" * 100 + "s", "\u0661s"):
        yield f"X-Request-Timeout {value[:20]!r}", TEXT, {"X-Request-Timeout": value}, False


@cache
def requests(group: Callable[[], Iterator[Request]]) -> list[Request]:
    return list(group())


GROUPS = (mistyped, truncated, mutated, shapes, not_json, binary, encodings, media_types)


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.__name__)
def test_bodies(shared_gateway: Gateway, group: Any) -> None:
    count = 0
    for label, body, headers, refused in requests(group):
        sent = {name: value.encode("utf-8").decode("latin-1") for name, value in headers.items()}
        check(shared_gateway.post(PATH, body, sent, timeout=SECONDS), label, refused=refused)
        count += 1
    assert count > 10


@pytest.mark.parametrize("path", ["/models/identity/invocations", "/v1/models/identity:predict"])
def test_half_a_surrogate_pair_beside_a_nan(shared_gateway: Gateway, path: str) -> None:
    """Read by Python's own parser, which takes both; the error may quote it."""
    assert shared_gateway.post(path, b'{"\\ud800": NaN}', {"Content-Type": "application/json"}).status == 400


def test_there_are_several_hundred() -> None:
    assert sum(len(requests(group)) for group in GROUPS) > 500


# ---- paths and methods ---------------------------------------------------------------------------


PATHS = [
    *("/v2/models/%00/infer", "/v2/models/..%2f..%2fetc/infer", "/v2/models/%ff/infer", "/v2/models/identity/infer/"),
    *("/v2//models/identity/infer", "/v2/models//infer", "/v2/models/identity/versions//infer", "/v2/models/a%0d%0ab"),
    *("/v2/models/identity/versions/%E2%98%83/infer", "/v2/models/identity/versions/-1/infer", "/" + "x" * 4000),
]


@pytest.mark.parametrize("path", PATHS)
def test_paths(shared_gateway: Gateway, path: str) -> None:
    for method in ("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        check(shared_gateway.request(method, path, b"{}"), f"{method} {path}", refused=True)


# ---- raw sockets ---------------------------------------------------------------------------------


def head(*lines: str, path: str = PATH) -> bytes:
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: x", *lines, "", ""]).encode("latin-1")


def exchange(gateway: Gateway, *pieces: bytes, answers: int = 1) -> list[Answer]:
    """What came back for these bytes, sent piece by piece; an empty piece closes the sending side."""
    host, port = gateway.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), SECONDS) as connection:
        for piece in pieces:
            try:
                if piece:
                    connection.sendall(piece)
                else:
                    connection.shutdown(socket.SHUT_WR)
            except OSError:
                break  # it has answered and closed already
        file = connection.makefile("rb")
        found = []
        for _ in range(answers):
            status = int(file.readline().split()[1])
            headers = {name.lower(): value for name, value in parse_headers(file).items()}
            found.append(Answer(status, headers, file.read(int(headers["content-length"]))))
        return found


LENGTH = f"Content-Length: {len(TEXT)}"
REFUSED: dict[str, list[bytes]] = {
    "no HTTP": [b"hello\r\n\r\n"],
    "TLS": [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500) + b"\r\n\r\n"],
    "ZeroMQ": [b"\xff\0\0\0\0\0\0\0\x01\x7f\r\n\r\n"],
    "a version of the future": [b"POST / HTTP/7.0\r\nHost: x\r\n\r\n"],
    "no host": [b"POST / HTTP/1.1\r\n\r\n"],
    "a zero byte in the path": [head(LENGTH, path="/v2/\0")],
    "a zero byte in a header": [head("X: a\0b", LENGTH) + TEXT],
    "a bare line feed": [b"POST / HTTP/1.1\nHost: x\n\n"],
    "a folded header": [head("X: a", " b", LENGTH) + TEXT],
    "a space before the colon": [head("Content-Length : 5") + b"hello"],
    "length with a sign": [head("Content-Length: +5") + b"hello"],
    "length with letters": [head("Content-Length: 5x") + b"hello"],
    "negative length": [head("Content-Length: -5")],
    "two lengths": [head("Content-Length: 5", "Content-Length: 6") + b"hello"],
    "a huge length": [head("Content-Length: 99999999999")],
    "an absurd length": [head("Content-Length: " + "9" * 60)],
    "length and chunks": [head(LENGTH, "Transfer-Encoding: chunked") + b"0\r\n\r\n"],
    "unknown transfer coding": [head("Transfer-Encoding: gzip") + b"hello"],
    "chunk size with letters": [head("Transfer-Encoding: chunked") + b"xyz\r\nhello\r\n0\r\n\r\n"],
    "negative chunk": [head("Transfer-Encoding: chunked") + b"-5\r\nhello\r\n0\r\n\r\n"],
    "a chunk longer than said": [head("Transfer-Encoding: chunked") + b"2\r\nhello\r\n0\r\n\r\n"],
    "an absurd chunk": [head("Transfer-Encoding: chunked") + b"f" * 40 + b"\r\nhello\r\n0\r\n\r\n"],
    "empty chunks": [head("Transfer-Encoding: chunked") + b"0\r\n\r\n"],
    "a long header": [head("X: " + "x" * 100_000, LENGTH)],
    "many headers": [head(*["X: x"] * 1000, LENGTH)],
    "a long path": [head(LENGTH, path="/" + "x" * 100_000)],
    "an expectation": [head("Expect: the unexpected", LENGTH) + TEXT],
    "byte by byte": [bytes([each]) for each in b"POST /v2 HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n"],
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_request(shared_gateway: Gateway, name: str) -> None:
    [answer] = exchange(shared_gateway, *REFUSED[name])
    check(answer, name, refused=True)


def test_slow_but_good(shared_gateway: Gateway) -> None:
    whole = head(LENGTH) + TEXT
    [answer] = exchange(shared_gateway, *(whole[at : at + 7] for at in range(0, len(whole), 7)))
    assert answer.status == 200


def test_chunks_of_one_byte(shared_gateway: Gateway) -> None:
    chunks = b"".join(b"1\r\n" + bytes([each]) + b"\r\n" for each in TEXT)
    [answer] = exchange(shared_gateway, head("Transfer-Encoding: chunked") + chunks + b"0\r\n\r\n")
    assert answer.status == 200


def test_endless_chunks_are_cut_at_the_limit(shared_gateway: Gateway) -> None:
    chunk = b"100000\r\n" + bytes(0x100000) + b"\r\n"
    [answer] = exchange(shared_gateway, head("Transfer-Encoding: chunked"), *[chunk] * 80)
    check(answer, "80 MiB in chunks", refused=True)
    assert answer.status == 413


def test_pipelined_answers_come_in_order(shared_gateway: Gateway) -> None:
    bad = head("Content-Length: 2") + b"{}"
    missing = head(LENGTH, path="/v2/models/nosuch/infer") + TEXT
    answers = exchange(shared_gateway, (head(LENGTH) + TEXT + bad + missing) * 20, answers=60)
    assert [answer.status for answer in answers] == [200, 400, 404] * 20


@pytest.mark.parametrize("sent", [b"P", b"POST /v2", head(LENGTH), head(LENGTH) + TEXT[:50], head(LENGTH) + TEXT])
def test_aborted(shared_gateway: Gateway, sent: bytes) -> None:
    """The client resets the connection: the next request is served."""
    host, port = shared_gateway.url.removeprefix("http://").split(":")
    for _ in range(20):
        connection = socket.create_connection((host, int(port)), SECONDS)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.sendall(sent)
        connection.close()
    assert shared_gateway.post(PATH, TEXT).status == 200
