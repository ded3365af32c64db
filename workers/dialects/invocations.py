"""MLflow's own dialect, `POST …/invocations`: the bodies and answers of `mlflow models serve`.

    JSON with exactly one of dataframe_split, dataframe_records, instances, inputs, and perhaps params
    text/csv with a header line
    -> {"predictions": …}

MLflow's own functions parse the body and make the answer's values, those of the version in the model's
environment: so the answers are the same, byte for byte. What differs on purpose: a missing Content-Type
means JSON, the client's mistakes are 400 and not 500, and errors do not quote its data. The gateway gives errors
the form `{"error_code", "message"}`.
"""

from __future__ import annotations

import io
import json
import re
from typing import Any, Dict, Tuple

from ...protocol import json_text
from ...protocol.errors import InvalidRequest, ServingError, UnsupportedMediaType
from ...protocol.messages import InferRequest
from ...protocol.v2 import JSON_TYPE, check_members
from ..convert.kinds import is_json
from ..convert.plain import dumps, is_frame
from ..convert.sizes import check_csv, check_records
from ..convert.tables import check_unknown
from ..model.call import Answer, Body, Call
from ..model.served import Dialect, ServedModel
from . import mlflow1

FORMATS = ("dataframe_split", "dataframe_records", "instances", "inputs")
CSV = "text/csv"
#: `signature_name` is TensorFlow Serving's, whose form `instances` and `inputs` were.
_MEMBERS = frozenset({*FORMATS, "params", "signature_name"})
#: What follows these in MLflow's messages quotes the request.
_QUOTES = re.compile(r"\s*(Error:|Input:|IMPORTANT:|Received|: '|for data `|data `).*", re.DOTALL)
#: A client's text in the midst of a message of MLflow, pandas or numpy.
_QUOTED = re.compile(
    r"(?P<string>string) \".*\"|(?P<data>data|value) ([\"'`]).*?\3"
    r"|(?P<parse>unable to parse): .*?(?=, at position|$)|(?P<of>of) '.*'(?= with type)",
    re.DOTALL,
)


class InvocationsDialect(Dialect):
    """Requests to `/invocations`."""

    def decode(self, model: ServedModel, request: InferRequest, body: Body) -> Call:
        media = request.content_type.partition(";")[0].strip().lower()
        params: Dict[str, Any] = {}
        unwrapped = False
        if media == CSV:
            data = _from_csv(model, request.content_type, body)
        elif is_json(request.content_type, body):
            data, params, unwrapped = _from_body(model, body)
        else:
            raise UnsupportedMediaType(f"{media[:60]} is not understood here: send {JSON_TYPE} or {CSV}")
        return Call(
            request.kind,
            {},
            params,
            unwrapped,
            accept_encoding=request.accept_encoding,
            deadline=request.deadline,
            rows=_rows(data),
            alone=True,
            name=model.name,
            version=model.version,
            data=data,
        )

    def encode(self, model: ServedModel, call: Call, result: Any) -> Answer:
        unwrapped: bool = call.request
        return Answer(dumps_predictions(result, unwrapped=unwrapped), JSON_TYPE, rows=call.rows)


def load_json(body: Body) -> Dict[str, Any]:
    """The JSON object of a body. Raises InvalidRequest."""
    document = json_text.load(body)
    if not isinstance(document, dict):
        raise InvalidRequest(f"the body must be a JSON object with exactly one of the fields {', '.join(FORMATS)}")
    return document


def dumps_predictions(result: Any, *, unwrapped: bool = False) -> bytes:
    """What `mlflow models serve` answers for this result of predict; where it fails, what the other routes answer.

    Raises ModelError.
    """
    from mlflow.utils.proto_json_utils import NumpyEncoder, _get_jsonable_obj

    try:
        value = _get_jsonable_obj(_without_durations(result), pandas_orient="records")
        document = value if unwrapped else {"predictions": value}
        return json.dumps(document, cls=NumpyEncoder).encode("ascii")
    except (TypeError, ValueError, RecursionError):
        return dumps(result if unwrapped else {"predictions": result})


def _without_durations(result: Any) -> Any:
    """Arrays of durations as text, as on all routes: MLflow's JSON has the nanoseconds of some, and none for others."""
    if isinstance(result, dict):
        return {name: _without_durations(value) for name, value in result.items()}
    return json.loads(dumps(result)) if getattr(getattr(result, "dtype", None), "kind", "") == "m" else result


def _from_body(model: ServedModel, body: Body) -> Tuple[Any, Dict[str, Any], bool]:
    """As `_from_json`; bodies of MLflow 1 too, where that is the model's own."""
    if mlflow1.is_mlflow1():
        document, old = mlflow1.as_mlflow2(json_text.load(body))
        if not isinstance(document, dict):
            raise InvalidRequest("the body must be a JSON object, or a list of records")
    else:
        document, old = load_json(body), False
    data, params, unwrapped = _from_json(model, document)
    mlflow1.check_params(model.model, params)
    return data, params, unwrapped or old


def _from_json(model: ServedModel, document: Dict[str, Any]) -> Tuple[Any, Dict[str, Any], bool]:
    """The argument of predict, the model's params, and whether the answer goes without "predictions"."""
    if _is_for_language_models(document):
        known = {each.name for each in model.signature.params}
        params = {name: value for name, value in document.items() if name in known}
        return {name: value for name, value in document.items() if name not in known}, params, True
    seen = [name for name in FORMATS if name in document]
    if len(seen) != 1:
        given = ", ".join(str(name)[:60] for name in list(document)[:20]) or "none"
        raise InvalidRequest(f"the body must have exactly one of the fields {', '.join(FORMATS)}; its fields: {given}")
    check_members(document, _MEMBERS, "the request", 'the model\'s parameters go into "params"')
    params = document.get("params") or {}
    if not isinstance(params, dict):
        raise InvalidRequest('the field "params" must be an object: the model\'s parameters')
    if model.signature.from_type_hint:
        if seen != ["inputs"]:
            raise InvalidRequest(f'the model takes the field "inputs", because of its type hints, not "{seen[0]}"')
        return document["inputs"], params, False
    return parse_format(model, seen[0], document[seen[0]]), params, False


def parse_format(model: ServedModel, name: str, value: Any) -> Any:
    """One of MLflow's four formats to what the model is called with. Raises InvalidRequest."""
    schema = _input_schema(model)
    if name == "dataframe_records" and isinstance(value, list) and value:
        check_records(value)
    try:
        if mlflow1.is_mlflow1():
            return _checked(model, mlflow1.parse(name, value, schema))
        from mlflow.utils.proto_json_utils import dataframe_from_parsed_json, parse_tf_serving_input

        if name.startswith("dataframe_"):
            data = dataframe_from_parsed_json(value, pandas_orient=name[len("dataframe_") :], schema=schema)
        else:
            data = parse_tf_serving_input({name: value}, schema=schema)
    except ServingError:
        raise
    except Exception as error:  # MLflow's own kind, and whatever pandas and numpy say of the values
        raise InvalidRequest(_complaint(name, error)) from None
    return _checked(model, data)


def _checked(model: ServedModel, data: Any) -> Any:
    """A table as it is, unless a column of it looks like an optional one that is not there."""
    inputs = model.signature.inputs
    if is_frame(data) and inputs and inputs[0].named and inputs[0].kind == "column":
        check_unknown([set(map(str, data.columns))], inputs)
    return data


def _from_csv(model: ServedModel, content_type: str, body: Body) -> Any:
    import pandas as pd

    charset = re.search(r"charset\s*=\s*\"?([^\s;\"]+)", content_type, re.IGNORECASE)
    if charset and charset.group(1).lower() not in ("utf-8", "utf8", "us-ascii"):
        raise UnsupportedMediaType(f"CSV must be UTF-8, not {charset.group(1)[:40]}")
    schema = _input_schema(model)
    check_csv(bytes(body))
    try:
        types = dict(zip(schema.input_names(), schema.pandas_types())) if schema is not None else None
        data = pd.read_csv(io.StringIO(bytes(body).decode("utf-8")), dtype=types)
    except UnicodeDecodeError:
        raise InvalidRequest("the CSV body is not UTF-8") from None
    except Exception as error:  # pandas' parsers raise many kinds, and all of them speak of the body
        raise InvalidRequest(_complaint(CSV, error)) from None
    return _checked(model, data)


def _input_schema(model: ServedModel) -> Any:
    """MLflow's own schema of the model's inputs; None where it has none."""
    metadata = getattr(model.model, "metadata", None)
    return metadata.get_input_schema() if metadata is not None else None


def _is_for_language_models(document: Dict[str, Any]) -> bool:
    """Is this the unified form of language models, as this environment's MLflow sees it? Old ones know none."""
    try:
        from mlflow.pyfunc.utils.serving_data_parser import is_unified_llm_input
    except ImportError:
        return False
    return bool(is_unified_llm_input(document))


def _complaint(what: str, error: Exception) -> str:
    """What MLflow or pandas found wrong, without the data that it quotes."""
    text = _QUOTED.sub(lambda found: found[found.lastgroup or 0], _QUOTES.sub("", str(error))).strip().rstrip(".")
    return f"{what} does not fit the model: {text[:300] or type(error).__name__}"


def _rows(data: Any) -> int:
    """How many rows this argument of predict has, for the counters."""
    if isinstance(data, dict):
        return max((_rows(each) for each in data.values()), default=1)
    if isinstance(data, str) or not hasattr(data, "__len__") or getattr(data, "ndim", 1) == 0:
        return 1
    return len(data) or 1
