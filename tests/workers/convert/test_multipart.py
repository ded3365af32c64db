"""multipart/form-data bodies: what real clients send comes back as it was, and nothing else is taken."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from io import BytesIO

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelhub.serving.protocol.errors import InvalidRequest
from modelhub.serving.workers.convert.multipart import MAX_PARTS, parse_multipart
from support.files import form

NAMES = st.text(st.characters(categories=("L", "N"), max_codepoint=0x2FF), min_size=1, max_size=8)


@given(st.lists(st.tuples(NAMES, st.binary(max_size=200), NAMES), min_size=1, max_size=4))
def test_what_goes_in_comes_out(parts: list[tuple[str, bytes, str]]) -> None:
    body, content_type = form(*parts, boundary="a-boundary-that-no-part-holds")
    assert [(each.name, each.data, each.filename) for each in parse_multipart(body, content_type)] == parts


def test_line_ends_and_dashes_in_a_file_stay() -> None:
    raw = b"\r\n--\r\n--front\r\n\n\r--frontie\r\n"
    body, content_type = form(("file", raw, "a"))
    assert parse_multipart(body, content_type)[0].data == raw


async def test_a_form_of_aiohttp() -> None:
    data = aiohttp.FormData()
    data.add_field("note", "grüß")
    data.add_field("file", BytesIO(b"\0\r\n\1"), filename='a "b" ü.png', content_type="image/png")
    payload = data()
    stream = asyncio.StreamReader()

    class Writer:
        async def write(self, chunk: bytes) -> None:
            stream.feed_data(bytes(chunk))

    await payload.write(Writer())  # type: ignore[arg-type]
    stream.feed_eof()
    note, file = parse_multipart(await stream.read(), payload.content_type)
    assert (note.name, note.data.decode(), note.filename) == ("note", "grüß", None)
    assert (file.name, file.data, file.media_type) == ("file", b"\0\r\n\1", "image/png")


def test_a_preamble_and_an_epilogue_are_skipped() -> None:
    body, content_type = form(("a", "1"))
    assert len(parse_multipart(b"This is a form.\r\n" + body + b"The end.\r\n", content_type)) == 1


GOOD, TYPE = form(("a", "1"), ("b", b"2", "b.bin"))


@pytest.mark.parametrize(
    ("body", "content_type", "words"),
    [
        (GOOD, "multipart/form-data", "needs a boundary"),
        (GOOD, "multipart/form-data; boundary=", "needs a boundary"),
        (GOOD, f"multipart/form-data; boundary={'x' * 300}", "needs a boundary"),
        (GOOD, "multipart/form-data; boundary=other", "is not in the body"),
        (b"", TYPE, "is not in the body"),
        (b"--frontier--\r\n", TYPE, "no parts"),
        (GOOD[:-16], TYPE, "cut off"),
        (GOOD[:80], TYPE, "no end of its headers"),
        (b"--frontierX\r\n\r\n--frontier--", TYPE, "malformed"),
        (GOOD.replace(b"form-data", b"attachment"), TYPE, "needs Content-Disposition: form-data"),
        (GOOD.replace(b'name="a"', b"x=1"), TYPE, "needs Content-Disposition: form-data"),
        (GOOD.replace(b"Content-Disposition: ", b"Content-Disposition "), TYPE, "header line of part 1"),
        (GOOD.replace(b"\r\n\r\n1", b"\r\nContent-Transfer-Encoding: base64\r\n\r\n1"), TYPE, "as they are"),
        (GOOD.replace(b"\r\n\r\n1", b"\r\n" + b"x: y\r\n" * 5000 + b"\r\n\r\n1"), TYPE, "no end of its headers"),
    ],
)
def test_refused(body: bytes, content_type: str, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        parse_multipart(body, content_type)


def test_too_many_parts() -> None:
    body, content_type = form(*[("a", "1")] * (MAX_PARTS + 1))
    with pytest.raises(InvalidRequest, match=f"more than {MAX_PARTS} parts"):
        parse_multipart(body, content_type)


@given(st.binary(max_size=400), st.integers(0, len(GOOD)))
def test_anything_is_parsed_or_refused(noise: bytes, at: int) -> None:
    with suppress(InvalidRequest):
        assert parse_multipart(GOOD[:at] + noise + GOOD[at:], TYPE)
