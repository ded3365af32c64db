"""The V2 dialect: the Open Inference Protocol, with binary tensors."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Dict, List, Tuple

from ...protocol.errors import InvalidRequest
from ...protocol.messages import InferRequest
from ...protocol.v2 import (
    BINARY_TYPE,
    JSON_TYPE,
    V2Request,
    build_response,
    check_content_type,
    did_you_mean,
    parse_request,
)
from ..convert.inputs import InputAdapter
from ..convert.outputs import ModelOutput, to_outputs
from ..convert.tensors import to_array, to_output
from ..model.call import Answer, Body, Call
from ..model.served import Dialect, ServedModel

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]


class V2Dialect(Dialect):
    """The Open Inference Protocol, with binary tensors."""

    def decode(self, model: ServedModel, request: InferRequest, body: Body) -> Call:
        check_content_type(request.content_type, request.json_size, body)
        parsed = parse_request(body, request.json_size, model.metadata["inputs"], bare=model.fields.bare)
        return self.call(model, request, parsed)

    def call(self, model: ServedModel, request: InferRequest, parsed: V2Request, *, from_client: bool = True) -> Call:
        """What a parsed request asks of the model. `from_client`: as in `InputAdapter.params`."""
        params: Dict[str, Any] = {}
        deadline = request.deadline
        if parsed.parameters:
            params = model.adapter.params(parsed.parameters, from_client=from_client)
            deadline = deadline_of(request, parsed, model.adapter)
        given = [each for each in parsed.inputs if not model.adapter.is_left_out(each)]
        rows = parsed.inputs[0].shape[0] if parsed.inputs and parsed.inputs[0].shape else 1
        parsed.inputs = []
        data: Any = None
        inputs: Dict[str, Array] = {}
        if given:
            arrays = {each.name: to_array(each) for each in given}
            inputs = model.adapter.conform(model.fields.opened(arrays, deadline))
            rows = _rows(inputs)
        else:
            data = model.fields.nothing(rows)
        return Call(
            request.kind,
            inputs,
            params,
            parsed,
            request.accept_encoding,
            deadline,
            rows,
            request.alone or not inputs or model.adapter.whole,
            model.name,
            model.version,
            data,
        )

    def chosen(self, model: ServedModel, call: Call, result: Any) -> List[Tuple[ModelOutput, bool]]:
        """The outputs that the request asks for, and whether as binary. Raises as `encode` does."""
        parsed: V2Request = call.request
        outputs = {each.name: each for each in to_outputs(result, model.signature.outputs)}
        if parsed.outputs is None:
            return [(each, parsed.wants_binary(None)) for each in outputs.values()]
        for each in parsed.outputs:
            if each.name not in outputs:
                raise InvalidRequest(f"the model has no output {each.name!r}: {did_you_mean(each.name, outputs)}")
        return [(outputs[each.name], parsed.wants_binary(each)) for each in parsed.outputs]

    def encode(self, model: ServedModel, call: Call, result: Any) -> Answer:
        parsed: V2Request = call.request
        chosen = self.chosen(model, call, result)
        body, json_size = build_response(
            call.name,
            [to_output(each.name, each.datatype, each.array, binary=binary) for each, binary in chosen],
            model_version=call.version,
            request_id=parsed.id,
        )
        return Answer(body, JSON_TYPE if json_size is None else BINARY_TYPE, "", json_size, 0, call.rows)


def deadline_of(request: InferRequest, parsed: V2Request, adapter: InputAdapter) -> float:
    """The earlier of the gateway's deadline and the request's `timeout` in microseconds from receipt."""
    timeout = parsed.parameters.get("timeout", 0)
    if adapter.owns_parameter("timeout"):
        return request.deadline
    if isinstance(timeout, bool) or not isinstance(timeout, int) or timeout < 0:
        raise InvalidRequest("the parameter timeout must be a whole number of microseconds; 0 means none")
    if not timeout:
        return request.deadline
    own = (request.received or time.monotonic()) + timeout / 1e6
    return min(own, request.deadline) if request.deadline else own


def _rows(inputs: Dict[str, Array]) -> int:
    return max([len(array) for array in inputs.values() if array.ndim], default=1)
