"""Image files to what a model takes, and hostile ones refused before they cost anything."""

from __future__ import annotations

import base64
import io
import resource
import struct
import warnings
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from modelhub.serving.protocol.errors import InvalidRequest, ServingError, TooLarge
from modelhub.serving.protocol.messages import InferRequest
from modelhub.serving.workers.convert import images
from modelhub.serving.workers.convert.images import (
    ImageOptions,
    PixelBudget,
    check_image,
    convert,
    open_image,
    to_array,
    to_png,
)
from support.files import column, form, gradient, image_file, keeping, pdf_file, png_bomb, send, tensor
from support.v2_client import binary_request
from support.v2_client import tensor as v2

PNG, JPEG = gradient("PNG"), gradient("JPEG")
RED = image_file("PNG", (20, 10), "red")


def budget(**options: Any) -> PixelBudget:
    return PixelBudget(ImageOptions(**options))


def opened(raw: bytes) -> Any:
    return open_image(raw, budget())


def png_of(mode: str, color: Any) -> bytes:
    return image_file("PNG", (4, 4), color, mode)


# ---- what a model gets ------------------------------------------------------------------------------


def test_a_binary_column_gets_the_file_itself() -> None:
    model, kept = keeping(column("binary", "image"))
    assert send(model, PNG, "image/png")[0] == 200
    assert kept.got["image"].tolist() == [PNG]
    body, content_type = form(("file", PNG, "a"), ("file", JPEG, "b"))
    assert send(model, body, content_type)[0] == 200
    assert kept.got["image"].tolist() == [PNG, JPEG]


def test_a_string_column_gets_it_as_base64() -> None:
    model, kept = keeping(column("string", "image"))
    assert send(model, PNG, "image/png")[0] == 200
    assert kept.got["image"].tolist() == [base64.b64encode(PNG).decode()]


def test_files_are_made_anew_where_the_configuration_asks() -> None:
    model, kept = keeping(column("binary", "image"), image={"size": (8, 6), "mode": "L", "dtype": None})
    assert send(model, JPEG, "image/jpeg")[0] == 200
    with Image.open(io.BytesIO(kept.got["image"][0])) as image:
        assert (image.format, image.size, image.mode) == ("PNG", (8, 6), "L")


def test_without_a_signature_a_table_of_files() -> None:
    model, kept = keeping()
    assert send(model, {"images": [base64.b64encode(PNG).decode()]})[0] == 200
    assert kept.got["image"].tolist() == [PNG]


def test_without_a_signature_arrays_where_the_configuration_asks() -> None:
    model, kept = keeping(image={"size": [8, 6], "dtype": "float32", "layout": "CHW"})
    assert send(model, RED, "image/png")[0] == 200
    assert (kept.got.shape, kept.got.dtype) == ((1, 3, 6, 8), "float32")
    assert kept.got[0, :, 0, 0].tolist() == [1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("spec", "options", "shape", "first"),
    [
        (("uint8", -1, 5, 10, 3), {}, (1, 5, 10, 3), [255, 0, 0]),
        (("float32", -1, 5, 10, 3), {}, (1, 5, 10, 3), [1, 0, 0]),
        (("float64", -1, 5, 10, 3), {}, (1, 5, 10, 3), [1, 0, 0]),
        (("float32", -1, 5, 10, 3), {"dtype": "uint8"}, (1, 5, 10, 3), [255, 0, 0]),
        (("int64", -1, 5, 10, 4), {}, (1, 5, 10, 4), [255, 0, 0, 255]),
        (("uint8", -1, 3, 5, 10), {}, (1, 3, 5, 10), [255] * 10),
        (("uint8", -1, -1, -1, 3), {}, (1, 10, 20, 3), [255, 0, 0]),
        (("uint8", -1, -1, -1, -1), {"mode": "L", "size": (7, 3)}, (1, 3, 7, 1), [76]),
        (("uint8", -1, -1, -1, -1), {"layout": "CHW"}, (1, 3, 10, 20), [255] * 20),
        (("uint8", -1, 5, 10), {}, (1, 5, 10), [76] * 10),
        (("uint8", -1, -1, 3), {}, (10, 20, 3), None),
        (("uint8", 5, 10, 1), {}, (5, 10, 1), None),
        (("uint8", 5, 10), {}, (5, 10), None),
        (("uint8", -1, 25), {}, (1, 25), None),
        (("uint8", -1, 75), {}, (1, 75), None),
        (("uint8", -1, 60), {"size": (10, 2), "mode": "RGB"}, (1, 60), None),
    ],
)
def test_tensors(spec: Any, options: dict[str, Any], shape: tuple[int, ...], first: Any) -> None:
    dtype, *dimensions = spec
    model, kept = keeping(tensor(dtype, *dimensions), image=options)
    status, answer = send(model, RED, "image/png")
    assert status == 200, answer
    assert (kept.got.shape, kept.got.dtype) == (shape, dtype)
    if first:
        assert kept.got[0, 0, 0].tolist() == first if len(shape) == 4 else kept.got[0, 0].tolist() == first


def test_several_images_are_a_batch() -> None:
    model, kept = keeping(tensor("uint8", -1, 4, 4, 3))
    body, content_type = form(("file", PNG, "a"), ("file", RED, "b"))
    assert send(model, body, content_type)[0] == 200
    assert kept.got.shape == (2, 4, 4, 3)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (("uint8", -1, -1, -1, 3), "different sizes"),
        (("uint8", -1, -1, 3), "one image at a time"),
        (("uint8", -1, 5, 5, 7), "7 channels, which no image has"),
        (("uint8", -1, 17), "takes 17 numbers per image"),
        (("uint8", -1), "takes no images"),
        (("uint8", -1, 2, 4, 4, 3), "takes no images"),
        (("bool", -1, 4, 4, 3), "takes no images"),
    ],
)
def test_images_that_do_not_fit(spec: Any, words: str) -> None:
    dtype, *dimensions = spec
    body, content_type = form(("file", PNG, "a"), ("file", RED, "b"))
    status, answer = send(keeping(tensor(dtype, *dimensions))[0], body, content_type)
    assert status == 400
    assert words in answer["message"]


def test_other_inputs_beside_an_image() -> None:
    model, kept = keeping(column("binary", "image"), column("string", "question"))
    body, content_type = form(("file", PNG, "a.png"), ("question", "what is it?"))
    assert send(model, body, content_type)[0] == 200
    assert kept.got.to_dict("records") == [{"image": PNG, "question": "what is it?"}]
    model, kept = keeping(tensor("uint8", -1, 4, 4, 3, name="image"), tensor("float32", -1, name="scale"))
    body = {"image": base64.b64encode(PNG).decode(), "scale": [0.5]}  # type: ignore[assignment]
    assert send(model, body)[0] == 200
    assert kept.got["scale"].tolist() == [0.5]


def test_v2_bytes_carry_images_and_documents() -> None:
    model, kept = keeping(tensor("uint8", -1, 4, 4, 3))
    encoded = base64.b64encode(PNG).decode()
    for parameters in ({}, {"content_type": "base64"}):
        body = {"inputs": [v2("anything", "BYTES", [1], [encoded], **parameters)]}
        status, answer = send(model, body)
        assert status == 200, answer
        assert kept.got.shape == (1, 4, 4, 3)
        assert "outputs" in answer
    raw, json_size = binary_request(v2("x", "BYTES", [2], [PNG, JPEG]))
    assert send(model, raw, "", json_size=json_size)[0] == 200
    assert kept.got.shape == (2, 4, 4, 3)
    raw, json_size = binary_request(v2("x", "BYTES", [1], [pdf_file("red", "blue")]))
    assert send(model, raw, "", json_size=json_size)[0] == 200
    assert kept.got.shape == (2, 4, 4, 3)
    status, answer = send(model, {"inputs": [v2("x", "BYTES", [1], ["nothing"])]})
    assert (status, answer["code"]) == (0, "invalid_request")
    model, kept = keeping(column("binary", "image"))
    body = {"inputs": [v2("image", "BYTES", [1], [encoded], content_type="base64")]}
    assert send(model, body)[0] == 200
    assert kept.got["image"].tolist() == [PNG]


# ---- pixels --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"])
def test_every_format_is_opened(kind: str) -> None:
    raw = image_file(kind, (20, 10), "red")
    pixels = to_array(opened(raw), "uint8")
    assert pixels.shape == (10, 20, 3)
    assert np.abs(pixels.astype(int) - [255, 0, 0]).max() < 3
    check_image(raw, budget())


def test_transparency_is_laid_on_white() -> None:
    image = opened(png_of("RGBA", (255, 0, 0, 0)))
    assert convert(image, "RGB", None).getpixel((0, 0)) == (255, 255, 255)
    assert convert(image, "L", None).getpixel((0, 0)) == 255
    assert convert(image, "RGBA", None).getpixel((0, 0)) == (255, 0, 0, 0)


def test_sixteen_bits_are_scaled() -> None:
    raw = io.BytesIO()
    Image.fromarray(np.full((4, 4), 32896, "uint16")).save(raw, "PNG")
    assert convert(opened(raw.getvalue()), "L", None).getpixel((0, 0)) == 128


def test_photographs_are_turned_upright() -> None:
    raw = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (20, 10)).save(raw, "JPEG", exif=exif)
    assert opened(raw.getvalue()).size == (10, 20)


def test_png_of_any_mode() -> None:
    for mode in ("1", "L", "P", "RGB", "RGBA", "CMYK", "F"):
        assert to_png(Image.new(mode, (2, 2))).startswith(b"\x89PNG")


# ---- hostile files -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (PNG[: len(PNG) // 2], "broken or cut off"),
        (JPEG[: len(JPEG) // 2], "broken or cut off"),
        (image_file("WEBP")[:30], "WEBP"),
        (image_file("TIFF")[:60], "TIFF"),
        (b"\x89PNG\r\n\x1a\n", "PNG"),
        (b"\xff\xd8\xff" + bytes(100), "JPEG"),
        (b"GIF89a", "GIF"),
        (b"BM" + b"\xff" * 60, "BMP"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "of no kind known here"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "of no kind known here"),
        (b"PK\x03\x04", "of no kind known here"),
        (b"\x89PNG\r\n\x1a\n" + JPEG, "begins like PNG"),
    ],
)
def test_broken_files(raw: bytes, words: str) -> None:
    for look in (open_image, check_image):
        with pytest.raises(InvalidRequest, match=words):
            look(raw, budget())
    status, answer = send(keeping(tensor("uint8", -1, 4, 4, 3))[0], raw, "image/png")
    assert status == answer["statusCode"] == 400


@pytest.mark.parametrize(
    ("side", "words"), [(10_000, "10000 x 10000 pixels: at most 64000000"), (60_000, "too many pixels")]
)
def test_a_bomb_is_refused_by_its_header(side: int, words: str) -> None:
    raw = png_bomb(side, side)
    assert len(raw) < 5000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for look in (open_image, check_image):
        with pytest.raises(TooLarge, match=words):
            look(raw, budget())
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10
    status, answer = send(keeping(column("binary", "image"))[0], raw, "image/png")
    assert status == answer["statusCode"] == 413


def test_the_limits_come_from_the_configuration() -> None:
    model, _ = keeping(tensor("uint8", -1, 4, 4, 3), image={"max_pixels": 300})
    assert send(model, RED, "image/png")[0] == 200
    assert send(model, PNG, "image/png")[0] == 413
    encoded = base64.b64encode(RED).decode()
    status, answer = send(model, {"images": [encoded] * 13})
    assert status == 413
    assert "more than 2400 pixels together" in answer["message"]


def test_what_images_become_is_limited_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_ARRAY_BYTES", 20 * 10 * 3 * 4 * 2)
    model, _ = keeping(tensor("float32", -1, -1, -1, 3))
    encoded = base64.b64encode(RED).decode()
    assert send(model, {"images": [encoded] * 2})[0] == 200
    assert send(model, {"images": [encoded] * 3})[0] == 413
    assert send(model, image_file("PNG", (30, 30)), "image/png")[0] == 413


def test_a_header_that_lies_about_the_size() -> None:
    raw = bytearray(PNG)
    raw[16:24] = struct.pack(">II", 5000, 5000)
    with pytest.raises(InvalidRequest):
        opened(bytes(raw))


def test_polyglots_are_what_they_begin_with() -> None:
    both = RED + pdf_file("red")
    model, kept = keeping(tensor("uint8", -1, 4, 4, 3))
    assert send(model, both, "application/octet-stream")[0] == 200
    assert kept.got.shape == (1, 4, 4, 3)
    assert send(model, both, "application/pdf")[0] == 400
    assert send(model, both, "application/octet-stream", query={"inference_type": "pdf"})[0] == 400


@settings(max_examples=60)
@given(st.sampled_from([PNG, JPEG, image_file("GIF"), image_file("TIFF"), image_file("WEBP")]), st.data())
def test_any_damage_is_opened_or_refused(raw: bytes, data: st.DataObject) -> None:
    damaged = bytearray(raw)
    for _ in range(data.draw(st.integers(1, 6))):
        damaged[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(1, len(raw)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with suppress(ServingError):
            open_image(bytes(damaged[:end]), budget())


def test_a_request_after_a_hostile_one_is_answered() -> None:
    model, kept = keeping(column("binary", "image"))
    assert send(model, png_bomb(60_000, 60_000), "image/png")[0] == 413
    request = InferRequest(id=2, content_type="image/png")
    assert model.predict(model.decode(request, PNG)) == 1
    assert kept.got["image"].tolist() == [PNG]


def test_a_limit_above_pillows_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The configuration's limit counts, also where it is more than Pillow would decode."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    picture = image_file("PNG", (30, 30))
    assert open_image(picture, PixelBudget(ImageOptions(max_pixels=900))).size == (30, 30)
    with pytest.raises(TooLarge, match="30 x 30"):
        open_image(picture, PixelBudget(ImageOptions(max_pixels=899)))
