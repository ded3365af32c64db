"""A V2 request made from a model's own input example: for the warm-up and the `curl` that is printed.

    dataframe     {"columns", "data"} (split) or [[…], …] (values); with params {"inputs": that, "params": …}
    ndarray       nested lists, or {"name": nested lists}; by old mlflow wrapped once more in {"inputs": …}
    json_object   a scalar, a list, an object, a list of objects

Without a signature datatypes are guessed from the values. Pure: numpy is not needed for it.
"""

from __future__ import annotations

import itertools
import json
import os
from typing import Any, Dict, List, Optional, Set

import orjson

from ...protocol.datatypes import DATATYPES
from ...protocol.signature import Field, Signature

#: Larger examples are of no use to a reader, and slow a warm-up.
MAX_EXAMPLE = 256 << 10


def example_request(path: str, mlmodel: Dict[str, Any], signature: Optional[Signature]) -> bytes:
    """The body of a V2 infer request (JSON) from the example in the model directory `path`; b"" if it has
    none, it is over MAX_EXAMPLE bytes, or it cannot be said in V2."""
    info = mlmodel.get("saved_input_example_info") or {}
    name = info.get("artifact_path")
    if not name:
        return b""
    try:
        file = os.path.join(path, str(name))
        if os.path.getsize(file) > 4 * MAX_EXAMPLE:
            return b""
        with open(file, "rb") as opened:
            example = json.loads(opened.read())  # mlflow writes NaN, which is no JSON
        params = None
        if info.get("params") and isinstance(example, dict) and "inputs" in example:
            params = example.get("params")
            example = example["inputs"]
        inputs = _inputs(example, info, signature or Signature())
        document: Dict[str, Any] = {"parameters": _parameters(params)} if params else {}
        document["inputs"] = inputs
        body = orjson.dumps(document)
    except (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError):
        return b""
    return body if inputs and len(body) <= MAX_EXAMPLE else b""


def _parameters(params: Dict[str, Any]) -> Dict[str, Any]:
    return {
        name: orjson.dumps(value).decode() if isinstance(value, (list, dict)) else value
        for name, value in params.items()
        if value is not None
    }


def _inputs(example: Any, info: Dict[str, Any], signature: Signature) -> List[Dict[str, Any]]:
    kind = info.get("type")
    fields = signature.inputs
    if kind == "ndarray":
        return _arrays(example, "format" in info, [each for each in fields if each.kind == "tensor"])
    if kind not in ("dataframe", "json_object"):
        raise ValueError(f"examples of type {kind} are not understood")
    if fields and fields[0].kind == "tensor":
        if isinstance(example, dict):
            return [_tensor(each, each.name, example[each.name]) for each in fields]
        return [_tensor(fields[0], fields[0].name, example)]
    columns = _frame(example, fields) if kind == "dataframe" else _rows(example, fields)
    if not fields:
        return [_tensor(None, name, values) for name, values in columns.items()]
    found = [_column(each, columns[each.name]) for each in fields if each.name in columns]
    return [each for each in found if each]


def _arrays(example: Any, wrapped: bool, tensors: List[Field]) -> List[Dict[str, Any]]:
    """An ndarray, or several by name; `wrapped`: by a mlflow that may have put it into an object of its own."""
    if wrapped and isinstance(example, dict) and set(example) == {"inputs"}:
        example = example["inputs"]
    if not isinstance(example, dict):
        return [_tensor(tensors[0] if tensors else None, "input-0", example)]
    known = {each.name: each for each in tensors}
    return [_tensor(known.get(name), name, value) for name, value in example.items()]


def _frame(example: Any, fields: List[Field]) -> Dict[str, List[Any]]:
    """A dataframe as columns: values of each row by name."""
    rows = example["data"] if isinstance(example, dict) else example
    width = len(rows[0])
    if any(len(row) != width for row in rows):
        raise ValueError("rows of different lengths")
    names = example.get("columns") if isinstance(example, dict) else None
    if names is None or (fields and not fields[0].named):
        names = [fields[at].name if at < len(fields) else str(at) for at in range(width)]
    return {str(name): [row[at] for row in rows] for at, name in enumerate(names)}


def _rows(example: Any, fields: List[Field]) -> Dict[str, List[Any]]:
    """A scalar, a list, an object or a list of objects as columns."""
    named = not fields or fields[0].named
    if isinstance(example, dict) and named:
        return _object(example, {each.name for each in fields if not each.holds_json})
    rows = example if isinstance(example, list) else [example]
    if rows and named and all(isinstance(row, dict) for row in rows):
        names = list(dict.fromkeys(itertools.chain.from_iterable(rows)))
        return {name: [row.get(name) for row in rows] for name in names}
    return {fields[0].name if fields else "input-0": rows}


def _object(example: Dict[str, Any], scalar: Set[str]) -> Dict[str, List[Any]]:
    """One object: a row, or lists of values of several rows for the columns that hold no JSON."""
    if scalar and all(isinstance(example[name], list) for name in scalar if name in example):
        return {name: value if name in scalar else [value] for name, value in example.items()}
    return {name: [value] for name, value in example.items()}


def _column(each: Field, values: List[Any]) -> Dict[str, Any]:
    """One column as a V2 input; {} for an optional one with missing values."""
    found: Dict[str, Any] = {"name": each.name, "shape": [len(values)], "datatype": each.datatype}
    kind = DATATYPES[each.datatype].kind
    if kind != "float" and not each.holds_json and any(value is None or value != value for value in values):
        if each.required:
            raise ValueError(f"{each.name} has missing values")
        return {}
    if each.type == "binary":
        found["parameters"] = {"content_type": "base64"}
        values = ["".join(value.split()) for value in values]  # mlflow breaks the lines of base64
    if each.holds_json:
        values = [orjson.dumps(value).decode() for value in values]
    elif kind == "bytes":
        values = [str(value) for value in values]
    found["data"] = values
    return found


def _tensor(each: Optional[Field], name: str, value: Any) -> Dict[str, Any]:
    shape: List[int] = []
    flat: List[Any] = [value]
    while flat and all(isinstance(item, list) for item in flat):
        lengths = {len(item) for item in flat}
        if len(lengths) > 1:
            raise ValueError("a ragged example")
        shape.append(lengths.pop())
        flat = list(itertools.chain.from_iterable(flat))
    datatype = each.datatype if each else _guess(flat)
    if datatype == "BYTES":
        flat = [item if isinstance(item, str) else orjson.dumps(item).decode() for item in flat]
    return {"name": each.name if each else name, "shape": shape, "datatype": datatype, "data": flat}


def _guess(flat: List[Any]) -> str:
    types = set(map(type, flat))
    if types <= {bool}:
        return "BOOL"
    if types <= {int}:
        return "INT64"
    return "FP64" if types <= {int, float, type(None)} else "BYTES"
