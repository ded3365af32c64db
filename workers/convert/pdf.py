"""PDF files to pages: PIL images, one by one, in the worker.

Through poppler's `pdftoppm` (pdf2image) where it is installed: a process of its own, so that a hostile file
cannot take the worker along; else through pypdfium2. Before a page is rendered the number of pages and
its size in pixels are checked against the limits. `pdf:` of the configuration is a `PdfOptions`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, Optional, Tuple

from ...protocol.errors import DeadlineExceeded, InvalidRequest, TooLarge
from ...protocol.limits import PDF_DPI, PDF_PAGES
from .images import PixelBudget

#: Seconds for one document where the request has no deadline.
TIMEOUT = 120.0
_PAGES_AT_ONCE = 4
_PAGE_SIZE = re.compile(rb"^Page\s+(\d+)\s+size:\s+([\d.]+) x ([\d.]+) pts", re.MULTILINE)
_PAGE_COUNT = re.compile(rb"^Pages:\s+(\d+)", re.MULTILINE)


@dataclass(frozen=True)
class PdfOptions:
    """The entry's `pdf:`."""

    dpi: int = PDF_DPI
    pages: str = "all"  # or a list such as 1,4-6 or 3-
    max_pages: int = PDF_PAGES
    gray: bool = False

    @classmethod
    def from_spec(cls, spec: Optional[Dict[str, Any]]) -> PdfOptions:
        """Of `WorkerSpec.pdf`; unknown keys are left to newer workers."""
        known = {key: value for key, value in (spec or {}).items() if key in cls.__dataclass_fields__}
        return cls(**{key: value for key, value in known.items() if value is not None})


def render(raw: bytes, options: PdfOptions, budget: PixelBudget, deadline: float = 0.0) -> Iterator[Any]:
    """The chosen pages as PIL images, RGB or L, in the document's order.

    `deadline` in seconds of CLOCK_MONOTONIC, 0 for none. Raises InvalidRequest (broken, encrypted, no such page),
    TooLarge (pages, pixels) and DeadlineExceeded.
    """
    if not raw.startswith(b"%PDF-"):
        raise InvalidRequest("the file is no PDF: it does not begin with %PDF-")
    until = deadline or time.monotonic() + TIMEOUT
    if has_poppler():
        return _with_poppler(raw, options, budget, until)
    return _with_pdfium(raw, options, budget, until)


def has_poppler() -> bool:
    """Are poppler's programs installed, and pdf2image importable?"""
    if shutil.which("pdftoppm") is None or shutil.which("pdfinfo") is None:
        return False
    try:
        import pdf2image  # noqa: F401
    except ImportError:
        return False
    return True


def choose_pages(wanted: str, count: int, limit: int) -> List[int]:
    """The numbers (from 1) that `wanted` names in a document of `count` pages. Raises TooLarge, InvalidRequest."""
    chosen: List[int] = []
    for item in ("1-" if wanted == "all" else wanted).split(","):
        first, dash, last = item.partition("-")
        end = (int(last) if last else count) if dash else int(first)
        if len(chosen) + min(end, count) - int(first) + 1 > limit:
            raise TooLarge(f"the PDF has {count} pages: at most {limit} are rendered")
        chosen.extend(range(max(1, int(first)), min(end, count) + 1))
    if not chosen:
        raise InvalidRequest(f"the PDF has {count} pages: none of the pages {wanted} that this model takes")
    return sorted(set(chosen))


def _with_poppler(raw: bytes, options: PdfOptions, budget: PixelBudget, until: float) -> Iterator[Any]:
    from pdf2image import convert_from_path

    descriptor, path = tempfile.mkstemp(suffix=".pdf")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(raw)
        chosen = choose_pages(options.pages, _count_pages(path, until), options.max_pages)
        sizes = _page_sizes(path, chosen[0], chosen[-1], until)
        for number in chosen:
            budget.take(*_pixels(sizes.get(number, (0.0, 0.0)), options.dpi), f"page {number}")
        for first, last in _runs(chosen):
            # pdfinfo's sizes are those of the crop boxes: what viewers show, too.
            try:
                pages = convert_from_path(
                    path,
                    dpi=options.dpi,
                    first_page=first,
                    last_page=last,
                    grayscale=options.gray,
                    use_cropbox=True,
                    timeout=_left(until),
                )
            except DeadlineExceeded:
                raise
            except Exception as error:  # pdf2image's own kinds, and Pillow's for what pdftoppm left
                _left(until)
                raise InvalidRequest(f"the PDF cannot be rendered: {type(error).__name__}") from None
            if len(pages) != last - first + 1:
                raise InvalidRequest(f"the PDF is broken: pages {first} to {last} cannot be rendered")
            for page in pages:
                yield page.convert("L" if options.gray else "RGB")
    finally:
        os.unlink(path)


def _with_pdfium(raw: bytes, options: PdfOptions, budget: PixelBudget, until: float) -> Iterator[Any]:
    import pypdfium2

    try:
        document = pypdfium2.PdfDocument(raw)
    except pypdfium2.PdfiumError as error:
        raise _unreadable(str(error)) from None
    try:
        chosen = choose_pages(options.pages, len(document), options.max_pages)
        for number in chosen:
            _left(until)
            try:
                page = document[number - 1]
                budget.take(*_pixels(page.get_size(), options.dpi), f"page {number}")
                bitmap = page.render(scale=options.dpi / 72, grayscale=options.gray)
                image = bitmap.to_pil().convert("L" if options.gray else "RGB")
                bitmap.close()
                page.close()
            except pypdfium2.PdfiumError as error:
                raise InvalidRequest(f"page {number} of the PDF cannot be rendered: {error}") from None
            yield image
    finally:
        document.close()


def _count_pages(path: str, until: float) -> int:
    match = _PAGE_COUNT.search(_pdfinfo(path, [], until))
    if match is None:
        raise InvalidRequest("the PDF is broken: it does not say how many pages it has")
    return int(match.group(1))


def _page_sizes(path: str, first: int, last: int, until: float) -> Dict[int, Tuple[float, float]]:
    """Points by page number."""
    text = _pdfinfo(path, ["-f", str(first), "-l", str(last)], until)
    return {int(number): (float(width), float(height)) for number, width, height in _PAGE_SIZE.findall(text)}


def _pdfinfo(path: str, arguments: List[str], until: float) -> bytes:
    try:
        done = subprocess.run(
            ["pdfinfo", *arguments, path], capture_output=True, stdin=subprocess.DEVNULL, timeout=_left(until)
        )
    except subprocess.TimeoutExpired:
        raise _too_late() from None
    if done.returncode:
        raise _unreadable(done.stderr.decode("utf-8", "replace"))
    return done.stdout


def _unreadable(complaint: str) -> InvalidRequest:
    if "password" in complaint.lower():
        return InvalidRequest("the PDF is encrypted: send it without a password")
    return InvalidRequest("the PDF is broken or cut off: it cannot be opened")


def _pixels(points: Tuple[float, float], dpi: int) -> Tuple[int, int]:
    width, height = points
    if not (width > 0 and height > 0):
        raise InvalidRequest("the PDF is broken: a page has no size")
    return max(1, round(width * dpi / 72)), max(1, round(height * dpi / 72))


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise _too_late()
    return left


def _too_late() -> DeadlineExceeded:
    return DeadlineExceeded("the deadline of this request passed while its PDF was rendered")


def _runs(numbers: List[int]) -> Iterator[Tuple[int, int]]:
    """Neighbouring numbers as (first, last), a few pages at a time: rendered pages are large."""
    first = last = numbers[0]
    for number in numbers[1:]:
        if number != last + 1 or last - first + 1 == _PAGES_AT_ONCE:
            yield first, last
            first = number
        last = number
    yield first, last
