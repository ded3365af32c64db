"""PDF files to pages, by both engines; hostile ones refused."""

from __future__ import annotations

import base64
import resource
import time
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelhub.serving.protocol.errors import DeadlineExceeded, InvalidRequest, ServingError, TooLarge
from modelhub.serving.workers.convert import pdf
from modelhub.serving.workers.convert.files import sniff
from modelhub.serving.workers.convert.images import ImageOptions, PixelBudget
from modelhub.serving.workers.convert.pdf import PdfOptions, choose_pages
from support.files import A4, column, image_file, keeping, pdf_file, pdf_with_box, send, tensor

COLORS = ("red", "lime", "blue", "white", "black", "yellow")
RGB = {"red": (255, 0, 0), "lime": (0, 255, 0), "blue": (0, 0, 255), "white": (255,) * 3, "black": (0,) * 3}
DOCUMENT = pdf_file(*COLORS)
SMALL = {"dpi": 72}


@pytest.fixture(params=["poppler", "pdfium"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "poppler" and not pdf.has_poppler():
        pytest.skip("poppler is not installed")
    if request.param == "pdfium":
        monkeypatch.setattr(pdf, "has_poppler", lambda: False)
    return str(request.param)


def pages(raw: bytes, deadline: float = 0.0, max_pixels: int = 64_000_000, **options: Any) -> list[Any]:
    budget = PixelBudget(ImageOptions(max_pixels=max_pixels))
    return list(pdf.render(raw, PdfOptions(**{**SMALL, **options}), budget, deadline))


def color(image: Any) -> str:
    red, green, blue = image.getpixel((image.width // 2, image.height // 2))
    return min(RGB, key=lambda name: sum(abs(a - b) for a, b in zip((red, green, blue), RGB[name], strict=True)))


def test_all_pages_in_their_order(engine: str) -> None:
    found = pages(DOCUMENT)
    assert [color(each) for each in found[:5]] == list(COLORS[:5])
    assert {(each.size, each.mode) for each in found} == {(A4, "RGB")}


def test_resolution_and_grey(engine: str) -> None:
    (page,) = pages(DOCUMENT, dpi=144, pages="2", gray=True)
    assert page.mode == "L"
    assert abs(page.width - 2 * A4[0]) <= 1
    assert abs(page.height - 2 * A4[1]) <= 1


def test_chosen_pages(engine: str) -> None:
    assert [color(each) for each in pages(DOCUMENT, pages="1,3-5")] == ["red", "blue", "white", "black"]


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [("all", [1, 2, 3, 4]), ("2", [2]), ("1,3-", [1, 3, 4]), ("3-9", [3, 4]), ("2-2,2", [2]), ("4,1", [1, 4])],
)
def test_lists_of_pages(wanted: str, chosen: list[int]) -> None:
    assert choose_pages(wanted, 4, 10) == chosen


def test_pages_that_are_not_there() -> None:
    with pytest.raises(InvalidRequest, match="has 4 pages: none of the pages 7"):
        choose_pages("7", 4, 10)


def test_a_model_of_tensors_gets_pages(engine: str) -> None:
    model, kept = keeping(tensor("uint8", -1, 10, 8, 3), pdf=SMALL)
    assert send(model, DOCUMENT, "application/pdf")[0] == 200
    assert kept.got.shape == (6, 10, 8, 3)
    assert kept.got[0, 5, 4].tolist()[0] > 250


def test_a_model_of_files_gets_pages_as_png(engine: str) -> None:
    model, kept = keeping(column("binary", "image"), pdf=SMALL)
    assert send(model, {"pdf_file": base64.b64encode(DOCUMENT).decode()})[0] == 200
    assert [sniff(each) for each in kept.got["image"]] == ["image/png"] * 6


def test_a_column_for_documents_gets_it_whole() -> None:
    for name in ("pdf_file", "byte_stream", "document"):
        model, kept = keeping(column("binary", name))
        assert send(model, {"byte_stream": base64.b64encode(DOCUMENT).decode()})[0] == 200
        assert kept.got[name].tolist() == [DOCUMENT]
        assert send(model, image_file(), "image/png", query={"inference_type": "pdf"})[0] == 400


# ---- hostile files -----------------------------------------------------------------------------------


def test_too_many_pages(engine: str) -> None:
    with pytest.raises(TooLarge, match="has 6 pages: at most 5 are rendered"):
        pages(DOCUMENT, max_pages=5)
    assert len(pages(DOCUMENT, max_pages=5, pages="1-5")) == 5
    model, _ = keeping(column("binary", "image"), pdf={**SMALL, "max_pages": 5})
    status, answer = send(model, DOCUMENT, "application/pdf")
    assert status == answer["statusCode"] == 413


@pytest.mark.parametrize("crop", ["", "/CropBox [0 0 14000 14000]"])
def test_pages_that_are_too_large(engine: str, crop: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(TooLarge, match=r"page 1 is .* pixels: at most 64000000"):
        pages(pdf_with_box(14_400, 14_400, crop), dpi=200)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10


def test_a_small_window_on_a_large_page_is_what_is_rendered(engine: str) -> None:
    (page,) = pages(pdf_with_box(14_400, 14_400, "/CropBox [0 0 72 72]"), dpi=200)
    assert page.size == (200, 200)


def test_all_pages_together_are_too_large(engine: str) -> None:
    with pytest.raises(TooLarge, match="pixels together"):
        pages(pdf_file(*["red"] * 9), max_pixels=A4[0] * A4[1] + 10_000)


@pytest.mark.parametrize(
    "raw",
    [
        DOCUMENT[: len(DOCUMENT) // 3],
        b"%PDF-1.7\n",
        b"%PDF-1.4\n" + bytes(2000),
        pdf_with_box(0, 0),
        pdf_with_box(72, 72).replace(b"/Type /Page /Parent", b"/Typo /Page /Parent").replace(b"/Count 1", b"/Count 9"),
    ],
)
def test_broken_documents(engine: str, raw: bytes) -> None:
    model, _ = keeping(column("binary", "image"), pdf={"max_pages": 5})
    status, answer = send(model, raw, "application/pdf")
    assert status in (400, 413, 200), answer
    if status == 200:
        # A lenient engine may invent a page of the standard size.
        assert engine in ("poppler", "pdfium")
    else:
        assert "PDF" in answer["message"]


def test_what_is_no_pdf(engine: str) -> None:
    with pytest.raises(InvalidRequest, match="does not begin with %PDF-"):
        pages(b"GIF89a" + DOCUMENT)


def test_encrypted_documents(engine: str) -> None:
    raw = DOCUMENT.replace(
        b"trailer\n<<",
        b"trailer\n<< /Encrypt << /Filter /Standard /V 1 /R 2 /O ("
        + b"o" * 32
        + b") /U ("
        + b"u" * 32
        + b") /P -4 >> /ID [<00><00>]",
    )
    assert raw != DOCUMENT
    with pytest.raises(InvalidRequest, match="the PDF is"):
        pages(raw)


def test_the_deadline_ends_it(engine: str) -> None:
    with pytest.raises(DeadlineExceeded):
        pages(DOCUMENT, deadline=time.monotonic() - 1)


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(0, len(DOCUMENT) - 1), st.integers(0, 255)), min_size=1, max_size=8))
def test_any_damage_is_rendered_or_refused(changes: list[tuple[int, int]]) -> None:
    damaged = bytearray(DOCUMENT)
    for at, value in changes:
        damaged[at] = value
    with suppress(ServingError):
        pages(bytes(damaged), dpi=20)
