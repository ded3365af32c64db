"""OpenAPI 3.1 documents: one of the whole protocol, and one per model with its own tensors and example.

Pure; `http/openapi.py` serves them. The tensors are described by what the metadata say: what a document calls valid
can still be refused by the model (its shapes must agree with each other), then with 400.
"""

from __future__ import annotations

from typing import Any

import orjson

from ... import __version__
from ...protocol.datatypes import DATATYPES

Json = dict[str, Any]

#: Examples of more bytes than this make a page slow.
MAX_EXAMPLE = 64 << 10

_ERRORS = {
    "400": "malformed request, or one that does not fit the model",
    "404": "no such model or version",
    "413": "the body is too large",
    "415": "unsupported media type",
    "429": "the model's queue is full; see Retry-After",
    "500": "the model's own exception",
    "501": "not supported",
    "503": "the model is not ready; see Retry-After",
    "504": "the deadline passed",
}
_SCALARS: dict[str, Json] = {
    "bool": {"type": "boolean"},
    "float": {"type": ["number", "null"], "description": "null: NaN"},
    "bytes": {"type": "string"},
}


def server_document(models: list[str]) -> Json:
    """All paths that have nothing to do with one certain model's tensors."""
    name = _parameter("model", {"type": "string", "enum": models} if models else {"type": "string"})
    version = _parameter("version", {"type": "string"})
    infer = _infer(_ref("InferRequest"), _ref("InferResponse"))
    of_model = {
        "": _get("Metadata: the model's tensors", _ref("ModelMetadata"), "404", "503"),
        "/ready": _get("Is the model ready?", _ref("ModelReady"), "404", unready=True),
        "/stats": _get("Counts and durations", _ref("Statistics"), "404"),
        "/config": _get("Configuration, as Triton's clients read it", {"type": "object"}, "404", "503"),
        "/infer": infer,
        "/infer_stream": _streamed(infer, "Infer, piece by piece: each event is an InferResponse"),
        "/generate": (generate := _generate()),
        "/generate_stream": _streamed(generate, "Text from text, piece by piece: each event is a GenerateResponse"),
    }
    paths: Json = {
        "/v2": _get("Name, version and extensions of the server", _ref("ServerMetadata")),
        "/v2/health/live": _get("Is the server alive?", _object(live={"type": "boolean"})),
        "/v2/health/ready": _get("Is the server ready?", _object(ready={"type": "boolean"}), unready=True),
        "/v2/models": _get("Names of the models", _object(models=_list({"type": "string"}))),
        "/v2/models/stats": _get("Counts and durations of all models", _ref("Statistics")),
        "/v2/repository/index": {"post": _index()},
    }
    for tail, operations in of_model.items():
        paths[f"/v2/models/{{model}}{tail}"] = {"parameters": [name], **operations}
        paths[f"/v2/models/{{model}}/versions/{{version}}{tail}"] = {"parameters": [name, version], **operations}
    return _document("modelhub-serving", "Models served over the Open Inference Protocol (KServe V2).", paths)


def model_document(name: str, version: str, metadata: Json, example: bytes) -> Json:
    """The infer path of one model, with its tensors; `example`: a request's body as JSON, b"": none."""
    request = {
        **_OBJECT,
        "required": ["inputs"],
        "properties": {**_REQUEST, "inputs": _tensors(metadata["inputs"], data=True)},
    }
    response = {
        **_OBJECT,
        "required": ["model_name", "outputs"],
        "properties": {**_RESPONSE, "outputs": _tensors(metadata["outputs"], data=False)},
    }
    operation = _infer(request, response)
    if example and len(example) <= MAX_EXAMPLE:
        operation["post"]["requestBody"]["content"]["application/json"]["example"] = orjson.loads(example)
    paths = {f"/v2/models/{name}/infer": operation}
    if version:
        paths[f"/v2/models/{name}/versions/{version}/infer"] = operation
    platform = metadata.get("platform", "")
    return _document(f"{name} {version}".rstrip(), f"The model {name} ({platform}).", paths)


# ---- parts ---------------------------------------------------------------------------------------

_OBJECT: Json = {"type": "object"}


def _object(**properties: Json) -> Json:
    return {"type": "object", "required": list(properties), "properties": properties}


def _list(items: Json) -> Json:
    return {"type": "array", "items": items}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


_PARAMETERS: Json = {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}}
_SIZE: Json = {"type": "integer", "minimum": 0, "maximum": 1 << 40}
_SHAPE: Json = _list(_SIZE)
#: `null` counts as absent.
_REQUEST: Json = {
    "id": {"type": ["string", "null"]},
    "parameters": {**_PARAMETERS, "type": ["object", "null"]},
    "outputs": {
        **_list({"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}),
        "type": ["array", "null"],
    },
}
_RESPONSE: Json = {
    "model_name": {"type": "string"},
    "model_version": {"type": "string"},
    "id": {"type": "string"},
    "parameters": _PARAMETERS,
}
_TENSOR: Json = _object(
    name={"type": "string"},
    shape=_SHAPE,
    datatype={"enum": list(DATATYPES)},
    data={"type": "array", "description": "row-major, nested or flat"},
)
_TENSOR_METADATA: Json = _object(
    name={"type": "string"}, datatype={"enum": list(DATATYPES)}, shape=_list({"type": "integer", "minimum": -1})
)
_DURATION: Json = _object(count={"type": "integer"}, ns={"type": "integer"})

_SCHEMAS: Json = {
    "Error": _object(error={"type": "string"}),
    "ServerMetadata": _object(
        name={"type": "string"}, version={"type": "string"}, extensions=_list({"type": "string"})
    ),
    "ModelMetadata": {
        "type": "object",
        "required": ["name", "platform", "inputs", "outputs"],
        "properties": {
            "name": {"type": "string"},
            "versions": _list({"type": "string"}),
            "platform": {"type": "string"},
            "inputs": _list(_TENSOR_METADATA),
            "outputs": _list(_TENSOR_METADATA),
        },
    },
    "ModelReady": _object(name={"type": "string"}, ready={"type": "boolean"}),
    "Statistics": _object(
        model_stats=_list(
            _object(
                name={"type": "string"},
                version={"type": "string"},
                inference_count={"type": "integer"},
                execution_count={"type": "integer"},
                inference_stats={"type": "object", "additionalProperties": _DURATION},
            )
        )
    ),
    "RepositoryIndex": _list(
        _object(
            name={"type": "string"},
            state={"enum": ["READY", "UNAVAILABLE", "LOADING", "UNLOADING"]},
            reason={"type": "string"},
        )
    ),
    "InferRequest": {
        "type": "object",
        "required": ["inputs"],
        "properties": {**_REQUEST, "inputs": {**_list(_TENSOR), "minItems": 1}},
    },
    "GenerateRequest": {
        "type": "object",
        "required": ["text_input"],
        "properties": {
            "id": {"type": ["string", "null"]},
            "text_input": {"type": "string"},
            "parameters": {"type": ["object", "null"], "description": "the model's own"},
        },
        "description": "Further members are the model's other inputs.",
    },
    "GenerateResponse": {
        "type": "object",
        "required": ["model_name", "text_output"],
        "properties": {**_RESPONSE, "text_output": {"type": "string"}},
    },
    "InferResponse": {
        "type": "object",
        "required": ["model_name", "outputs"],
        "properties": {**_RESPONSE, "outputs": _list({**_TENSOR, "required": ["name", "shape", "datatype"]})},
    },
}


def _document(title: str, description: str, paths: Json) -> Json:
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": __version__, "description": description},
        "paths": paths,
        "components": {"schemas": _SCHEMAS},
    }


def _parameter(name: str, schema: Json) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _json(schema: Json, description: str) -> Json:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _errors(*statuses: str) -> Json:
    return {status: _json(_ref("Error"), _ERRORS[status]) for status in statuses}


def _get(summary: str, schema: Json, *errors: str, unready: bool = False) -> Json:
    responses = {"200": _json(schema, summary), **_errors(*errors)}
    if unready:
        responses["503"] = _json(schema, "not ready")
    return {"get": {"summary": summary, "responses": responses}}


def _index() -> Json:
    return {
        "summary": "Versions of models and their states",
        "requestBody": {
            "content": {"application/json": {"schema": {**_OBJECT, "properties": {"ready": {"type": "boolean"}}}}}
        },
        "responses": {"200": _json(_ref("RepositoryIndex"), "one row per version"), **_errors("400", "413")},
    }


def _infer(request: Json, response: Json) -> Json:
    return {
        "post": {
            "summary": "Infer",
            "requestBody": {"required": True, "content": {"application/json": {"schema": request}}},
            "responses": {"200": _json(response, "the outputs"), **_errors(*_ERRORS)},
        }
    }


def _generate() -> Json:
    return {
        "post": {
            "summary": "Text from text",
            "requestBody": {"required": True, "content": {"application/json": {"schema": _ref("GenerateRequest")}}},
            "responses": {"200": _json(_ref("GenerateResponse"), "the text"), **_errors(*_ERRORS)},
        }
    }


def _streamed(operation: Json, summary: str) -> Json:
    """The same request, answered with Server-Sent Events; an error before the first one has its status."""
    event = _object(data={"type": "string", "contentMediaType": "application/json"})
    events = {"description": "events", "content": {"text/event-stream": {"schema": event}}}
    post = operation["post"]
    return {"post": {**post, "summary": summary, "responses": {**post["responses"], "200": events}}}


def _tensors(rows: list[Json], *, data: bool) -> Json:
    """A list of tensors: those of the model where it has a signature, else any."""
    if not rows:
        return {**_list(_TENSOR if data else {**_TENSOR, "required": ["name", "shape", "datatype"]}), "minItems": 1}
    kinds = [_tensor(row, data=data) for row in rows]
    return {"type": "array", "items": kinds[0] if len(kinds) == 1 else {"anyOf": kinds}, "minItems": 1}


def _tensor(row: Json, *, data: bool) -> Json:
    kind = DATATYPES[row["datatype"]]
    scalar = _SCALARS.get(kind.kind) or {"type": "integer", "minimum": kind.low, "maximum": kind.high}
    elements = {"type": "array", "items": {"anyOf": [scalar, {"type": "array"}]}, "description": "nested or flat"}
    # Inputs of another type are cast where that is exact; outputs may be more exact than the signature says.
    return {
        "type": "object",
        "required": ["name", "shape", "datatype", *(["data"] if data else [])],
        "properties": {
            "name": {"const": row["name"]},
            "shape": _shape(row["shape"]) if data else _SHAPE,
            "datatype": {"const": row["datatype"]} if data else {"enum": list(DATATYPES)},
            "data": elements if data else {"type": "array"},
            "parameters": {**_PARAMETERS, "type": ["object", "null"]},
        },
    }


def _shape(sizes: list[int]) -> Json:
    found: Json = {"type": "array", "minItems": len(sizes), "maxItems": len(sizes)}
    if sizes:
        found["prefixItems"] = [_SIZE if size < 0 else {"const": size} for size in sizes]
    return found
