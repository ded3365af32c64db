"""Bodies as other programs write them: what is in them is taken, and nothing is said that misleads."""

from __future__ import annotations

import math
from typing import Any
from urllib.parse import urlencode

import pytest

from support.files import column, form, image_file, keeping, send, tensor

X = b'"name": "x", "datatype": "FP64", "shape": [3]'
URLENCODED = "application/x-www-form-urlencoded"


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b'{"inputs": [{"name": "x", "datatype": "FP64", "shape": [3], "data": [NaN, Infinity, -inf]}]}', "infer"),
        (
            b'{"inputs": [{"name": "x", "datatype": "FP64", "shape": [3], "data": ["NaN", "Infinity", "-Infinity"]}]}',
            "infer",
        ),
        (b'{"data": [{"x": NaN}, {"x": Infinity}, {"x": -inf}]}', "infer"),
        (b'{"instances": [[nan], [inf], [-Infinity]]}', "v1_predict"),
        (
            b'\xef\xbb\xbf{"inputs": [{"name": "x", "datatype": "FP64", "shape": [3], "data": [NaN, inf, -inf]}]}',
            "infer",
        ),
        (b'\xef\xbb\xbf{"data": [{"x": NaN}, {"x": Infinity}, {"x": -inf}]}', "infer"),
    ],
)
def test_floats_that_json_does_not_know_and_a_byte_order_mark(body: bytes, kind: str) -> None:
    for media in ("application/json", URLENCODED, ""):
        model, kept = keeping(column("double", "x"))
        status, answer = send(model, body, media, kind=kind)
        assert status == 200, answer
        first, *others = kept.got["x"].tolist()
        assert math.isnan(first)
        assert others == [math.inf, -math.inf]


def test_a_text_that_says_nan_is_a_text() -> None:
    model, kept = keeping(column("string", "s"), column("double", "x"))
    assert send(model, b'{"data": [{"s": "NaN and -inf", "x": NaN}]}')[0] == 200
    assert kept.got["s"].tolist() == ["NaN and -inf"]
    body = b'{"inputs": [{"name": "x", "datatype": "FP64", "shape": [1], "data": ["1.5"]}]}'
    assert "must be numbers" in send(keeping(column("double", "x"))[0], body)[1]["error"]
    body = b'{"inputs": [{"name": "n", "datatype": "INT64", "shape": [1], "data": [NaN]}]}'
    assert "is not a whole number" in send(keeping(column("long", "n"))[0], body)[1]["error"]


@pytest.mark.parametrize("fields", [{"text": "a day & more = ü"}, {"text": "x", "n": "3"}])
def test_a_urlencoded_form_is_a_form(fields: dict[str, str]) -> None:
    columns = [column("string", "text"), *([column("string", "n")] if "n" in fields else [])]
    model, kept = keeping(*columns)
    status, answer = send(model, urlencode(fields).encode(), URLENCODED)
    assert status == 200, answer
    assert kept.got.iloc[0].to_dict() == fields


def test_a_urlencoded_form_may_hold_json_and_params() -> None:
    model, kept = keeping(column("double", "x"))
    assert send(model, urlencode({"data": '[{"x": 1}]'}).encode(), URLENCODED)[0] == 200
    assert kept.got["x"].tolist() == [1]


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b"a=1&b=2", "its fields: a, b"),
        (b"a=%zz", "its fields: a"),
        (b"text=%ff", "the form is malformed"),
        (b"text=a&text=b", "the field 'text' twice"),
    ],
)
def test_a_urlencoded_form_of_something_else(body: bytes, word: str) -> None:
    status, answer = send(keeping(column("string", "text"))[0], body, URLENCODED)
    assert (status, word in answer["message"]) == (400, True), answer


def test_curls_word_for_any_file_still_is_none() -> None:
    model, _ = keeping(tensor("float64", -1, 200))
    assert "neither an image nor a PDF" in send(model, b"a,b\n1,2\n", URLENCODED)[1]["message"]
    model, kept = keeping(column("binary", "image"))
    assert send(model, image_file(), URLENCODED)[0] == 200
    assert kept.got["image"].tolist() == [image_file()]


@pytest.mark.parametrize("media", [(), ("application/octet-stream",)])
def test_a_place_for_a_file_that_was_not_used_is_no_file(media: Any) -> None:
    """Browsers send an empty part without a name for it."""
    model, kept = keeping(column("string", "text"))
    assert send(model, *form(("text", "a day"), ("file", b"", "", *media)))[0] == 200
    assert kept.got["text"].tolist() == ["a day"]
    model, kept = keeping(column("binary", "image"))
    assert send(model, *form(("other", b"", "", *media), ("file", image_file(), "a.png")))[0] == 200
    status, answer = send(model, *form(("file", b"", "", *media)))
    assert (status, "no file and no field" in answer["message"]) == (400, True), answer
    status, answer = send(model, *form(("file", b"", "a.png", *media)))
    assert (status, "the file 'file' of the form is empty" in answer["message"]) == (400, True), answer


@pytest.mark.parametrize("media", ["application/cloudevents+json", "application/cloudevents-batch+json; charset=utf-8"])
@pytest.mark.parametrize("kind", ["infer", "v1_predict", "invocations", "generate"])
def test_structured_cloudevents_are_refused_by_their_name(media: str, kind: str) -> None:
    event = {"specversion": "1.0", "id": "1", "source": "a", "type": "b", "data": {"instances": [[1]]}}
    status, answer = send(keeping(column("double", "x"))[0], event, media, kind=kind)
    assert status == 0
    assert answer["code"] == "unsupported_media_type"
    assert "is a CloudEvent in structured mode, which is not unwrapped" in answer["error"]
