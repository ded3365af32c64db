"""What an unmodified tritonclient gets over gRPC: `python use_tritonclient_grpc.py HOST:PORT` prints it as JSON."""

import asyncio
import queue
import sys

import numpy as np
import tritonclient.grpc.aio
from cases import EXTREMES, plain, run
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

URL = sys.argv[1]


def tensor(name, array, kind=InferInput):
    made = kind(name, list(array.shape), np_to_triton_dtype(array.dtype))
    made.set_data_from_numpy(array)
    return made


def pair_inputs(right=3):
    left = np.array([1, 2, 3], dtype=np.float32)
    return [tensor("left", left), tensor("right", left[:right] * 10)]


def pair(client, **options):
    return client.infer("pair", pair_inputs(), **options)


def case_live(client):
    return client.is_server_live()


def case_ready(client):
    return client.is_server_ready()


def case_model_ready(client):
    asked = [("iris", ""), ("iris", "1"), ("iris", "99"), ("nosuch", "")]
    return [client.is_model_ready(name, version) for name, version in asked]


def case_server_metadata(client):
    return client.get_server_metadata(as_json=True)


def case_model_metadata(client):
    return client.get_model_metadata("pair", as_json=True)


def case_model_config(client):
    return client.get_model_config("iris", as_json=True)


def case_repository_index(client):
    rows = client.get_model_repository_index(as_json=True)["models"]
    return sorted(row["name"] for row in rows if row["state"] == "READY")


def case_statistics(client):
    pair(client)
    [row] = client.get_inference_statistics("pair", as_json=True)["model_stats"]
    return [row["name"], int(row["inference_stats"]["success"]["count"]) > 0]


def case_id_and_outputs(client):
    result = pair(client, request_id="request 7", outputs=[InferRequestedOutput("difference")])
    answer = result.get_response()
    return [
        answer.id,
        answer.model_name,
        [output.name for output in answer.outputs],
        plain(result.as_numpy("difference")),
    ]


def case_parameters(client):
    inputs = [tensor("value", np.array([1.5, 2.0]))]
    result = client.infer("params", inputs, parameters={"factor": 2.0, "offset": 1, "suffix": "!"})
    return [plain(result.as_numpy("value")), plain(result.as_numpy("label"))]


def case_every_datatype(client):
    """The names whose values came back changed."""
    result = client.infer("datatypes", [tensor(name, array) for name, array in EXTREMES.items()])
    return [name for name, array in EXTREMES.items() if plain(result.as_numpy(name)) != plain(array)]


def case_compression(client):
    return [plain(pair(client, compression_algorithm=each).as_numpy("sum")) for each in ("gzip", "deflate")]


def case_priority_and_timeout(client):
    return plain(pair(client, priority=1, timeout=20_000_000, client_timeout=20).as_numpy("sum"))


def case_large_tensor(client):
    array = np.random.default_rng(0).random((2000, 1000), dtype=np.float32)
    result = client.infer("identity", [tensor("input-0", array)])
    return bool((result.as_numpy(result.get_response().outputs[0].name) == array).all())


def case_asynchronous(client):
    done = queue.Queue()
    for _ in range(32):
        client.async_infer("pair", pair_inputs(), lambda result, error: done.put((result, error)))
    answers = [done.get(timeout=20) for _ in range(32)]
    return [all(error is None for _, error in answers), plain(answers[0][0].as_numpy("sum"))]


def case_stream(client):
    done = queue.Queue()
    client.start_stream(lambda result, error: done.put((result, error)))
    for number, right in enumerate((3, 3, 2, 3)):
        client.async_stream_infer("pair", pair_inputs(right), request_id=str(number))
    answers = [done.get(timeout=20) for _ in range(4)]
    client.stop_stream()
    return [result.get_response().id if error is None else str(error)[:30] for result, error in answers]


async def case_asyncio_client(client):
    async with tritonclient.grpc.aio.InferenceServerClient(URL) as other:
        result = await other.infer("pair", pair_inputs())
        return [await other.is_server_ready(), plain(result.as_numpy("sum"))]


def case_error_unknown_model(client):
    client.infer("nosuch", pair_inputs())


def case_error_unknown_version(client):
    pair(client, model_version="99")


def case_error_shape(client):
    client.infer("identity", [tensor("input-0", np.zeros(3, dtype=np.float32))])


def case_error_unknown_output(client):
    pair(client, outputs=[InferRequestedOutput("product")])


def case_error_in_the_model(client):
    client.infer("pair", pair_inputs(2))


async def main() -> None:
    with InferenceServerClient(URL) as client:
        await run(InferenceServerException, lambda error: (error.status(), error.message()), client)


if __name__ == "__main__":
    asyncio.run(main())
