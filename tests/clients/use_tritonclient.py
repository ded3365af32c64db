"""What an unmodified tritonclient gets from a gateway: `python use_tritonclient.py URL` prints it as JSON."""

import asyncio
import sys

import ml_dtypes
import numpy as np
import tritonclient.http
import tritonclient.http.aio
from cases import EXTREMES, plain, run
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

IRIS = {"sepal_length": 6.3, "sepal_width": 3.3, "petal_length": 6.0, "petal_width": 2.5}


def tensor(name, array, binary):
    made = InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
    made.set_data_from_numpy(array, binary_data=binary)
    return made


def pair(client, **options):
    left = np.array([1, 2, 3], dtype=np.float32)
    inputs = [tensor("left", left, True), tensor("right", left * 10, False)]
    return client.infer("pair", inputs, **options)


def case_live(client):
    return client.is_server_live()


def case_ready(client):
    return client.is_server_ready()


def case_model_ready(client):
    asked = [("iris", ""), ("iris", "1"), ("iris", "99"), ("nosuch", "")]
    return [client.is_model_ready(name, version) for name, version in asked]


def case_server_metadata(client):
    return client.get_server_metadata()


def case_model_metadata(client):
    return client.get_model_metadata("pair")


def case_metadata_of_a_version(client):
    return [each["name"] for each in client.get_model_metadata("iris", "1")["inputs"]]


def case_repository_index(client):
    return sorted(row["name"] for row in client.get_model_repository_index() if row["state"] == "READY")


def case_columns(client):
    inputs = [tensor(name, np.array([value, 5.0]), False) for name, value in IRIS.items()]
    result = client.infer("iris", inputs, request_id="flower 1")
    answer = result.get_response()
    return {"id": answer["id"], "model": answer["model_name"], "data": plain(result.as_numpy(first(answer)))}


def first(answer):
    return answer["outputs"][0]["name"]


def case_strings(client):
    texts = np.array(["a wonderful day", "a terrible day"], dtype=object)
    answers = {}
    for binary in (False, True):
        wanted = [InferRequestedOutput("label", binary), InferRequestedOutput("probability", binary)]
        result = client.infer("sentiment", [tensor("text", texts, binary)], outputs=wanted)
        answers[str(binary)] = [plain(result.as_numpy("label")), result.as_numpy("probability").dtype.name]
    return answers


def case_parameters(client):
    inputs = [tensor("value", np.array([1.5, 2.0]), False)]
    result = client.infer("params", inputs, parameters={"factor": 2.0, "offset": 1, "suffix": "!"})
    return [plain(result.as_numpy("value")), plain(result.as_numpy("label"))]


def case_every_datatype(client):
    """For each way in and way out, the names whose values came back changed."""
    changed = {}
    for binary_in in (False, True):
        for binary_out in (False, True):
            inputs = [tensor(name, array, binary_in) for name, array in EXTREMES.items()]
            wanted = [InferRequestedOutput(name, binary_out) for name in EXTREMES]
            result = client.infer("datatypes", inputs, outputs=wanted)
            changed[f"in {binary_in}, out {binary_out}"] = [
                name for name, array in EXTREMES.items() if plain(result.as_numpy(name)) != plain(array)
            ]
    return changed


def case_bfloat16(client):
    array = np.array([[1.5, -2.0, 3.25]], dtype=ml_dtypes.bfloat16)
    result = client.infer("echo", [tensor("x", array, True)])
    return result.as_numpy(first(result.get_response())).astype(np.float32).tolist()


def case_compression(client):
    answers = {}
    for request in (None, "gzip", "deflate"):
        for response in (None, "gzip", "deflate"):
            options = {"request_compression_algorithm": request, "response_compression_algorithm": response}
            result = pair(client, outputs=[InferRequestedOutput("sum", True)], **options)
            answers[f"{request} {response}"] = plain(result.as_numpy("sum"))
    return answers


def case_requested_outputs(client):
    wanted = [InferRequestedOutput("difference", False), InferRequestedOutput("sum", True)]
    answer = pair(client, outputs=wanted).get_response()
    return [[output["name"], "data" in output] for output in answer["outputs"]]


def case_all_outputs_are_binary_when_none_is_named(client):
    answer = pair(client).get_response()
    return [["data" in output, output["parameters"]["binary_data_size"]] for output in answer["outputs"]]


def case_version(client):
    return plain(pair(client, model_version="1").as_numpy("sum"))


def case_priority_and_timeout(client):
    return plain(pair(client, priority=1, timeout=20_000_000).as_numpy("sum"))


def case_large_tensor(client):
    array = np.random.default_rng(0).random((2000, 1000), dtype=np.float32)
    result = client.infer("identity", [tensor("input-0", array, True)])
    return bool((result.as_numpy(first(result.get_response())) == array).all())


def case_empty_tensor(client):
    result = client.infer("identity", [tensor("input-0", np.zeros((0, 4), dtype=np.float32), True)])
    return list(result.as_numpy(first(result.get_response())).shape)


def case_many_at_once(client):
    arrays = [np.full((1, 3), number, dtype=np.float32) for number in range(64)]
    pending = [client.async_infer("identity", [tensor("input-0", array, True)]) for array in arrays]
    results = [each.get_result() for each in pending]
    return [float(result.as_numpy(first(result.get_response()))[0, 0]) for result in results]


async def case_asyncio_client(client):
    async with tritonclient.http.aio.InferenceServerClient(sys.argv[1].removeprefix("http://")) as other:
        result = await pair(other)
        return [await other.is_server_ready(), plain(result.as_numpy("sum"))]


def case_error_unknown_model(client):
    return client.infer("nosuch", [tensor("x", np.zeros(1, dtype=np.float32), True)]).get_response()


def case_error_unknown_version(client):
    return pair(client, model_version="99").get_response()


def case_error_metadata_of_unknown_model(client):
    return client.get_model_metadata("nosuch")


def case_error_shape(client):
    return client.infer("identity", [tensor("input-0", np.zeros(3, dtype=np.float32), True)]).get_response()


def case_error_unknown_input(client):
    array = np.zeros(3, dtype=np.float32)
    return client.infer("pair", [tensor("left", array, True), tensor("middle", array, True)]).get_response()


def case_error_unknown_output(client):
    return pair(client, outputs=[InferRequestedOutput("product", True)]).get_response()


def case_error_in_the_model(client):
    inputs = [tensor("left", np.zeros(2, dtype=np.float32), True), tensor("right", np.zeros(3, dtype=np.float32), True)]
    return client.infer("pair", inputs).get_response()


async def main() -> None:
    with InferenceServerClient(sys.argv[1].removeprefix("http://"), concurrency=8) as client:
        await run(InferenceServerException, lambda error: (error.status(), error.message()), client)


if __name__ == "__main__":
    asyncio.run(main())
