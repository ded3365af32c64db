"""What the unmodified KServe SDK's REST client gets from a gateway: `python use_kserve.py URL` prints it as JSON.

Runs in an environment of its own (kserve.txt), without pytest or anything of ours. Every function called `case_…` is a
case: {"name": {"result": …}} or, when the client raised, {"name": {"status": …, "message": …}}.
"""

import asyncio
import json
import sys

import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

URL = sys.argv[1]
TYPES = {"float32": "FP32", "float64": "FP64", "float16": "FP16", "object": "BYTES", "bool": "BOOL"}
EXTREMES = {
    "BOOL": np.array([True, False]),
    **{
        kind.upper(): np.array([np.iinfo(kind).min, np.iinfo(kind).max], dtype=kind)
        for kind in ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64")
    },
    "FLOAT16": np.array([-65504, 0.5], dtype=np.float16),
    "FLOAT32": np.array([0.1, np.finfo(np.float32).max], dtype=np.float32),
    "FLOAT64": np.array([0.1, np.finfo(np.float64).max]),
    "STR": np.array([b"a", "naïve ☃".encode()], dtype=object),
}


def tensor(name, array, binary):
    kind = array.dtype.name
    made = InferInput(name, list(array.shape), TYPES.get(kind, kind.upper()))
    made.set_data_from_numpy(array, binary_data=binary)
    return made


def plain(output):
    return [value.decode() if isinstance(value, bytes) else value for value in output.as_numpy().reshape(-1).tolist()]


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
    return [answer.id, answer.model_name, {output.name: plain(output) for output in answer.outputs}]


async def case_binary(client):
    request = pair(True, parameters={"binary_data_output": True})
    answer = await client.infer(URL, request, model_name="pair")
    return {output.name: plain(output) for output in answer.outputs}


async def case_requested_outputs(client):
    wanted = [RequestedOutput("difference", {"binary_data": True}), RequestedOutput("sum", {"binary_data": False})]
    answer = await client.infer(URL, pair(True, request_outputs=wanted), model_name="pair")
    return {output.name: plain(output) for output in answer.outputs}


async def case_dictionary(client):
    """A request that the caller wrote as a dictionary."""
    data = {"inputs": [{"name": "value", "shape": [2], "datatype": "FP64", "data": [1.5, 2]}]}
    answer = await client.infer(URL, {**data, "parameters": {"factor": 2.0, "suffix": "!"}}, model_name="params")
    return {output.name: plain(output) for output in answer.outputs}


async def case_every_datatype(client):
    """The names whose values came back changed, with binary tensors both ways and with JSON both ways."""
    changed = {}
    for binary in (True, False):
        # The client itself refuses FP16 in JSON.
        inputs = [tensor(name, array, binary or name == "FLOAT16") for name, array in EXTREMES.items()]
        request = InferRequest("datatypes", inputs, parameters={"binary_data_output": binary})
        answer = await client.infer(URL, request, model_name="datatypes")
        got = {output.name: plain(output) for output in answer.outputs}
        changed[str(binary)] = [
            name
            for name, array in EXTREMES.items()
            if got.get(name) != [value.decode() if isinstance(value, bytes) else value for value in array.tolist()]
        ]
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
    answers = {}
    async with InferenceRESTClient(RESTConfig(protocol="v2", retries=0)) as client:
        for name, case in list(globals().items()):
            if name.startswith("case_"):
                try:
                    answers[name] = {"result": await case(client)}
                except httpx.HTTPStatusError as error:
                    answers[name] = {"status": error.response.status_code, "message": str(error)}
                except Exception as error:
                    answers[name] = {"status": type(error).__name__, "message": str(error)}
    print(json.dumps(answers))


if __name__ == "__main__":
    asyncio.run(main())
