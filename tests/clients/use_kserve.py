"""What the unmodified KServe SDK's REST client gets from a gateway: `python use_kserve.py URL` prints it as JSON."""

import asyncio
import sys

import httpx
import numpy as np
from cases import EXTREMES, plain, run
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

URL = sys.argv[1]
TYPES = {"float32": "FP32", "float64": "FP64", "float16": "FP16", "object": "BYTES", "bool": "BOOL"}


def tensor(name, array, binary):
    kind = array.dtype.name
    if kind == "object":
        array = np.array([text.encode() for text in array], dtype=object)
    made = InferInput(name, list(array.shape), TYPES.get(kind, kind.upper()))
    made.set_data_from_numpy(array, binary_data=binary)
    return made


def pair(binary, **options):
    left = np.array([1, 2, 3], dtype=np.float32)
    return InferRequest("pair", [tensor("left", left, binary), tensor("right", left * 10, binary)], **options)


async def case_live(client):
    return await client.is_server_live(URL)


async def case_ready(client):
    return await client.is_server_ready(URL)


async def case_model_ready(client):
    return [await client.is_model_ready(URL, name) for name in ("iris", "nosuch")]


async def case_json(client):
    answer = await client.infer(URL, pair(False, request_id="request 7"), model_name="pair")
    return [answer.id, answer.model_name, {output.name: plain(output.as_numpy()) for output in answer.outputs}]


async def case_binary(client):
    request = pair(True, parameters={"binary_data_output": True})
    answer = await client.infer(URL, request, model_name="pair")
    return {output.name: plain(output.as_numpy()) for output in answer.outputs}


async def case_requested_outputs(client):
    wanted = [RequestedOutput("difference", {"binary_data": True}), RequestedOutput("sum", {"binary_data": False})]
    answer = await client.infer(URL, pair(True, request_outputs=wanted), model_name="pair")
    return {output.name: plain(output.as_numpy()) for output in answer.outputs}


async def case_dictionary(client):
    """A request that the caller wrote as a dictionary."""
    data = {"inputs": [{"name": "value", "shape": [2], "datatype": "FP64", "data": [1.5, 2]}]}
    answer = await client.infer(URL, {**data, "parameters": {"factor": 2.0, "suffix": "!"}}, model_name="params")
    return {output.name: plain(output.as_numpy()) for output in answer.outputs}


async def case_every_datatype(client):
    """The names whose values came back changed, with binary tensors both ways and with JSON both ways."""
    changed = {}
    for binary in (True, False):
        # The client itself refuses FP16 in JSON.
        inputs = [tensor(name, array, binary or name == "FLOAT16") for name, array in EXTREMES.items()]
        request = InferRequest("datatypes", inputs, parameters={"binary_data_output": binary})
        answer = await client.infer(URL, request, model_name="datatypes")
        got = {output.name: plain(output.as_numpy()) for output in answer.outputs}
        changed[str(binary)] = [name for name, array in EXTREMES.items() if got.get(name) != plain(array)]
    return changed


async def case_error_unknown_model(client):
    return await client.infer(URL, pair(False), model_name="nosuch")


async def case_error_shape(client):
    request = InferRequest("identity", [tensor("input-0", np.zeros(3, dtype=np.float32), False)])
    return await client.infer(URL, request, model_name="identity")


async def case_error_in_the_model(client):
    inputs = [tensor("left", np.zeros(2, dtype=np.float32), True), tensor("right", np.zeros(3, dtype=np.float32), True)]
    return await client.infer(URL, InferRequest("pair", inputs), model_name="pair")


async def main() -> None:
    async with InferenceRESTClient(RESTConfig(protocol="v2", retries=0)) as client:
        await run(httpx.HTTPStatusError, lambda error: (error.response.status_code, str(error)), client)


if __name__ == "__main__":
    asyncio.run(main())
