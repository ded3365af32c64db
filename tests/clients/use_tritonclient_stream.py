"""What an unmodified tritonclient gets of models that stream: `python use_tritonclient_stream.py HOST:PORT`.

The models are those of tests/end_to_end/test_streaming.py.
"""

import asyncio
import queue
import sys

import numpy as np
import tritonclient.grpc.aio
from cases import run
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

URL = sys.argv[1]


def numbers(*data):
    made = InferInput("input-0", [len(data)], "INT64")
    made.set_data_from_numpy(np.array(data, dtype=np.int64))
    return [made]


def said(result):
    """The numbers of a response, None where it has no outputs, and whether it is the final one."""
    response = result.get_response()
    data = result.as_numpy(response.outputs[0].name).tolist() if response.outputs else None
    return [data, response.parameters["triton_final_response"].bool_param]


def streamed(client, responses, *requests, **options):
    """So many responses, or errors, to requests (model, numbers)."""
    done = queue.Queue()
    client.start_stream(lambda result, error: done.put((result, error)))
    for model, data in requests:
        client.async_stream_infer(model, numbers(*data), **options)
    answers = [done.get(timeout=20) for _ in range(responses)]
    client.stop_stream()
    assert done.empty()
    return [said(result) if error is None else error.message() for result, error in answers]


def case_decoupled(client):
    policy = client.get_model_config("counter", as_json=True)["config"]["model_transaction_policy"]
    return policy["decoupled"]


def case_pieces(client):
    return streamed(client, 3, ("counter", [3]))


def case_empty_final_response(client):
    return streamed(client, 3, ("counter", [2]), enable_empty_final_response=True)


async def case_asyncio(client):
    async def requests():
        # This form has no argument for an empty final response.
        yield {"model_name": "counter", "inputs": numbers(2)}

    async with tritonclient.grpc.aio.InferenceServerClient(URL) as other:
        return [said(result) async for result, error in other.stream_infer(requests()) if error is None]


def case_error_in_the_middle(client):
    return streamed(client, 3, ("steps", [1, -1]), ("steps", [2]))


def case_cancelled(client):
    """A stream without an end: the first piece of it."""
    done = queue.Queue()
    client.start_stream(lambda result, error: done.put((result, error)))
    client.async_stream_infer("steps", numbers(99))
    result, _ = done.get(timeout=20)
    client.stop_stream(cancel_requests=True)
    return said(result)


async def main() -> None:
    with InferenceServerClient(URL) as client:
        await run(InferenceServerException, lambda error: (error.status(), error.message()), client)


if __name__ == "__main__":
    asyncio.run(main())
