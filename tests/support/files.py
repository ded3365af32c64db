"""Files and forms as clients send them: images, PDFs, multipart bodies. And a model that keeps what it gets."""

from __future__ import annotations

import io
import json
import struct
import zlib
from typing import Any

from PIL import Image

from modelhub.serving.protocol.errors import ServingError
from modelhub.serving.protocol.messages import InferRequest
from modelhub.serving.protocol.signature import Signature, signature_from_mlmodel
from modelhub.serving.workers.dialects.table import DIALECTS
from modelhub.serving.workers.model.call import Answer, Call
from modelhub.serving.workers.model.served import ServedModel

A4 = (595, 842)


def image_file(kind: str = "PNG", size: tuple[int, int] = (20, 10), color: Any = "red", mode: str = "RGB") -> bytes:
    target = io.BytesIO()
    Image.new(mode, size, color).save(target, kind)
    return target.getvalue()


def gradient(kind: str = "PNG", size: tuple[int, int] = (64, 48)) -> bytes:
    """An image that does not compress to nothing."""
    target = io.BytesIO()
    Image.radial_gradient("L").resize(size).convert("RGB").save(target, kind)
    return target.getvalue()


def pdf_file(*colors: str, size: tuple[int, int] = A4) -> bytes:
    """A PDF with a page of each colour, of that size in points."""
    pages = [Image.new("RGB", size, color) for color in colors]
    target = io.BytesIO()
    pages[0].save(target, "PDF", save_all=True, append_images=pages[1:], resolution=72)
    return target.getvalue()


def pdf_with_box(width: int, height: int, crop: str = "") -> bytes:
    """A PDF with one empty page of that size in points."""
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {width} {height}] {crop} >>".encode(),
    ]
    raw, offsets = b"%PDF-1.4\n", []
    for number, each in enumerate(objects, 1):
        offsets.append(len(raw))
        raw += b"%d 0 obj\n%s\nendobj\n" % (number, each)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    return raw + b"xref\n0 4\n0000000000 65535 f \n%strailer\n<< /Size 4 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF" % (
        table,
        len(raw),
    )


def png_bomb(width: int, height: int) -> bytes:
    """A small PNG file that says it is this large, with all its rows of zeros really in it if that is small."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(min((width + 1) * height, 1 << 20)), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def form(*parts: tuple[Any, ...], boundary: str = "frontier") -> tuple[bytes, str]:
    """A body and its Content-Type. A part is (name, text), or (name, bytes, filename[, media type])."""
    lines: list[bytes] = []
    for name, data, *more in parts:
        head = f'Content-Disposition: form-data; name="{name}"'
        if more:
            head += f'; filename="{more[0]}"'
        if len(more) > 1:
            head += f"\r\nContent-Type: {more[1]}"
        raw = data if isinstance(data, bytes) else data.encode()
        lines.append(f"--{boundary}\r\n{head}\r\n\r\n".encode() + raw + b"\r\n")
    return b"".join(lines) + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


# ---- a model that keeps what it gets -----------------------------------------------------------------


class Keeper:
    """`predict` keeps its argument in `got`, and returns `answer`."""

    def __init__(self, answer: Any = 1) -> None:
        self.answer = answer
        self.got: Any = None
        self.params: Any = None

    def predict(self, data: Any, params: Any = None) -> Any:
        self.got, self.params = data, params
        return self.answer


def column(kind: str, name: str = "", **more: Any) -> dict[str, Any]:
    return {"type": kind, **({"name": name} if name else {}), **more}


def tensor(dtype: str, *shape: int, name: str = "") -> dict[str, Any]:
    spec = {"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": list(shape)}}
    return {**spec, "name": name} if name else spec


def keeping(*inputs: dict[str, Any], answer: Any = 1, **options: Any) -> tuple[ServedModel, Keeper]:
    """A served model with this signature, and the keeper behind it. `options`: image, pdf of its entry."""
    model = Keeper(answer)
    signature = signature_from_mlmodel({"signature": {"inputs": json.dumps(inputs)}}) if inputs else None
    return ServedModel(model, "kept", "1", signature or Signature(), dialects=DIALECTS, **options), model


def send(model: ServedModel, body: Any, content_type: str = "application/json", **header: Any) -> tuple[int, Any]:
    """The status and the document that a client gets, as the worker's loop answers it."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = InferRequest(id=1, content_type=content_type, **header)
    call: Call | None = None
    try:
        call = model.decode(request, raw)
        answer: Answer | None = model.encode(call, model.predict(call))
    except ServingError as error:
        answer = model.failure(call.kind if call else request.kind, error)
        if answer is None:
            return 0, {"code": error.code, "error": error.message}
    assert answer is not None
    return answer.status or 200, json.loads(bytes(answer.body))
