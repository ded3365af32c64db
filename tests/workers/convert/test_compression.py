"""Compressed bodies in, compressed answers out."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelhub.serving.protocol.errors import InvalidRequest, TooLarge, UnsupportedMediaType
from modelhub.serving.workers.convert.compression import choose_encoding, compress, inflate

LIMIT = 1 << 20


def raw_deflate(data: bytes) -> bytes:
    engine = zlib.compressobj(wbits=-15)
    return engine.compress(data) + engine.flush()


FORMS = {
    "gzip": ("gzip", gzip.compress),
    "x-gzip": ("X-GZIP ", gzip.compress),
    "zlib": ("deflate", zlib.compress),
    "raw": ("deflate", raw_deflate),
    "none": ("", bytes),
    "identity": ("identity", bytes),
}


@pytest.mark.parametrize(("encoding", "pack"), FORMS.values(), ids=FORMS.keys())
@pytest.mark.parametrize("size", [0, 1, 1 << 20])
def test_forms(encoding: str, pack, size: int) -> None:  # type: ignore[no-untyped-def]
    data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    assert inflate(memoryview(pack(data)), encoding, LIMIT) == data


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_gzip_members_follow_each_other(first: bytes, second: bytes) -> None:
    assert inflate(gzip.compress(first) + gzip.compress(second), "gzip", LIMIT) == first + second


@given(st.binary(max_size=200))
def test_anything_is_inflated_or_refused(body: bytes) -> None:
    for encoding in ("gzip", "deflate"):
        try:
            inflate(body, encoding, 1000)
        except (InvalidRequest, TooLarge):
            continue


@pytest.mark.parametrize(("encoding", "pack"), [FORMS["gzip"], FORMS["zlib"], FORMS["raw"]])
def test_a_bomb_never_exceeds_the_limit(encoding: str, pack) -> None:  # type: ignore[no-untyped-def]
    bomb = pack(bytes(200 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge):
            inflate(bomb, encoding, LIMIT)
        assert tracemalloc.get_traced_memory()[1] < 4 * LIMIT
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("size", [LIMIT, LIMIT + 1])
def test_the_limit_is_exact(size: int) -> None:
    body = gzip.compress(bytes(size))
    if size == LIMIT:
        assert len(inflate(body, "gzip", LIMIT)) == LIMIT
    else:
        with pytest.raises(TooLarge):
            inflate(body, "gzip", LIMIT)


@pytest.mark.parametrize("cut", [0, 1, 5, 15, -1, -9])
@pytest.mark.parametrize(("encoding", "pack"), [FORMS["gzip"], FORMS["zlib"]])
def test_cut_off(encoding: str, pack, cut: int) -> None:  # type: ignore[no-untyped-def]
    body = pack(bytes(range(256)) * 10)
    with pytest.raises(InvalidRequest):
        inflate(body[:cut], encoding, LIMIT)


def test_what_follows_the_end() -> None:
    for body, encoding in ((zlib.compress(b"a") + b"b", "deflate"), (gzip.compress(b"a") + b"bbbb", "gzip")):
        with pytest.raises(InvalidRequest):
            inflate(body, encoding, LIMIT)


def test_members_without_end_are_refused() -> None:
    with pytest.raises(InvalidRequest):
        inflate(gzip.compress(b"") * 200_000, "gzip", LIMIT)


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "compress"])
def test_other_encodings(encoding: str) -> None:
    with pytest.raises(UnsupportedMediaType):
        inflate(b"", encoding, LIMIT)


@pytest.mark.parametrize(
    ("accepted", "chosen"),
    [
        ("", ""),
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("gzip, deflate, br", "gzip"),
        ("gzip;q=0.5, deflate;q=0.8", "deflate"),
        ("GZIP ; Q=1", "gzip"),
        ("gzip;q=0", ""),
        ("*", "gzip"),
        ("*;q=0.1, gzip;q=0", "deflate"),
        ("identity", ""),
        ("identity;q=1, gzip;q=0.2", ""),
        ("br", ""),
        ("gzip;q=high", ""),
    ],
)
def test_what_the_client_accepts(accepted: str, chosen: str) -> None:
    assert choose_encoding(accepted) == chosen


@given(st.binary(max_size=3000))
def test_answers_are_what_clients_read(body: bytes) -> None:
    assert gzip.decompress(compress(body, "gzip")) == body
    assert zlib.decompress(compress(memoryview(body), "deflate")) == body
