"""What kind of request a body is, and the form in which services get it."""

from __future__ import annotations

import base64
import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelhub.serving.protocol.errors import InvalidRequest, ServingError, UnsupportedMediaType
from modelhub.serving.protocol.messages import InferRequest
from modelhub.serving.workers.convert.files import decode_file, sniff
from modelhub.serving.workers.convert.kinds import Unified, kind_of, unify
from support.files import form, image_file, pdf_file

PNG = image_file()
PDF = pdf_file("red")
B64 = base64.b64encode(PNG).decode()


def unified(body: Any, content_type: str = "application/json", inference_type: str = "") -> Unified:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    query = {"inference_type": inference_type} if inference_type else {}
    return unify(InferRequest(id=1, content_type=content_type, query=query), raw)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"text": "hello"}, "text"),
        ({"text": ["a", "b"]}, "text"),
        ({"data": [{"a": 1}]}, "tabular"),
        ({"data": {"a": 1}}, "tabular"),
        ({"image": B64}, "image"),
        ({"images": [B64, B64]}, "images"),
        ({"images": B64}, "images"),
        ({"pdf_file": base64.b64encode(PDF).decode()}, "pdf"),
        ({"byte_stream": base64.b64encode(PDF).decode()}, "pdf"),
        ({"inputs": [{"name": "x"}]}, "v2"),
        ({"text": "hello", "image": None, "question": "which?"}, "text"),
        ({"data": B64}, "image"),
        ({"data": "data:application/pdf;base64," + base64.b64encode(PDF).decode()}, "pdf"),
    ],
)
def test_fields_tell_the_kind(body: Any, kind: str) -> None:
    assert unified(body).kind == kind


@pytest.mark.parametrize(
    ("content_type", "body", "kind"),
    [
        ("application/octet-stream", PNG, "image"),
        ("application/octet-stream", PDF, "pdf"),
        ("application/octet-stream", b"\0\1\2", "raw"),
        ("application/x-www-form-urlencoded", PDF, "pdf"),
        ("image/png", PNG, "image"),
        ("Image/JPEG; q=1", image_file("JPEG"), "image"),
        ("application/pdf", PDF, "pdf"),
        ("text/plain; charset=utf-8", "grüß".encode(), "text"),
        ("text/csv", b"a,b\n1,2\n", "tabular"),
    ],
)
def test_uploads_tell_it_by_media_type_then_by_first_bytes(content_type: str, body: bytes, kind: str) -> None:
    assert unified(body, content_type).kind == kind


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"])
def test_first_bytes(kind: str) -> None:
    assert sniff(image_file(kind)) == f"image/{kind.lower()}"


def test_uploads_reach_services_as_data_and_under_their_kind() -> None:
    assert unified(PDF, "application/octet-stream").fields == {"data": PDF, "pdf_file": PDF}
    assert unified(PNG, "image/png").fields == {"data": PNG, "image": PNG}
    assert unified(b"hi", "text/plain").fields == {"data": b"hi", "text": "hi"}
    assert unified(b"a,b\n1,x\n2,\n", "text/csv").fields == {"data": [{"a": 1, "b": "x"}, {"a": 2, "b": None}]}


def test_files_in_json_reach_services_as_bytes() -> None:
    fields = unified({"image": B64, "images": [B64], "pdf_file": B64, "byte_stream": B64, "note": "x"}).fields
    assert fields == {"image": PNG, "images": [PNG], "pdf_file": PNG, "byte_stream": PNG, "note": "x"}


def test_csv_keeps_text_columns() -> None:
    request = InferRequest(id=1, content_type="text/csv")
    found = unify(request, b"zip,n\n01234,5\n", text_columns=["zip"])
    assert found.fields["data"] == [{"zip": "01234", "n": 5}]


# ---- the override --------------------------------------------------------------------------------


def test_the_override_wins() -> None:
    both = {"text": "what is it?", "image": B64}
    assert unified(both, inference_type="image").kind == "image"
    assert unified(both, inference_type="text").kind == "text"
    assert unified(b"a,b\n1,2\n", "application/octet-stream", "tabular").fields["data"] == [{"a": 1, "b": 2}]
    assert unified(b"hello", "application/octet-stream", "text").fields["text"] == "hello"
    assert unified({"data": B64}, inference_type="image").fields["image"] == PNG
    assert unified({"images": [B64]}, inference_type="image").kind == "images"
    assert unified(b'{"inputs": []}', "application/octet-stream", "v2").kind == "v2"


def test_the_override_is_kept_for_services_that_ask_again() -> None:
    fields = unified({"text": "x", "image": B64}, inference_type="image").fields
    assert fields["inference_type"] == "image"
    assert kind_of(fields) == "image"
    assert "inference_type" not in unified({"text": "x", "inference_type": "image"}).fields


def test_unknown_overrides() -> None:
    with pytest.raises(InvalidRequest, match="inference_type=video is unknown: write one of text, image"):
        unified({"text": "x"}, inference_type="video")
    with pytest.raises(InvalidRequest, match="inference_type=image needs the field image, images"):
        _ = unified({"text": "x"}, inference_type="image").kind


# ---- refusals ------------------------------------------------------------------------------------


def test_ambiguity_lists_the_fields_it_saw() -> None:
    with pytest.raises(InvalidRequest, match="ambiguous: it has the fields text, data, image; send one of them"):
        _ = unified({"image": B64, "text": "x", "data": [{"a": 1}], "other": 1}).kind
    with pytest.raises(InvalidRequest, match="ambiguous: it has the fields image, images"):
        _ = unified({"image": B64, "images": [B64]}).kind


def test_no_known_field() -> None:
    with pytest.raises(InvalidRequest, match=r"none of the fields text, data, .*; its fields: txt, other"):
        _ = unified({"txt": "x", "other": 1}).kind


@pytest.mark.parametrize(
    ("body", "content_type", "words"),
    [
        (b"", "application/json", "empty"),
        (b"", "image/png", "empty"),
        (b"[1]", "application/json", "must be a JSON object, not a list"),
        (b'{"text": ', "application/json", "not valid JSON"),
        (b"[" * 100_000, "application/json", "not valid JSON"),
        ({"image": "???"}, "application/json", "'image' is not valid base64"),
        ({"image": [[1, 2]]}, "application/json", "takes a file as base64 text, not a list"),
        ({"image": "https://example.com/a.png"}, "application/json", "nothing is fetched"),
        ({"image": "file:///etc/passwd"}, "application/json", "nothing is fetched"),
        ({"image": "data:image/svg+xml,%3Csvg"}, "application/json", "without base64"),
        ({"image": ""}, "application/json", "empty"),
        ({"data": "no, text!"}, "application/json", "takes records"),
        ({"data": base64.b64encode(b"some text").decode()}, "application/json", "neither records nor an image"),
        (PDF, "image/png", "said to be image/png, but its first bytes are of application/pdf"),
        (PNG, "application/pdf", "said to be application/pdf, but its first bytes are of image/png"),
        (b"\xff\xfe", "text/plain", "not UTF-8"),
        (b"\xff\xfea,b\n", "text/csv", "not UTF-8"),
        (b'a,b\n"1', "text/csv", "no CSV"),
    ],
)
def test_refused(body: Any, content_type: str, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        unified(body, content_type)


def test_unknown_media_types() -> None:
    with pytest.raises(UnsupportedMediaType, match="application/xml is not understood"):
        unified(b"<a/>", "application/xml")
    with pytest.raises(UnsupportedMediaType, match="UTF-8"):
        unified(b"{}", "application/json; charset=latin-1")


@pytest.mark.parametrize(
    "text",
    [
        B64,
        "data:image/png;base64," + B64,
        "data:;base64," + B64,
        "data:image/png;name=a.png;base64," + B64,
        "\n".join(B64[at : at + 20] for at in range(0, len(B64), 20)),
        base64.urlsafe_b64encode(PNG).decode().rstrip("="),
    ],
)
def test_base64_in_its_forms(text: str) -> None:
    assert decode_file(text, "image") == PNG


# ---- forms ---------------------------------------------------------------------------------------


def test_a_form_with_one_file() -> None:
    body, content_type = form(("file", PDF, "report.pdf", "application/pdf"), ("question", "how much?"))
    found = unified(body, content_type)
    assert found.kind == "pdf"
    assert found.fields == {"data": PDF, "pdf_file": PDF, "question": "how much?"}
    assert found.filename == "report.pdf"


@pytest.mark.parametrize("media", [(), ("application/octet-stream",)])
def test_a_form_whose_file_only_its_name_tells(media: tuple[str, ...]) -> None:
    def fields(filename: str, data: bytes) -> Any:
        return unified(*form(("file", data, filename, *media))).fields

    assert fields("rows.CSV", b"a,b\n1,2\n")["data"] == [{"a": 1, "b": 2}]
    assert fields("note.txt", b"hi")["text"] == "hi"
    assert fields("rows.csv", PNG)["image"] == PNG, "the first bytes come before the name"
    assert fields("rows.bin", b"a,b\n1,2\n") == {"data": b"a,b\n1,2\n"}


def test_a_form_whose_part_names_the_kind() -> None:
    body, content_type = form(("image", PNG, "a.png"))
    assert unified(body, content_type).fields == {"data": PNG, "image": PNG}
    body, content_type = form(("pdf_file", PNG, "a.pdf"))
    with pytest.raises(InvalidRequest, match="said to be application/pdf"):
        unified(body, content_type)


def test_a_form_with_several_images() -> None:
    body, content_type = form(("file", PNG, "a.png", "image/png"), ("file", image_file("JPEG"), "b.jpg"))
    found = unified(body, content_type)
    assert found.kind == "images"
    assert [sniff(each) for each in found.fields["images"]] == ["image/png", "image/jpeg"]
    assert found.filenames == ["a.png", "b.jpg"]
    body, content_type = form(("images", PNG, "a.png"))
    assert unified(body, content_type).fields["images"] == [PNG]


def test_a_form_without_files() -> None:
    body, content_type = form(("text", "hello"), ("params", '{"n": 1}'))
    found = unified(body, content_type)
    assert found.kind == "text"
    assert found.fields == {"text": "hello", "params": {"n": 1}}
    body, content_type = form(("data", '[{"a": 1}]'))
    assert unified(body, content_type).fields == {"data": [{"a": 1}]}


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([("file", b"", "a.png")], "'file' of the form is empty"),
        ([("text", "a"), ("text", "b")], "has the field 'text' twice"),
        ([("file", PNG, "a"), ("file", b"what", "b")], "not one more image"),
        ([("file", PDF, "a"), ("file", PDF, "b")], "not one more image"),
        ([("file", PNG, "a"), ("data", "[]")], "ambiguous"),
    ],
)
def test_forms_that_are_refused(parts: list[Any], words: str) -> None:
    body, content_type = form(*parts)
    with pytest.raises(InvalidRequest, match=words):
        unified(body, content_type)


# ---- anything --------------------------------------------------------------------------------------

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=20) | st.just(B64),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(["text", "data", "image", "images", "pdf_file", "byte_stream", "inputs", "other"])


@given(st.dictionaries(NAMES, VALUES, max_size=4), st.sampled_from(["", "text", "image", "pdf", "tabular", "v2"]))
def test_any_json_has_a_kind_or_a_clear_error(body: dict[str, Any], inference_type: str) -> None:
    with suppress(ServingError):
        assert unified(body, inference_type=inference_type).kind


@given(st.binary(max_size=300), st.sampled_from(["", "image/png", "application/pdf", "text/csv", "text/plain"]))
def test_any_bytes_have_a_kind_or_a_clear_error(body: bytes, content_type: str) -> None:
    with suppress(ServingError):
        assert unified(body, content_type).kind
