"""V2 requests made from a model's own input example: for the warm-up and the `curl` that is printed.

    dataframe     {"columns", "data"} (split) or [[…], …] (values); with params {"inputs": that, "params": …}
    ndarray       nested lists, or {"name": nested lists}; by old mlflow wrapped once more in {"inputs": …}
    json_object   a scalar, a list, an object, a list of objects

Without a signature datatypes are guessed from the values, and the example's own kind says what the model is called
with (`Signature.example_kind`). Missing values are null. Pure: numpy is not needed for it.
"""

from __future__ import annotations

import itertools
import json
import os
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Set, Tuple

import orjson

from ...protocol.datatypes import DATATYPES
from ...protocol.signature import Field, Signature

#: Larger examples are of no use to a reader, and slow a warm-up.
MAX_EXAMPLE = 256 << 10


@dataclass
class Example:
    """What is made of an input example."""

    #: Bodies of V2 infer requests (JSON), the one that says most first: each with what was altered in it, or "".
    bodies: List[Tuple[bytes, str]] = field(default_factory=list)
    kind: str = ""  # as `Signature.example_kind`
    inputs: List[Dict[str, Any]] = field(default_factory=list)  # as V2 metadata


def read_example(path: str, mlmodel: Dict[str, Any], signature: Optional[Signature]) -> Example:
    """The example in the model directory `path`; without bodies if there is none, it is over MAX_EXAMPLE bytes, or it
    cannot be said in V2."""
    info = mlmodel.get("saved_input_example_info") or {}
    name = info.get("artifact_path")
    if not name:
        return Example()
    try:
        file = os.path.join(path, str(name))
        if os.path.getsize(file) > 4 * MAX_EXAMPLE:
            return Example(kind=_kind(None, info))
        with open(file, "rb") as opened:
            example = json.loads(opened.read())  # mlflow writes NaN, which is no JSON
        params = None
        if info.get("params") and isinstance(example, dict) and "inputs" in example:
            params = example.get("params")
            example = example["inputs"]
        kind = _kind(example, info)
        inputs = _inputs(example, info, signature or Signature())
        around: Dict[str, Any] = {"parameters": _parameters(params)} if params else {}
        bodies = [(orjson.dumps({**around, "inputs": each}), altered) for each, altered in _ways(inputs)]
    except (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError):
        return Example(kind=_kind(None, info))
    return Example([each for each in bodies if len(each[0]) <= MAX_EXAMPLE], kind, [_metadata(each) for each in inputs])


def _kind(example: Any, info: Dict[str, Any]) -> str:
    """What the example is in Python; "" where that cannot be said (here `example` is None where it was not read)."""
    if info.get("type") == "dataframe":
        return "table"
    if info.get("type") == "ndarray":
        return "array"
    if isinstance(example, str):
        return "text"
    if isinstance(example, dict):
        return "object"
    if isinstance(example, list) and example:
        return "records" if all(isinstance(each, dict) for each in example) else "list"
    return ""


def _ways(inputs: List[Dict[str, Any]]) -> List[Tuple[List[Dict[str, Any]], str]]:
    """The inputs as they are; where values are missing also without these: not every datatype can say it."""
    gaps = {each["name"]: _rows_with_gaps(each) for each in inputs}
    found = [(inputs, "")] if inputs else []
    listed = ", ".join(repr(name) for name, rows in gaps.items() if rows)
    if not listed:
        return found
    lengths = {each["shape"][0] for each in inputs if each["shape"]}
    left_out = set(itertools.chain.from_iterable(gaps.values()))
    if len(lengths) == 1 and len(left_out) < min(lengths) and all(each["shape"] for each in inputs):
        whole = [_without_rows(each, left_out) for each in inputs]
        found.append((whole, f"rows with missing values of {listed} are left out"))
    columns = [each for each in inputs if not gaps[each["name"]]]
    if columns:
        found.append((columns, f"{listed} is left out, because values are missing"))
    return found


def _rows_with_gaps(each: Dict[str, Any]) -> Set[int]:
    """Positions along the first axis that hold a null for which the datatype has no value (floats have NaN)."""
    if DATATYPES[each["datatype"]].kind == "float" or not each["data"]:
        return set()
    stride = max(1, len(each["data"]) // (each["shape"][0] if each["shape"] else 1))
    return {at // stride for at, value in enumerate(each["data"]) if value is None}


def _without_rows(each: Dict[str, Any], left_out: Set[int]) -> Dict[str, Any]:
    rows = each["shape"][0]
    stride = max(1, len(each["data"]) // rows)
    data = [value for at, value in enumerate(each["data"]) if at // stride not in left_out]
    return {**each, "shape": [rows - len(left_out), *each["shape"][1:]], "data": data}


def _metadata(each: Dict[str, Any]) -> Dict[str, Any]:
    return {"name": each["name"], "datatype": each["datatype"], "shape": [-1, *each["shape"][1:]]}


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
    return [_column(each, columns[each.name]) for each in fields if each.name in columns]


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
    """One column as a V2 input, missing values as null."""
    found: Dict[str, Any] = {"name": each.name, "shape": [len(values)], "datatype": each.datatype}
    if each.holds_json:
        found["data"] = [orjson.dumps(value).decode() for value in values]
        return found
    values = [None if value != value else value for value in values]
    if each.type == "binary":
        found["parameters"] = {"content_type": "base64"}
        # mlflow breaks the lines of base64
        values = [None if value is None else "".join(value.split()) for value in values]
    elif DATATYPES[each.datatype].kind == "bytes":
        values = [None if value is None else str(value) for value in values]
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
    flat = [None if item != item else item for item in flat]
    if datatype == "BYTES":
        if each is None and not all(isinstance(item, (str, type(None))) for item in flat):
            raise ValueError("V2 has no such values")
        flat = [item if isinstance(item, (str, type(None))) else orjson.dumps(item).decode() for item in flat]
    return {"name": each.name if each else name, "shape": shape, "datatype": datatype, "data": flat}


def _guess(flat: List[Any]) -> str:
    """Of what is missing nothing is known; whole numbers beside it are floats, as pandas has them."""
    types = set(map(type, flat)) - {type(None)}
    if types and types <= {bool}:
        return "BOOL"
    if types <= {int} and None not in flat:
        return "INT64"
    return "FP64" if types <= {int, float} else "BYTES"
