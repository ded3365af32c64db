"""The fields of a request - text, records, images, PDF - to what a model's signature takes.

    signature             text                    records              images, pages of a PDF
    columns               its string column       one array a column   its binary column: the file (a page: PNG);
                                                                       a string column: that as base64
    tensors               its BYTES tensor        rows                 (H, W, C) by dtype, shape and `image:`
    type hints of predict list of str             list of records      list of files
    an agent's            a message of the user   one array a column   -
    none                  str, or list of str     as the example is,   DataFrame with a column `image` of files,
                                                  else a DataFrame     or arrays where `image:` asks for any

A column called pdf_file, byte_stream, pdf or document gets a PDF whole. Other columns and tensors of the
signature are taken from fields of their names. Made once per model (`model/served.py`); asked by its dialects, and by
services for what their default methods do. Whatever is wrong is an InvalidRequest, or TooLarge.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, AbstractSet, Any, Dict, Iterable, Iterator, List, Mapping, Tuple

from ...protocol.datatypes import DATATYPES
from ...protocol.errors import InvalidRequest
from ...protocol.signature import Field, Signature
from ...protocol.v2 import InferInput
from . import images, kinds, pdf
from .files import decode_file
from .images import ImageOptions, PixelBudget
from .inputs import InputAdapter
from .pdf import PdfOptions
from .sizes import check_records
from .tables import bare_frame, column, columns_of, matrix_of, rows_of, shape_of
from .tensor_images import TensorImages
from .tensors import object_array, to_array
from .unsigned import rows_as_example

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

#: Fields beside those of a kind that are read for all of them; and pandas' own for a table in two parts.
_OWN = frozenset({"params", "parameters", kinds.OVERRIDE})
_SPLIT = frozenset({"columns", "index"})
#: Where MLflow's agents, and its chat models, have the messages; by their tasks.
_MESSAGES = {
    "agent/v1/chat": "messages",
    "agent/v2/chat": "messages",
    "agent/v1/responses": "input",
    "llm/v1/chat": "messages",
}
_WHOLE_PDF = ("pdf_file", "byte_stream", "pdf", "document")
_IMAGE_NAMES = ("image", "images")
_ANY_IMAGE = ImageOptions()
_ANY_PDF = PdfOptions()


@dataclass
class ModelInput:
    """`inputs` by name, as `InputAdapter.assemble` takes them; where these are empty, `data` for `predict` itself."""

    inputs: Dict[str, Array] = field(default_factory=dict)
    data: Any = None
    rows: int = 1


class FieldInputs:
    """The way of fields into one model; see the module."""

    def __init__(
        self,
        signature: Signature,
        image: ImageOptions = _ANY_IMAGE,
        pdf_options: PdfOptions = _ANY_PDF,
    ) -> None:
        self._signature = signature
        self._fields = signature.inputs
        self._columns = bool(self._fields) and all(each.kind == "column" for each in self._fields)
        self._adapter = InputAdapter(signature)
        self._image = image
        self._pdf = pdf_options
        #: Is the model an agent, or a chat model, which a request asks one thing?
        self.is_agent = signature.task in _MESSAGES
        #: Does the model take nothing but parameters?
        self.bare = not self._fields and bool(signature.params)
        #: May a request give it rows of no columns, because all of them are optional?
        self.may_be_bare = self._columns and not any(each.required for each in self._fields)
        #: Is a list of texts the argument of `predict`, or in one of its inputs?
        self.takes_text = any(each.datatype == "BYTES" for each in self._fields) or (
            not self._fields and signature.example_kind in ("", "text", "list")
        )
        #: Columns whose values are text, also in a CSV file where they look like numbers.
        self.text_columns = frozenset(each.name for each in self._fields if each.type in ("string", "datetime"))

    def make(self, kind: str, fields: Mapping[str, Any], deadline: float = 0.0) -> ModelInput:
        """What the model is asked. `fields` as `kinds.unify` gives them, `kind` one of its kinds but v2."""
        if kind == kinds.TEXT:
            return self._text(fields)
        if kind == kinds.TABULAR:
            return self._table(rows_of(fields, mixed=self._signature.from_type_hint))
        if kind == kinds.IMAGE:
            return self._images([fields["image"] if "image" in fields else fields["data"]], fields)
        if kind == kinds.IMAGES:
            return self._images(fields["images"], fields)
        if kind == kinds.PDF:
            return self._document(fields, deadline)
        return self._raw(fields)

    def reads(self, kind: str, fields: Mapping[str, Any]) -> AbstractSet[str]:
        """The fields that `make` reads of a request of this kind, and those that say more about it."""
        known = {*_OWN, *(name for name, of in kinds.KIND_OF_FIELD.items() if of == kind), "data"}
        if kinds.OVERRIDE in fields:
            known |= kinds.KIND_OF_FIELD.keys()
        if kind == kinds.TABULAR:
            return known | _SPLIT
        if kind in (kinds.IMAGE, kinds.IMAGES):
            known |= set(_IMAGE_NAMES)
        beside = () if self._signature.from_type_hint else (each.name for each in self._fields)
        return known.union(beside)

    def nothing(self, rows: int) -> Any:
        """The argument of `predict` where no input is given: so many rows of optional columns, or nothing at all."""
        if self.bare:
            return None
        if self.may_be_bare:
            return bare_frame(rows)
        raise InvalidRequest("none of the model's inputs is given")

    def argument(self, kind: str, fields: Mapping[str, Any], deadline: float = 0.0) -> Any:
        """The argument of the model's `predict`, for services that call it themselves."""
        found = self.make(kind, fields, deadline)
        return self._adapter.assemble(found.inputs) if found.inputs else found.data

    def opened(self, arrays: Dict[str, Array], deadline: float = 0.0) -> Dict[str, Array]:
        """V2 tensors, those of BYTES with images or a PDF for a numeric tensor as that tensor."""
        if "O" not in [array.dtype.kind for array in arrays.values()]:
            return arrays
        by_name = {each.name: each for each in self._fields}
        only = self._fields[0] if len(self._fields) == len(arrays) == 1 and not self._fields[0].named else None
        found: Dict[str, Array] = {}
        for name, array in arrays.items():
            each = by_name.get(name, only)
            if array.dtype == object and array.size and each is not None and _takes_pixels(each):
                array = TensorImages(each, self._image).array(self._pages(each.name, array, deadline))
            found[name] = array
        return found

    def _pages(self, name: str, array: Array, deadline: float) -> Iterator[Any]:
        """The images of a BYTES tensor, and the pages of the PDFs in it."""
        budget = PixelBudget(self._image)
        for element in array.ravel():
            raw = decode_file(element, name)
            if raw.startswith(b"%PDF-"):
                yield from pdf.render(raw, self._pdf, budget, deadline)
            else:
                yield images.open_image(raw, budget)

    # ---- text ------------------------------------------------------------------------------------

    def _text(self, fields: Mapping[str, Any]) -> ModelInput:
        given = fields.get("text")
        texts = given if isinstance(given, list) else [given]
        if not texts or set(map(type, texts)) != {str}:
            raise InvalidRequest('the field "text" takes text, or a list of texts')
        messages = _MESSAGES.get(self._signature.task)
        if messages is not None:
            return self._message(messages, texts, fields)
        if self._signature.from_type_hint:
            return ModelInput(data=texts, rows=len(texts))
        if not self._fields:
            return ModelInput(data=given, rows=len(texts))
        chosen = self._only("text", [each for each in self._fields if _takes_text(each)], ("text",))
        return self._beside(chosen, object_array(texts), fields)

    def _message(self, messages: str, texts: List[Any], fields: Mapping[str, Any]) -> ModelInput:
        """What an agent is asked by a text: one message of its user, beside its other inputs."""
        if len(texts) > 1:
            raise InvalidRequest('the model is an agent: "text" is one message of its user')
        if messages in fields:
            raise InvalidRequest(f"the request is ambiguous: it has the fields text and {messages}")
        beside = {each.name: fields[each.name] for each in self._fields if each.name in fields}
        return ModelInput(data={messages: [{"role": "user", "content": texts[0]}], **beside})

    # ---- records ---------------------------------------------------------------------------------

    def _table(self, rows: List[Any]) -> ModelInput:
        if self._signature.from_type_hint:
            return ModelInput(data=rows, rows=len(rows))
        if not self._fields:
            check_records(rows)
            return ModelInput(data=rows_as_example(rows, self._signature.example_kind), rows=len(rows))
        if self._columns:
            columns = columns_of(rows, self._fields)
            return ModelInput(columns, None if columns else bare_frame(len(rows)), len(rows))
        if len(self._fields) == 1 and not (isinstance(rows[0], dict) and self._fields[0].name in rows[0]):
            (only,) = self._fields
            return self._conformed({only.name: _tensor(only, matrix_of(rows))})
        if not isinstance(rows[0], dict):
            names = ", ".join(each.name for each in self._fields)
            raise InvalidRequest(f"the model has several inputs ({names}): send records with these fields")
        missing = [each.name for each in self._fields for row in rows if each.name not in row]
        if missing:
            raise InvalidRequest(f"the records have no field {missing[0]!r}, which the model takes")
        return self._conformed({each.name: _tensor(each, [row[each.name] for row in rows]) for each in self._fields})

    # ---- images and documents --------------------------------------------------------------------

    def _images(self, files: List[Any], fields: Mapping[str, Any]) -> ModelInput:
        if not files:
            raise InvalidRequest("the request has no image")
        for each in files:
            if not isinstance(each, (bytes, bytearray)):
                raise InvalidRequest(f"an image of the request is no file's bytes, but a {type(each).__name__}")
        budget = PixelBudget(self._image)
        if self._wants_files():
            return self._files((self._checked_file(bytes(each), budget) for each in files), fields)
        return self._arrays((images.open_image(bytes(each), budget) for each in files), fields)

    def _document(self, fields: Mapping[str, Any], deadline: float) -> ModelInput:
        raw = next((fields[name] for name in ("pdf_file", "byte_stream", "data") if name in fields), b"")
        if not isinstance(raw, bytes):
            raise InvalidRequest("the PDF of the request is no file's bytes")
        whole = [each for each in self._fields if each.name in _WHOLE_PDF and _takes_files(each)]
        if whole:
            if not raw.startswith(b"%PDF-"):
                raise InvalidRequest("the file is no PDF: it does not begin with %PDF-")
            return self._beside(whole[0], self._file_array(whole[0], [raw]), fields)
        budget = PixelBudget(self._image)
        pages = pdf.render(raw, self._pdf, budget, deadline)
        if self._wants_files():
            options = self._image
            return self._files(
                (images.to_png(images.convert(each, options.mode, options.size)) for each in pages), fields
            )
        return self._arrays(pages, fields)

    def _raw(self, fields: Mapping[str, Any]) -> ModelInput:
        data = fields.get("data")
        takes = [each for each in self._fields if each.type in ("binary", "bytes")]
        if isinstance(data, bytes) and len(takes) == 1:
            return self._beside(takes[0], self._file_array(takes[0], [data]), fields)
        if isinstance(data, bytes) and data[:16].lstrip()[:1] == b"[":
            raise InvalidRequest('a JSON body must be an object: a table is {"data": […]}')
        raise InvalidRequest(
            "the uploaded bytes are neither an image nor a PDF: say what they are by Content-Type (text/csv, …), "
            f"or ?inference_type={'|'.join(kinds.INFERENCE_TYPES)}; curl keeps them whole with --data-binary, not -d"
        )

    def _wants_files(self) -> bool:
        """Does the model take files, rather than arrays?"""
        options = self._image
        if self._signature.from_type_hint or self._columns:
            return True
        if not self._fields:
            return not (options.changes_pixels or options.dtype or options.layout)
        return not any(_is_numeric(each) for each in self._fields)

    def _checked_file(self, raw: bytes, budget: PixelBudget) -> bytes:
        if not self._image.changes_pixels:
            images.check_image(raw, budget)
            return raw
        return self._png(images.open_image(raw, budget))

    def _png(self, image: Any) -> bytes:
        return images.to_png(images.convert(image, self._image.mode, self._image.size))

    def _files(self, files: Iterable[bytes], fields: Mapping[str, Any]) -> ModelInput:
        found = list(files)
        if self._signature.from_type_hint:
            return ModelInput(data=found, rows=len(found))
        if not self._fields:
            import pandas as pd

            return ModelInput(data=pd.DataFrame({"image": found}), rows=len(found))
        binary = [each for each in self._fields if each.type in ("binary", "bytes")]
        chosen = self._only("images", binary or [each for each in self._fields if _takes_files(each)], _IMAGE_NAMES)
        return self._beside(chosen, self._file_array(chosen, found), fields)

    def _file_array(self, each: Field, files: List[bytes]) -> Array:
        if each.type == "string":
            return object_array([base64.b64encode(raw).decode("ascii") for raw in files])
        return object_array(files)

    def _arrays(self, opened: Iterable[Any], fields: Mapping[str, Any]) -> ModelInput:
        options = self._image
        if not self._fields:
            layout, dtype = options.layout or "HWC", options.dtype or "uint8"
            mode = options.mode or "RGB"
            array = images.stack(
                images.to_array(images.convert(each, mode, options.size), dtype, layout) for each in opened
            )
            return ModelInput(data=array, rows=len(array))
        numeric = [each for each in self._fields if _is_numeric(each)]
        if len(numeric) > 1:
            deep = [each for each in numeric if len(each.shape) > 2]
            numeric = deep if len(deep) == 1 else numeric
        chosen = self._only("images", numeric, _IMAGE_NAMES)
        return self._beside(chosen, TensorImages(chosen, options).array(opened), fields)

    # ---- the rest --------------------------------------------------------------------------------

    def _only(self, what: str, candidates: List[Field], names: Tuple[str, ...]) -> Field:
        """The one input that takes this: by its name, or because there is no other."""
        named = [each for each in candidates if each.name in names]
        if len(named) == 1:
            return named[0]
        if len(candidates) == 1:
            return candidates[0]
        listed = ", ".join(f"{each.name} ({each.type})" for each in self._fields[:20])
        why = f"has several inputs that take {what}" if candidates else f"takes no {what}"
        raise InvalidRequest(f"the model {why}: its inputs are {listed}")

    def _beside(self, chosen: Field, array: Array, fields: Mapping[str, Any]) -> ModelInput:
        """That input, and the signature's others from the fields of their names."""
        rows = len(array)
        if chosen.name in fields and chosen.name not in kinds.KIND_OF_FIELD:
            raise InvalidRequest(f"the request is ambiguous: it has the input {chosen.name!r} twice")
        if self._columns:
            found: Dict[str, Array] = {}
            for each in self._fields:
                if each is chosen:
                    found[each.name] = array
                elif each.name in fields:
                    found[each.name] = column(each, [fields[each.name]] * rows)
                elif each.required:
                    raise InvalidRequest(f"the model takes {each.name!r} too: send it as a field of that name")
            return ModelInput(found, rows=rows)
        shaped = {chosen.name: array}
        if array.ndim == 1 and len(chosen.shape) == 2:
            shaped[chosen.name] = array.reshape(-1, 1)
        for each in self._fields:
            if each is not chosen and each.name in fields:
                shaped[each.name] = _tensor(each, fields[each.name])
        return self._conformed(shaped)

    def _conformed(self, arrays: Dict[str, Array]) -> ModelInput:
        found = self._adapter.conform(arrays)
        return ModelInput(found, rows=max((len(each) for each in found.values() if each.ndim), default=1))


def _takes_text(each: Field) -> bool:
    if each.kind == "column":
        return each.type == "string" or each.holds_json
    return each.datatype == "BYTES" and each.type != "bytes" and not each.type.startswith("datetime")


def _is_numeric(each: Field) -> bool:
    return DATATYPES[each.datatype].kind in ("int", "float")


def _takes_pixels(each: Field) -> bool:
    return each.kind == "tensor" and len(each.shape) > 1 and _is_numeric(each)


def _takes_files(each: Field) -> bool:
    return each.type in ("binary", "bytes", "string") or (each.kind == "tensor" and each.datatype == "BYTES")


def _tensor(each: Field, values: Any) -> Array:
    """Nested lists as an array of the tensor's datatype; checked as a V2 tensor is."""
    if not isinstance(values, list):
        values = [values]
    if each.type == "object":
        return _objects(each.name, values)
    return to_array(InferInput(each.name, shape_of(values), each.datatype, data=values))


def _objects(name: str, values: List[Any]) -> Array:
    """Nested lists as an array of objects: numbers, texts and null as they are."""
    shape = shape_of(values)
    flat = values
    for size in shape[1:]:
        if any(not isinstance(each, list) or len(each) != size for each in flat):
            raise InvalidRequest(f"the data of the input {name!r} do not have the shape {shape}")
        flat = [each for row in flat for each in row]
    return object_array(flat).reshape(shape)
