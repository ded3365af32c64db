"""Services behind the routes of other dialects: their bodies as a service's fields, its results as their answers.

    v1_predict                  instances -> text, data, images or pdf_file       results -> {"predictions"}
    invocations                 MLflow's formats -> the same                      results -> {"predictions"}
    generate, generate_stream   text_input -> text, and the other members         a result -> {"text_output"}

A service is asked once per text, because its methods answer one; a table, or several images, are one request.
Called by `adapter.py` for what a method of the service's own answers; all else is the model's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Dict, List, Optional

from ...protocol.kinds import GENERATE, GENERATE_STREAM, INVOCATIONS, V1
from ...protocol.messages import InferRequest
from ...protocol.mlflow_codes import error_code
from ...protocol.v2 import JSON_TYPE
from ..convert.kinds import TABULAR
from ..convert.plain import dumps, is_frame, records
from ..dialects.generate import generate_answer, read_generate
from ..dialects.kserve_v1 import fields_of, files_of, read_instances
from ..dialects.legacy import checked_status, is_legacy
from ..model.call import Answer, Body, Call
from ..model.served import ServedModel
from .base import ModelhubModelService, overrides

Fields = Dict[str, Any]


@dataclass
class Asked:
    """One body for a service."""

    requests: List[Fields]  # one after another
    each: bool  # is the answer made of a result for each of `requests`, rather than of the result's rows?
    rows: int = 1
    note: Any = None  # for the answer
    call: Optional[Call] = None  # what the model itself would be asked, where that is known already


class Form(ABC):
    """One dialect, for services."""

    @abstractmethod
    def read(self, service: ModelhubModelService, inner: ServedModel, request: InferRequest, body: Body) -> Asked:
        """`body` is inflated. Raises leaves of ServingError."""

    def answer(self, call: Call, asked: Asked, result: Any) -> Answer:
        """`result`: what the service returned; a list of that where `asked.each`."""
        results = result if asked.each else [result]
        for one in results:
            if is_legacy(one) and checked_status(one["statusCode"]) >= 400:
                status = checked_status(one["statusCode"])
                return Answer(self.failure(status, str(one.get("message", ""))), JSON_TYPE, status=status)
        found = [one.get("data") if is_legacy(one) else one for one in results]
        return Answer(self.success(call, asked, found), JSON_TYPE, rows=asked.rows)

    def failure(self, status: int, message: str) -> bytes:
        return dumps({"error": message})

    def success(self, call: Call, asked: Asked, results: List[Any]) -> bytes:
        predictions = [_only(one) for one in results] if asked.each else _rows(results[0], asked.rows)
        return dumps({"predictions": predictions})


class V1Form(Form):
    """KServe V1; the service finds the `instances` in its request, too."""

    def read(self, service: ModelhubModelService, inner: ServedModel, request: InferRequest, body: Body) -> Asked:
        instances, params = read_instances(request, body)
        inputs = inner.signature.inputs
        takes_text = not inputs or any(each.datatype == "BYTES" for each in inputs)
        _, fields = fields_of(instances, takes_text=takes_text)
        asked = _asked(service, fields, params)
        for at, fields in enumerate(asked.requests):
            fields["instances"] = [instances[at]] if asked.each else instances
        asked.rows = len(instances)
        return asked


class InvocationsForm(Form):
    """MLflow's own; its functions read the body."""

    def read(self, service: ModelhubModelService, inner: ServedModel, request: InferRequest, body: Body) -> Asked:
        call = inner.decode(request, body)
        if call.request:  # the form of language models: the body's members are the fields
            return Asked([{**call.data, **_params(call.params)}], False, call.rows, True, call)
        asked = _asked(service, _fields_of_data(call.data), call.params)
        asked.rows, asked.call = call.rows, call
        return asked

    def failure(self, status: int, message: str) -> bytes:
        return dumps({"error_code": error_code(status), "message": message})

    def success(self, call: Call, asked: Asked, results: List[Any]) -> bytes:
        return dumps(results[0]) if asked.note else super().success(call, asked, results)


class GenerateForm(Form):
    """Triton's generate; `note` is the request's id."""

    def read(self, service: ModelhubModelService, inner: ServedModel, request: InferRequest, body: Body) -> Asked:
        fields, request_id = read_generate(request, body)
        return Asked([fields], False, note=request_id)

    def success(self, call: Call, asked: Asked, results: List[Any]) -> bytes:
        return bytes(generate_answer(call, results[0], asked.note).body)


FORMS: Dict[str, Form] = {
    V1: V1Form(),
    INVOCATIONS: InvocationsForm(),
    GENERATE: GenerateForm(),
    GENERATE_STREAM: GenerateForm(),
}


def _params(params: Dict[str, Any]) -> Fields:
    return {"params": params} if params else {}


def _asked(service: ModelhubModelService, fields: Fields, params: Dict[str, Any]) -> Asked:
    """Texts one by one; what is all files or all texts in a table that the service would not know what to do with."""
    if "data" in fields:
        fields = _cells(service, fields["data"]) or fields
    if "text" in fields:
        return Asked([{"text": text, **_params(params)} for text in fields["text"]], True)
    return Asked([{**fields, **_params(params)}], False)


def _cells(service: ModelhubModelService, rows: List[Any]) -> Optional[Fields]:
    """A table with one column of texts or files, where the service is for these and not for tables."""
    takes_tables = TABULAR in service.kinds or overrides(service, "predict_tabular")
    for_text = overrides(service, "predict_text") and not (
        overrides(service, "predict_tabular") or overrides(service, "predict")
    )
    if takes_tables and not for_text:
        return None
    cells = [_cell(row) for row in rows]
    if all(isinstance(cell, str) for cell in cells):
        return {"text": cells}
    if takes_tables or not all(isinstance(cell, bytes) for cell in cells):
        return None
    return files_of(cells)[1]


def _cell(row: Any) -> Any:
    """The only value of a row; None where it has several."""
    values = list(row.values()) if isinstance(row, dict) else row if isinstance(row, list) else [row]
    return values[0] if len(values) == 1 else None


def _fields_of_data(data: Any) -> Fields:
    """What MLflow made of a body - a DataFrame, an array, arrays by name, values - as fields."""
    if is_frame(data):
        return {"data": records(data)}
    if isinstance(data, dict):
        columns = {str(name): _listed(values) for name, values in data.items()}
        lengths = {len(values) if isinstance(values, list) else -1 for values in columns.values()}
        if len(lengths) == 1 and -1 not in lengths:
            return {"data": [dict(zip(columns, row)) for row in zip(*columns.values())]}
        return {"data": [columns]}
    values = _listed(data)
    values = values if isinstance(values, list) else [values]
    return {"text": values} if values and all(isinstance(each, str) for each in values) else {"data": values}


def _listed(values: Any) -> Any:
    return values.tolist() if hasattr(values, "tolist") else values


def _only(result: Any) -> Any:
    """The answer to one text: a model's answer to it is a list with one element."""
    found = _rows(result, 1)
    return found[0]


def _rows(result: Any, count: int) -> List[Any]:
    """A result as one prediction per row, where it has as many; else as the only one."""
    if is_frame(result):
        result = records(result)
    found = list(_listed(result)) if isinstance(result, (list, tuple)) or _is_array(result) else None
    return found if found is not None and (len(found) == count or count != 1) else [result]


def _is_array(result: Any) -> bool:
    return hasattr(result, "tolist") and bool(getattr(result, "ndim", 0))
