"""V2 bodies as a client writes and reads them, by `struct` and `json` alone: independent of the code under test."""

from __future__ import annotations

import base64
import json
import struct
from dataclasses import dataclass
from typing import Any

CODES = {
    "BOOL": "?",
    "UINT8": "B",
    "UINT16": "H",
    "UINT32": "I",
    "UINT64": "Q",
    "INT8": "b",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
    "FP16": "e",
    "FP32": "f",
    "FP64": "d",
}


@dataclass
class Tensor:
    datatype: str
    shape: list[int]
    data: list[Any]  # flat; BYTES as bytes


def tensor(name: str, datatype: str, shape: list[int], data: Any, **parameters: Any) -> dict[str, Any]:
    found = {"name": name, "datatype": datatype, "shape": shape, "data": data}
    return {**found, "parameters": parameters} if parameters else found


def request(*inputs: dict[str, Any], **members: Any) -> bytes:
    return json.dumps({**members, "inputs": inputs}).encode()


def pack(datatype: str, data: list[Any]) -> bytes:
    """Flat elements in binary form; BYTES elements are bytes, BF16 ones floats that BF16 can hold."""
    if datatype == "BYTES":
        return b"".join(struct.pack("<I", len(each)) + each for each in data)
    if datatype == "BF16":
        return b"".join(struct.pack("<f", each)[2:] for each in data)
    return struct.pack(f"<{len(data)}{CODES[datatype]}", *data)


def unpack(datatype: str, raw: bytes) -> list[Any]:
    if datatype == "BF16":
        return [struct.unpack("<f", b"\0\0" + raw[at : at + 2])[0] for at in range(0, len(raw), 2)]
    if datatype != "BYTES":
        return [each for (each,) in struct.iter_unpack(f"<{CODES[datatype]}", raw)]
    found, at = [], 0
    while at < len(raw):
        (length,) = struct.unpack_from("<I", raw, at)
        found.append(raw[at + 4 : at + 4 + length])
        at += 4 + length
    return found


def binary_request(*inputs: dict[str, Any], **members: Any) -> tuple[bytes, int]:
    """The body and its json_size: every tensor's data (flat; BYTES as bytes) in binary form."""
    heads, tails = [], []
    for each in inputs:
        raw = pack(each["datatype"], each["data"])
        head = {key: value for key, value in each.items() if key != "data"}
        heads.append({**head, "parameters": {**head.get("parameters", {}), "binary_data_size": len(raw)}})
        tails.append(raw)
    text = json.dumps({**members, "inputs": heads}).encode()
    return b"".join([text, *tails]), len(text)


def parse(body: bytes, json_size: int | None = None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A response's document and its tensors by name."""
    text, rest = (body, b"") if json_size is None else (body[:json_size], body[json_size:])
    document = json.loads(text)
    found = {}
    for output in document["outputs"]:
        parameters = output.get("parameters", {})
        if "binary_data_size" in parameters:
            size = parameters["binary_data_size"]
            assert "data" not in output
            data, rest = unpack(output["datatype"], rest[:size]), rest[size:]
        elif output["datatype"] == "BYTES":
            decode = base64.b64decode if parameters.get("content_type") == "base64" else str.encode
            data = [decode(each) for each in output["data"]]
        else:
            data = output["data"]
        found[output["name"]] = Tensor(output["datatype"], output["shape"], data)
    assert not rest
    return document, found
