"""MLflow 1 in a model's environment: its bodies, and the four formats of MLflow 2, which it does not know.

    [{"a": 1}, …]                       records
    {"columns": […], "data": [[…], …]}  split, perhaps with "index"
    -> the predictions without a wrapper

as its own server takes and answers them. Called by `invocations.py`. MLflow's own functions read tables and tensors, as
far as it has them; `instances` and `inputs` for columns, which it has not, are made a table here.
"""

from __future__ import annotations

import inspect
import io
from typing import Any, Dict, Tuple

import orjson

from ...protocol.errors import NotSupported

_SPLIT = frozenset({"columns", "data", "index"})


def is_mlflow1() -> bool:
    """Is it in this environment?"""
    from mlflow.utils import proto_json_utils

    return not hasattr(proto_json_utils, "dataframe_from_parsed_json")


def as_mlflow2(document: Any) -> Tuple[Any, bool]:
    """A body in MLflow 2's form, and whether it was one of MLflow 1, which is answered without a wrapper."""
    if isinstance(document, list):
        return {"dataframe_records": document}, True
    if isinstance(document, dict) and "data" in document and _SPLIT.issuperset(document):
        return {"dataframe_split": document}, True
    return document, False


def parse(name: str, value: Any, schema: Any) -> Any:
    """One of the four formats to what the model is called with. Raises whatever MLflow and pandas do."""
    from mlflow.utils import proto_json_utils

    if name.startswith("dataframe_"):
        return _frame(value, name[len("dataframe_") :], schema)
    if schema is None or schema.is_tensor_spec():
        return proto_json_utils.parse_tf_serving_input({name: value}, schema=schema)
    return _columns(value, schema)


def check_params(model: Any, params: Dict[str, Any]) -> None:
    """Does the model's MLflow know parameters at all? Those before 2.6 do not. Raises NotSupported."""
    if params and "params" not in inspect.signature(model.predict).parameters:
        import mlflow

        raise NotSupported(f"MLflow {mlflow.__version__}, with which the model is served, knows no parameters")


def _frame(value: Any, orient: str, schema: Any) -> Any:
    from mlflow.utils import proto_json_utils

    text = orjson.dumps(value).decode()  # in a file: a text might be taken for a path
    return proto_json_utils._dataframe_from_json(io.StringIO(text), schema=schema, pandas_orient=orient)


def _columns(value: Any, schema: Any) -> Any:
    """Records, lists by column, rows by position, or the values of the only column as a table."""
    names = schema.input_names() if schema.has_input_names() else list(range(len(schema.inputs)))
    if isinstance(value, dict):
        columns = {name: each if isinstance(each, list) else [each] for name, each in value.items()}
        value = [dict(zip(columns, row)) for row in zip(*columns.values())]
    elif isinstance(value, list) and value and not isinstance(value[0], dict):
        rows = [each if isinstance(each, list) else [each] for each in value]
        if {len(row) for row in rows} != {len(names)}:
            raise ValueError(f"rows of {len(names)} values are taken, one for each column")
        return _frame({"columns": names, "data": rows}, "split", schema)
    return _frame(value, "records", schema)
