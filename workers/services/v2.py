"""V2 requests and answers as a service has them: its fields, what the model says to these, its own outputs.

    the request was JSON, or asks for JSON       `data` is a list, as in JSON
    a binary tensor, or asked for as binary      `data` is an array

Called by `adapter.py`.
"""

from __future__ import annotations

from typing import Any, Dict, List, Tuple

import orjson

from ...protocol.datatypes import DATATYPES
from ...protocol.kinds import INFER
from ...protocol.messages import InferRequest
from ...protocol.v2 import BINARY_TYPE, JSON_TYPE, InferInput, V2Request, parse_document
from ..convert.plain import dumps
from ..convert.tensors import to_array, to_output
from ..dialects.v2 import V2Dialect
from ..model.call import Answer, Body, Call
from ..model.served import ServedModel


def default_v2(inner: ServedModel, fields: Dict[str, Any]) -> Dict[str, Any]:
    """The model's answer to V2 fields, as JSON has it; outputs that the client wants as binary are arrays."""
    dialect = V2Dialect()
    parsed = parse_document(_document_of(fields), is_open=True)
    call = dialect.call(inner, InferRequest(id=0), parsed, from_client=False)
    outputs: List[Dict[str, Any]] = []
    for each, binary in dialect.chosen(inner, call, inner.predict(call)):
        head: Dict[str, Any] = {"name": each.name, "shape": list(each.array.shape), "datatype": each.datatype}
        if binary:
            outputs.append({**head, "data": each.array})
        else:
            said = to_output(each.name, each.datatype, each.array, binary=False)
            parameters = {"parameters": said.parameters} if said.parameters else {}
            outputs.append({**head, **parameters, "data": orjson.loads(dumps(said.data))})
    head = {"model_name": call.name, "model_version": call.version}
    return {**head, **({} if call.request.id is None else {"id": call.request.id}), "outputs": outputs}


def _document_of(fields: Dict[str, Any]) -> Any:
    """V2 fields as JSON's parser gives them. Arrays become lists by themselves: JSON has no infinities and no bytes."""
    inputs: List[Dict[str, Any]] = fields["inputs"]
    lists = [each["data"].tolist() if hasattr(each.get("data"), "tolist") else None for each in inputs]
    bare = [each if found is None else {**each, "data": None} for each, found in zip(inputs, lists)]
    document = orjson.loads(dumps({**fields, "inputs": bare}))
    for each, found in zip(document["inputs"], lists):
        if found is not None:
            each["data"] = found
    return document


def v2_fields(parsed: V2Request) -> Dict[str, Any]:
    """A binary request as the JSON form has it, its tensors as arrays."""
    inputs: List[Dict[str, Any]] = [
        {
            "name": each.name,
            "shape": list(each.shape),
            "datatype": each.datatype,
            **({"parameters": parameters} if parameters else {}),
            "data": to_array(each),
        }
        for each, parameters in [(each, _parameters_of(each)) for each in parsed.inputs]
    ]
    fields: Dict[str, Any] = {"inputs": inputs}
    if parsed.id is not None:
        fields["id"] = parsed.id
    if parsed.parameters:
        fields["parameters"] = parsed.parameters
    if parsed.outputs:
        fields["outputs"] = [{"name": each.name, "parameters": each.parameters} for each in parsed.outputs]
    return fields


def _parameters_of(tensor: InferInput) -> Dict[str, Any]:
    """Without what says how the tensor came: it is an array now."""
    found = {name: value for name, value in tensor.parameters.items() if name != "binary_data_size"}
    if found.get("content_type") == "base64":
        del found["content_type"]
    return found


def v2_answer(inner: ServedModel, call: Call, result: Any) -> Answer:
    """What a method returned: the members of a V2 answer, or anything that a model may return."""
    parsed: V2Request = call.request
    if isinstance(result, dict) and isinstance(result.get("outputs"), list):
        head: Dict[str, Any] = {"model_name": call.name, "model_version": call.version}
        if parsed.id is not None:
            head["id"] = parsed.id
        outputs, tails = _written(parsed, result["outputs"])
        text = dumps({**head, **result, "outputs": outputs})
        if not tails:
            return Answer(text, JSON_TYPE)
        return Answer(b"".join([text, *tails]), BINARY_TYPE, json_size=len(text))
    return inner.dialects[INFER].encode(inner, call, result)


def _written(parsed: V2Request, outputs: List[Any]) -> Tuple[List[Any], List[Body]]:
    """A service's own outputs, and what follows their JSON: the arrays in them that the client wants as binary."""
    import numpy as np

    asked = {each.name: each for each in parsed.outputs or ()}
    found: List[Any] = []
    tails: List[Body] = []
    for each in outputs:
        if (
            isinstance(each, dict)
            and hasattr(each.get("data"), "dtype")
            and each.get("datatype") in DATATYPES
            and parsed.wants_binary(asked.get(each.get("name", "")))
        ):
            raw = to_output(each["name"], each["datatype"], np.asarray(each["data"]), binary=True).raw or b""
            tails.append(raw)
            parameters = {**each.get("parameters", {}), "binary_data_size": len(raw)}
            found.append({**{name: each[name] for name in each if name != "data"}, "parameters": parameters})
        else:
            found.append(each)
    return found, tails
