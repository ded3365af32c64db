"""What the unmodified KServe SDK's gRPC client gets: `python use_kserve_grpc.py HOST:PORT` prints it as JSON."""

import asyncio
import sys

import grpc
import numpy as np
from cases import plain, run
from kserve import InferenceGRPCClient, InferInput, InferRequest

URL = sys.argv[1]


def tensor(name, array, datatype, raw):
    made = InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array, binary_data=raw)
    return made


def pair(raw, right=3):
    left = np.array([1, 2, 3], dtype=np.float32)
    inputs = [tensor("left", left, "FP32", raw), tensor("right", left[:right] * 10, "FP32", raw)]
    return InferRequest("pair", inputs, request_id="request 7")


async def case_live(client):
    return await client.is_server_live()


async def case_ready(client):
    return await client.is_server_ready()


async def case_model_ready(client):
    return await client.is_model_ready("iris")


async def case_raw(client):
    answer = await client.infer(pair(True))
    return [answer.id, answer.model_name, {output.name: plain(output.as_numpy()) for output in answer.outputs}]


async def case_typed(client):
    answer = await client.infer(pair(False))
    return [answer.id, answer.model_name, {output.name: plain(output.as_numpy()) for output in answer.outputs}]


async def case_strings(client):
    texts = np.array([b"a wonderful day", b"a terrible day"], dtype=object)
    answers = []
    for raw in (True, False):
        answer = await client.infer(InferRequest("sentiment", [tensor("text", texts, "BYTES", raw)]))
        answers.append({output.name: plain(output.as_numpy()) for output in answer.outputs}["label"])
    return answers


async def case_error_unknown_model(client):
    request = pair(True)
    request.model_name = "nosuch"
    await client.infer(request)


async def case_error_shape(client):
    inputs = [tensor("input-0", np.zeros(3, dtype=np.float32), "FP32", True)]
    await client.infer(InferRequest("identity", inputs))


async def case_error_in_the_model(client):
    await client.infer(pair(True, right=2))


async def main() -> None:
    async with InferenceGRPCClient(URL, retries=0) as client:
        await run(grpc.RpcError, lambda error: (error.code().name, error.details()), client)


if __name__ == "__main__":
    asyncio.run(main())
