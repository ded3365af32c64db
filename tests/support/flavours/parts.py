"""What the cases of the flavour table are made of.

A case is a function that saves a model and returns what it is asked. Libraries are imported within these functions: the
tests read the table in an environment that has none of them.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DATATYPES = {
    "bool": "BOOL",
    "float32": "FP32",
    "float64": "FP64",
    "int32": "INT32",
    "int64": "INT64",
    "uint8": "UINT8",
}


@dataclass
class Asked:
    """What a model is asked: the argument of `predict`, and the doors by which that can be said."""

    data: Any
    params: dict[str, Any] = field(default_factory=dict)
    #: What answers, where `load_model(...).predict` itself cannot.
    predict: Callable[[Any], Any] | None = None
    #: V2 inputs, records, V1 instances and the body of `/invocations`, in place of what `data` gives; False: no door.
    v2: Any = None
    records: Any = None
    instances: Any = None
    invocations: Any = None


Case = Callable[[Path], Asked]
CASES: dict[str, Case] = {}
#: Of libraries that bring torch, in an environment of their own.
DEEP: dict[str, Case] = {}


def case(function: Case) -> Case:
    """Enter it in the table, by its name."""
    CASES[function.__name__.replace("_", "-")] = function
    return function


def deep_case(function: Case) -> Case:
    """As `case`, in the table of the libraries that bring torch."""
    DEEP[function.__name__.replace("_", "-")] = function
    return function


def seed() -> Any:
    import numpy as np

    return np.random.default_rng(0)


def request_of(asked: Asked) -> dict[str, Any]:
    """The request by each door; null where that is none."""
    records = asked.records if asked.records is not None else _records(asked.data)
    return {
        "params": asked.params,
        "v2": asked.v2 if asked.v2 is not None else _v2(asked.data),
        "records": records,
        "instances": asked.instances if asked.instances is not None else records,
        "invocations": asked.invocations if asked.invocations is not None else _invocations(asked.data),
    }


def _records(data: Any) -> Any:
    if hasattr(data, "to_dict"):
        return [{str(name): json_value(value) for name, value in row.items()} for row in data.to_dict("records")]
    return data.tolist() if hasattr(data, "tolist") else data


def _invocations(data: Any) -> Any:
    if hasattr(data, "to_dict"):
        return {"dataframe_records": _records(data)}
    if isinstance(data, dict):
        return {"inputs": {name: _records(each) for name, each in data.items()}}
    return {"inputs": _records(data)}


def _v2(data: Any) -> Any:
    if hasattr(data, "to_dict"):
        return [_column(str(name), data[name]) for name in data.columns]
    if isinstance(data, dict):
        return [_tensor(name, each) for name, each in data.items()]
    return [_tensor("input-0", data)]


def _column(name: str, series: Any) -> dict[str, Any]:
    values = [json_value(value) for value in series.tolist()]
    datatype = DATATYPES.get(str(series.dtype), "BYTES")
    if datatype == "BYTES":
        values = [
            value if isinstance(value, (str, dict)) and not _nested(value) else json.dumps(value) for value in values
        ]
    return {"name": name, "datatype": datatype, "shape": [len(values)], "data": values}


def _nested(value: Any) -> bool:
    return isinstance(value, dict) and set(value) != {"b64"}


def _tensor(name: str, array: Any) -> dict[str, Any]:
    import numpy as np

    array = np.asarray(array)
    datatype = DATATYPES.get(str(array.dtype), "BYTES")
    return {"name": name, "datatype": datatype, "shape": list(array.shape), "data": array.ravel().tolist()}


# ---- what came back ------------------------------------------------------------------------------


def plain(result: Any) -> dict[str, Any]:
    """A result of predict in JSON's values: {"table": {name: column}}, {"shape", "data"}, {"members": {name: …}}."""
    import numpy as np
    import pandas as pd

    if isinstance(result, pd.DataFrame):
        return {"table": {str(name): [json_value(value) for value in result[name].tolist()] for name in result.columns}}
    if isinstance(result, (pd.Series, np.ndarray)):
        array = np.asarray(result)
        return {"shape": list(array.shape), "data": [json_value(value) for value in array.ravel().tolist()]}
    if isinstance(result, dict):
        return {"members": {str(name): plain(each) for name, each in result.items()}}
    if isinstance(result, (list, tuple)) and result and isinstance(result[0], np.ndarray):
        return {"members": {f"output-{at}": plain(each) for at, each in enumerate(result)}}
    if isinstance(result, list):
        return {"shape": [len(result)], "data": [json_value(value) for value in result]}
    return {"shape": [], "data": [json_value(result)]}


def json_value(value: Any) -> Any:
    """Bytes as {"b64": …}, dates as ISO 8601, what is missing as null."""
    if isinstance(value, bytes):
        return {"b64": base64.b64encode(value).decode()}
    if isinstance(value, dict):
        return {str(name): json_value(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)) or hasattr(value, "tolist"):
        value = value.tolist() if hasattr(value, "tolist") else value
        return [json_value(each) for each in value] if isinstance(value, (list, tuple)) else json_value(value)
    if value is None or value != value:
        return None
    return value.isoformat() if hasattr(value, "isoformat") else value
