"""What a request holds, told by its fields or its bytes, in one form for models and services.

    field of a JSON body     kind       reaches a service as
    text                     text       str, or a list of them
    data                     tabular    records: a list of objects, or one object
    image                    image      bytes (base64 or a data URL in the body)
    images                   images     list of bytes
    pdf_file, byte_stream    pdf        bytes
    inputs                   v2         the V2 request as it is

Uploads (octet-stream, `image/*`, `application/pdf`, `multipart/form-data`, `text/plain`, `text/csv`) come
as `{"data": <bytes>}`, and under the field of their kind too. Their kind is `inference_type` of the query,
else the media type, else the first bytes, else the ending of a form's file (`.csv`, `.txt`); bytes that nothing is
known of are `raw`.

`unify` is called by the legacy dialect and by services. Whatever is wrong is the client's mistake:
InvalidRequest, or UnsupportedMediaType.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Collection, Dict, List, Mapping, Union
from urllib.parse import parse_qsl

import orjson

from ...protocol import json_text
from ...protocol.errors import InvalidRequest, UnsupportedMediaType
from ...protocol.messages import InferRequest
from ...protocol.v2 import begins_object, check_content_type
from .files import decode_file, json_type, sniff
from .multipart import Part, parse_multipart
from .tables import records_of_csv

Body = Union[bytes, bytearray, memoryview]

TEXT, TABULAR, IMAGE, IMAGES, PDF, V2, RAW = "text", "tabular", "image", "images", "pdf", "v2", "raw"

#: The fields that tell a kind, in the order in which errors list them.
KIND_OF_FIELD: Dict[str, str] = {
    "text": TEXT,
    "data": TABULAR,
    "image": IMAGE,
    "images": IMAGES,
    "pdf_file": PDF,
    "byte_stream": PDF,
    "inputs": V2,
}
#: All of them but V2's.
LEGACY_FIELDS = frozenset(KIND_OF_FIELD) - {"inputs"}
#: What `?inference_type=` may say.
INFERENCE_TYPES = (TEXT, IMAGE, PDF, TABULAR, V2)
#: The query's override, kept in the fields so that `kind_of` can be asked with them alone.
OVERRIDE = "inference_type"

_FIELD_OF_KIND = {TEXT: "text", IMAGE: "image", PDF: "pdf_file"}
_JSON_MEDIA = re.compile(r"(application|text)/([\w.-]+\+)?json", re.IGNORECASE)

#: What says nothing: curl's and browsers' word for a file whose name they do not know.
_URLENCODED = "application/x-www-form-urlencoded"
_UNSAID = ("", "application/octet-stream", _URLENCODED, "binary/octet-stream")
#: A form as browsers and `curl -d` write one: no other text or file looks like that.
_FORM = re.compile(rb"[\w.%+*-]{1,200}=[\w.%+*&=-]*")
#: Where neither the media type nor the first bytes tell, the name of a form's file does.
_MEDIA_OF_SUFFIX = {"csv": "text/csv", "txt": "text/plain"}


@dataclass
class Unified:
    """One request in the form that services get: `fields` is their `request`."""

    fields: Dict[str, Any]
    media_type: str = ""  # of the body, lower case, without parameters; "": JSON without saying so
    filename: str = ""  # of an upload, as the client says it; never a path to open
    filenames: List[str] = field(default_factory=list)

    @property
    def kind(self) -> str:
        """text | tabular | image | images | pdf | v2 | raw. Raises InvalidRequest, naming the fields it saw."""
        return kind_of(self.fields)


def unify(
    request: InferRequest, body: Body, document: Any = None, text_columns: Collection[str] = frozenset()
) -> Unified:
    """A request in the one form. `body` is inflated; `document` is what its JSON says, where that is parsed already.

    `text_columns` are those whose values stay text in a CSV body, even where they look like numbers.
    """
    override = inference_type(request.query)
    media, _, _ = request.content_type.partition(";")
    media = media.strip().lower()
    if document is not None or is_json(request.content_type, body):
        found = Unified(_from_json(_object(body) if document is None else document, override), media)
    elif media == "multipart/form-data":
        found = _from_parts(parse_multipart(body, request.content_type), override, text_columns)
    elif media == _URLENCODED and is_form(body):
        found = _from_parts(_urlencoded_parts(body), override, text_columns)
        found.media_type = media
    else:
        if not len(body):
            raise InvalidRequest("the body is empty: send JSON, or a file's bytes")
        found = Unified({}, media)
        _place(found.fields, bytes(body), override, media, text_columns)
    if override:
        found.fields[OVERRIDE] = override
    return found


def is_json(content_type: str, body: Body) -> bool:
    """Is this body JSON? So it is without a Content-Type, and where curl says form-urlencoded of it."""
    media, _, _ = content_type.partition(";")
    media = media.strip().lower()
    if not media or _JSON_MEDIA.fullmatch(media):
        check_content_type(content_type, None, body)
        return True
    return media == _URLENCODED and begins_object(body)


def is_form(body: Body) -> bool:
    """Is this body what its media type says, when that is the one that curl sends with everything?"""
    return _FORM.fullmatch(bytes(body).strip()) is not None


def _urlencoded_parts(body: Body) -> List[Part]:
    try:
        text = bytes(body).strip().decode("ascii")
        pairs = parse_qsl(text, keep_blank_values=True, strict_parsing=True, errors="strict")
    except ValueError:
        raise InvalidRequest("the form is malformed: its fields must be percent-encoded UTF-8") from None
    return [Part(name, value.encode("utf-8")) for name, value in pairs]


def inference_type(query: Mapping[str, str]) -> str:
    """The query's override; "" if there is none. Raises InvalidRequest."""
    given = query.get(OVERRIDE, "")
    if given and given not in INFERENCE_TYPES:
        raise InvalidRequest(f"inference_type={given[:40]} is unknown: write one of {', '.join(INFERENCE_TYPES)}")
    return given


def kind_of(fields: Mapping[str, Any]) -> str:
    """The kind of a request in the one form; see the module. Raises InvalidRequest."""
    override = fields.get(OVERRIDE, "")
    if override in INFERENCE_TYPES:
        return _overridden(fields, override)
    data = fields.get("data")
    if isinstance(data, bytes):
        same = [KIND_OF_FIELD[name] for name in ("text", "image", "pdf_file") if name in fields]
        return same[0] if len(same) == 1 else _kind_of_media(sniff(data))
    seen = [name for name in KIND_OF_FIELD if name in fields]
    if len(seen) == 1:
        return KIND_OF_FIELD[seen[0]]
    if seen:
        raise InvalidRequest(
            f"the request is ambiguous: it has the fields {_listed(seen)}; send one of them, "
            f"or say which with ?inference_type={'|'.join(INFERENCE_TYPES)}"
        )
    others = _listed(list(fields)[:20]) if fields else "none"
    raise InvalidRequest(f"the request has none of the fields {_listed(list(KIND_OF_FIELD))}; its fields: {others}")


# ---- JSON bodies ---------------------------------------------------------------------------------


def _object(body: Body) -> Dict[str, Any]:
    if not len(body):
        raise InvalidRequest("the body is empty")
    document = json_text.load(body)
    if not isinstance(document, dict):
        raise InvalidRequest(f"the body must be a JSON object, not {json_type(document)}")
    return document


def _from_json(document: Dict[str, Any], override: str) -> Dict[str, Any]:
    fields = dict(document)
    fields.pop(OVERRIDE, None)  # only the query may say it
    for name in ("image", "pdf_file", "byte_stream"):
        if fields.get(name) is not None:
            fields[name] = decode_file(fields[name], name)
    images = fields.get("images")
    if images is not None:
        items = images if isinstance(images, list) else [images]
        fields["images"] = [decode_file(each, "images") for each in items]
    for name in KIND_OF_FIELD:
        if name in fields and fields[name] is None:
            del fields[name]  # clients made from classes send what they do not have as null
    data = fields.get("data")
    if isinstance(data, str) and override != TABULAR:
        _place(fields, _data_text(data, override), override, "", frozenset())
    return fields


def _data_text(data: str, override: str) -> bytes:
    """`data` that is text: a file, as an upload is; as text where the query says so."""
    if override == TEXT:
        return data.encode("utf-8")
    try:
        raw = decode_file(data, "data")
    except InvalidRequest:
        raise InvalidRequest(
            'the field "data" takes records (a list of objects, or one), or a file as base64'
        ) from None
    if not override and not sniff(raw):
        raise InvalidRequest('the field "data" is text, but neither records nor an image or a PDF as base64')
    return raw


# ---- uploads -------------------------------------------------------------------------------------


def _place(fields: Dict[str, Any], raw: bytes, override: str, media: str, text_columns: Collection[str]) -> None:
    """Put an upload's bytes where handlers look: `data`, and the field of its kind."""
    kind = override or _kind_of_upload(raw, media)
    fields["data"] = raw
    if kind == TABULAR:
        fields["data"] = records_of_csv(raw, text_columns)
    elif kind == TEXT:
        fields["text"] = _text(raw)
    elif kind == V2:
        fields.update(_object(raw))
        del fields["data"]
    elif kind in _FIELD_OF_KIND:
        fields[_FIELD_OF_KIND[kind]] = raw


def _kind_of_upload(raw: bytes, media: str) -> str:
    """By the media type, which the first bytes must not contradict; else by these."""
    shown = sniff(raw)
    if media in _UNSAID:
        return _kind_of_media(shown)
    if media.startswith("image/") or media == "application/pdf":
        kind = _kind_of_media(media)
        if shown and _kind_of_media(shown) != kind:
            raise InvalidRequest(f"the file is said to be {media[:60]}, but its first bytes are of {shown}")
        return kind
    if media == "text/csv":
        return TABULAR
    if media == "text/plain":
        return TEXT
    raise UnsupportedMediaType(
        f"{media[:60]} is not understood: send application/json, application/octet-stream, an image, application/pdf, "
        "multipart/form-data, text/plain or text/csv"
    )


def _kind_of_media(media: str) -> str:
    if media == "application/pdf":
        return PDF
    return IMAGE if media.startswith("image/") else RAW


def _from_parts(parts: List[Part], override: str, text_columns: Collection[str]) -> Unified:
    """Form fields as text; files as uploads, under their own names too."""
    fields: Dict[str, Any] = {}
    files: List[Part] = []
    for part in parts:
        if part.filename == "" and not part.data:
            continue  # where a browser's form has a place for a file, and none was chosen
        if part.filename is not None or part.media_type.startswith(("image/", "application/pdf", "application/octet")):
            files.append(part)
        elif part.name in fields:
            raise InvalidRequest(f"the form has the field {part.name[:60]!r} twice")
        else:
            text = _text(part.data)
            fields[part.name] = _json_or_text(text) if part.name in ("data", "params", "parameters") else text
    if not fields and not files:
        raise InvalidRequest("the form has no file and no field: send a part called file")
    fields = _from_json(fields, override)
    found = Unified(fields, "multipart/form-data")
    if files:
        if "data" in fields:
            raise InvalidRequest('the request is ambiguous: its form has a file and the field "data"')
        found.filenames = [each.filename or "" for each in files]
        found.filename = found.filenames[0]
        _place_files(fields, files, override, text_columns)
    return found


def _place_files(fields: Dict[str, Any], files: List[Part], override: str, text_columns: Collection[str]) -> None:
    for part in files:
        if not part.data:
            raise InvalidRequest(f"the file {part.name[:60]!r} of the form is empty")
    if len(files) > 1 or files[0].name == "images":
        _place_several(fields, files, override)
        return
    (only,) = files
    named = KIND_OF_FIELD.get(only.name, "")
    if not override and named in (IMAGE, PDF):
        _kind_of_upload(only.data, "application/pdf" if named == PDF else "image/*")
        override = named
    _place(fields, only.data, override, _media_of_part(only), text_columns)


def _media_of_part(part: Part) -> str:
    if part.media_type not in _UNSAID or sniff(part.data):
        return part.media_type
    suffix = (part.filename or "").rpartition(".")[2].lower()
    return _MEDIA_OF_SUFFIX.get(suffix, part.media_type)


def _place_several(fields: Dict[str, Any], files: List[Part], override: str) -> None:
    """Images become the list `images`; one PDF among them is `pdf_file`. Others are refused."""
    images: List[bytes] = []
    for part in files:
        kind = _kind_of_upload(part.data, part.media_type)
        if kind == IMAGE and override in ("", IMAGE):
            images.append(part.data)
        elif kind == PDF and override in ("", PDF) and "pdf_file" not in fields:
            fields["pdf_file"] = part.data
        else:
            raise InvalidRequest(
                f"the form has {len(files)} files, and {part.name[:60]!r} is not one more image: "
                "send several images, or one file of another kind"
            )
    if images:
        fields["images"] = images


def _json_or_text(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def _text(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidRequest("the text is not UTF-8") from None


def _overridden(fields: Mapping[str, Any], override: str) -> str:
    wanted = [name for name, kind in KIND_OF_FIELD.items() if kind.startswith(override) and name in fields]
    if not wanted:
        names = [name for name, kind in KIND_OF_FIELD.items() if kind.startswith(override)]
        raise InvalidRequest(f"inference_type={override} needs the field {_listed(names)}, or an upload")
    if len(wanted) > 1:
        raise InvalidRequest(f"the request is ambiguous: it has the fields {_listed(wanted)}; send one of them")
    return KIND_OF_FIELD[wanted[0]]


def _listed(names: List[str]) -> str:
    return ", ".join(name[:60] for name in names)
