"""Answers piece by piece, of services and of a model's own predict_stream: as events, and over gRPC streams.

Errors in the middle, clients that go, what is said of the end; and `generate`.
"""

from __future__ import annotations

import http.client
import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import grpc
import pytest

from modelhub.serving.gateway.grpc.generated import open_inference_pb2 as pb
from support.client_scripts import answers_of
from support.doors import SERVICE
from support.gateway_process import Gateway
from support.processes import until

SERVICES = '''
import asyncio
import os
import time
from modelhub.serving import ModelhubModelService


class Words(ModelhubModelService):
    """Streams the words; "boom" fails, "no" is refused, "forever" has no end and notes when it was closed."""

    def load(self):
        self.ready = True

    def predict_stream(self, request, headers=None):
        for word in request["text"].split():
            if word == "boom":
                raise RuntimeError("it broke")
            if word == "no":
                yield {"statusCode": 422, "message": "no such word"}
                continue
            if word == "forever":
                try:
                    while True:
                        time.sleep(0.01)
                        yield "again"
                finally:
                    open(os.environ["NOTE"], "w").write("closed")
            yield {"word": word}

    def predict_text(self, request, headers=None):
        return request["text"]


class Steps(ModelhubModelService):
    """Streams the numbers of a V2 request; a negative one fails, 99 has no end and notes when it was closed."""

    def load(self):
        self.ready = True

    def predict_stream(self, request, headers=None):
        for number in map(int, request["inputs"][0]["data"]):
            if number < 0:
                raise RuntimeError("it broke")
            if number == 99:
                try:
                    while True:
                        time.sleep(0.01)
                        yield [number]
                finally:
                    open(os.environ["NOTE"], "w").write("closed")
            yield [number]


class AsyncWords(Words):
    async def predict_stream(self, request, headers=None):
        for word in request["text"].split():
            await asyncio.sleep(0)
            yield word


class Generator(ModelhubModelService):
    def load(self):
        self.ready = True

    def predict(self, request, headers=None):
        return (number for number in range(3))
'''

MODEL = """
import mlflow


class Counter(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return [3]

    def predict_stream(self, context, model_input, params=None):
        for number in range(model_input):  # MLflow gives a stream its one row
            yield [number]


mlflow.models.set_model(Counter())
"""

SAVE = """
import sys, numpy as np, mlflow
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec
schema = Schema([TensorSpec(np.dtype("int64"), (-1,))])
mlflow.pyfunc.save_model(sys.argv[1], python_model=sys.argv[2], signature=ModelSignature(schema, schema),
                         pip_requirements=[f"mlflow=={mlflow.__version__}"])
"""


@pytest.fixture(scope="module")
def streams(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("streams")
    (folder / "words.py").write_text(SERVICES)
    (folder / "counter.py").write_text(MODEL)
    subprocess.run(
        [sys.executable, "-c", SAVE, str(folder / "counter"), str(folder / "counter.py")],
        check=True,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"},
    )
    uri = str(folder / "counter")
    service = {"uri": uri, "pythonpath": [str(folder)], "env": ["NOTE"], "warmup": "off"}
    models = [
        {"name": "words", "service": "words:Words", **service},
        {"name": "threaded", "service": "words:Words", "limits": {"concurrency": 3}, **service},
        {"name": "async", "service": "words:AsyncWords", **service},
        {"name": "generator", "service": "words:Generator", **service},
        {"name": "steps", "service": "words:Steps", **service},
        {"name": "counter", "uri": uri},
    ]
    later = [{"name": each, "uri": uri} for each in ("later", "even_later")]
    groups = [{"name": "lazy", "load": "lazy", "models": later}]
    config = {"server": {"grpc_port": 0}, "models": models, "groups": groups}
    running = Gateway(config, folder, env={"NOTE": str(folder / "note")})
    try:
        running.wait_live()
        running.wait_ready()
        yield running
        running.stop()
    finally:
        running.kill()


def events(gateway: Gateway, model: str, body: Any, route: str = "infer_stream") -> list[Any]:
    answer = gateway.post(f"/v2/models/{model}/{route}", body)
    assert answer.status == 200, answer.body
    assert answer.headers["content-type"] == "text/event-stream"
    parts = answer.body.decode().split("\n\n")
    assert parts.pop() == ""
    return [json.loads(part.removeprefix("data: ")) for part in parts]


@pytest.mark.parametrize("model", ["words", "threaded"])
def test_a_services_stream(streams: Gateway, model: str) -> None:
    found = events(streams, model, {"text": "one two"})
    assert found == [{"statusCode": 200, "data": {"word": "one"}}, {"statusCode": 200, "data": {"word": "two"}}]


def test_an_async_services_stream(streams: Gateway) -> None:
    assert [event["data"] for event in events(streams, "async", {"text": "one two"})] == ["one", "two"]


def test_a_generator_of_predict(streams: Gateway) -> None:
    body = {"inputs": [{"name": "x", "shape": [1], "datatype": "INT64", "data": [1]}], "id": "q"}
    found = events(streams, "generator", body)
    assert [event["outputs"][0]["data"] for event in found] == [[0], [1], [2]]
    assert {event["id"] for event in found} == {"q"}
    whole = streams.post("/v2/models/generator/infer", body).json()
    assert whole["outputs"][0]["data"] == [0, 1, 2]


def test_a_models_own_stream(streams: Gateway) -> None:
    body = {"inputs": [{"name": "input-0", "shape": [1], "datatype": "INT64", "data": [4]}]}
    found = events(streams, "counter", body)
    assert [event["outputs"][0]["data"] for event in found] == [[0], [1], [2], [3]]
    assert found[0]["model_name"] == "counter"
    assert streams.post("/v2/models/counter/infer", body).json()["outputs"][0]["data"] == [3]


def test_no_events_at_all(streams: Gateway) -> None:
    assert events(streams, "words", {"text": ""}) == []


def test_errors_before_and_after_the_first_event(streams: Gateway) -> None:
    before = streams.post("/v2/models/words/infer_stream", {"text": "boom"})
    assert (before.status, before.json()["message"]) == (500, "RuntimeError: it broke")
    first, last = events(streams, "words", {"text": "one boom"})
    assert first["data"] == {"word": "one"}
    assert (last["statusCode"], last["message"]) == (500, "RuntimeError: it broke")
    assert streams.post("/v2/models/nowhere/infer_stream", {"text": "x"}).status == 404
    binary = {"inputs": [{"name": "input-0", "shape": [1], "datatype": "INT64", "data": [4]}]}
    refused = streams.post("/v2/models/counter/infer_stream", {**binary, "parameters": {"binary_data_output": True}})
    assert (refused.status, "cannot be streamed" in refused.json()["error"]) == (400, True)


@pytest.mark.parametrize("model", ["words", "threaded"])
def test_a_refusal_before_the_first_event_is_the_answer(streams: Gateway, model: str) -> None:
    refusal = {"statusCode": 422, "message": "no such word", "error": "no such word"}
    answer = streams.post(f"/v2/models/{model}/infer_stream", {"text": "no more"})
    assert (answer.status, answer.json()) == (422, refusal)
    answer = streams.post(f"/v2/models/{model}/generate_stream", {"text_input": "no more"})
    assert (answer.status, answer.json()) == (422, {"error": "no such word"})
    assert events(streams, model, {"text": "one no more"})[1:] == [
        refusal,
        {"statusCode": 200, "data": {"word": "more"}},
    ]


@pytest.mark.parametrize("model", ["words", "threaded"])
def test_the_worker_stops_when_the_client_goes(streams: Gateway, model: str) -> None:
    note = streams.state_dir.parent / "note"
    note.unlink(missing_ok=True)
    place = urlsplit(streams.url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=30)
    connection.request("POST", f"/v2/models/{model}/infer_stream", json.dumps({"text": "forever"}))
    answer = connection.getresponse()
    assert answer.readline() == b'data: {"statusCode":200,"data":"again"}\n'
    answer.close()
    connection.close()
    until(note.exists, 10, "the generator is closed")
    assert events(streams, model, {"text": "next"}) == [{"statusCode": 200, "data": {"word": "next"}}]


def test_a_deadline_ends_a_stream(streams: Gateway) -> None:
    headers = {"X-Request-Timeout": "500ms", "Content-Type": "application/json"}
    answer = streams.post("/v2/models/words/infer_stream", b'{"text": "forever"}', headers)
    assert answer.status == 200
    last = json.loads(answer.body.decode().split("\n\n")[-2].removeprefix("data: "))
    assert "deadline" in (last.get("message") or last["error"])


def test_streams_and_requests_of_one_worker(streams: Gateway) -> None:
    """A worker with one slot answers others after its stream, with several beside it."""
    assert streams.post("/v2/models/threaded/infer", {"text": "x"}).json()["data"] == "x"
    assert streams.post("/v2/models/words/infer", {"text": "x"}).json()["data"] == "x"


# ---- gRPC ----------------------------------------------------------------------------------------


def numbers(model: str, *data: int, raw: bool = True, empty_final: bool = False, **members: Any) -> bytes:
    """A request with these numbers as its only input."""
    request = pb.ModelInferRequest(model_name=model, **members)
    tensor = request.inputs.add(name="input-0", datatype="INT64", shape=[len(data)])
    if raw:
        request.raw_input_contents.append(struct.pack(f"<{len(data)}q", *data))
    else:
        tensor.contents.int64_contents.extend(data)
    if empty_final:
        request.parameters["triton_enable_empty_final_response"].bool_param = True
    return request.SerializeToString()


class Said(NamedTuple):
    """One message of a gRPC stream: its numbers, whether it is marked as the final one, or the error."""

    data: list[int] | None = None
    final: bool | None = None
    error: str = ""


def said(message: bytes) -> Said:
    answer = pb.ModelStreamInferResponse.FromString(message)
    if answer.error_message:
        return Said(error=answer.error_message)
    response = answer.infer_response
    assert response.model_name
    data = None
    if response.outputs:
        raw = b"".join(response.raw_output_contents)
        typed = list(response.outputs[0].contents.int64_contents)
        data = typed or list(struct.unpack(f"<{len(raw) // 8}q", raw))
    return Said(data, response.parameters["triton_final_response"].bool_param)


def over_grpc(gateway: Gateway, *requests: bytes) -> list[Said]:
    with grpc.insecure_channel(gateway.grpc_url) as channel:
        call = channel.stream_stream(f"{SERVICE}/ModelStreamInfer")
        return [said(each) for each in call(iter(requests), timeout=60)]


@pytest.mark.parametrize("raw", [True, False], ids=["raw", "typed"])
def test_a_grpc_response_per_piece(streams: Gateway, raw: bool) -> None:
    found = over_grpc(streams, numbers("counter", 3, raw=raw), numbers("steps", 7, 8, raw=raw))
    assert found == [Said([0], False), Said([1], False), Said([2], True), Said([7], False), Said([8], True)]


def test_a_final_response_without_outputs_for_who_wants_it(streams: Gateway) -> None:
    found = over_grpc(streams, numbers("counter", 2, empty_final=True), numbers("steps", 7, empty_final=True))
    assert found == [Said([0], False), Said([1], False), Said(None, True), Said([7], False), Said(None, True)]
    no_pieces = [numbers("counter", 0), numbers("counter", 0, empty_final=True, id="q"), numbers("counter", 1)]
    assert over_grpc(streams, *no_pieces) == [Said(None, True), Said([0], True)]


def test_models_that_do_not_stream_answer_once(streams: Gateway) -> None:
    found = over_grpc(streams, numbers("generator", 1), numbers("generator", 1, empty_final=True))
    assert found == [Said([0, 1, 2], True)] * 2


@pytest.mark.parametrize(("model", "empty_final"), [("later", False), ("even_later", True)])
def test_a_model_that_is_loaded_by_the_request_streams_too(streams: Gateway, model: str, empty_final: bool) -> None:
    end = [Said([1], False), Said(None, True)] if empty_final else [Said([1], True)]
    assert over_grpc(streams, numbers(model, 2, empty_final=empty_final)) == [Said([0], False), *end]


def test_errors_of_a_grpc_stream_do_not_end_it(streams: Gateway) -> None:
    found = over_grpc(streams, numbers("steps", 1, 2, -1, 3), numbers("steps", -1), numbers("steps", 5))
    broke = Said(error="RuntimeError: it broke")
    assert found == [Said([1], False), Said([2], False), broke, broke, Said([5], True)]
    counts = streams.get("/v2/models/steps/stats").json()["model_stats"][0]["inference_stats"]
    assert counts["fail"]["count"] >= 2
    assert 'route="grpc_stream",status="500"' in streams.get("/metrics").body.decode()


@pytest.mark.parametrize("empty_final", [False, True])
def test_the_worker_stops_when_the_call_is_cancelled(streams: Gateway, empty_final: bool) -> None:
    note = streams.state_dir.parent / "note"
    note.unlink(missing_ok=True)
    with grpc.insecure_channel(streams.grpc_url) as channel:
        endless = numbers("steps", 99, empty_final=empty_final)
        call = channel.stream_stream(f"{SERVICE}/ModelStreamInfer")(iter([endless]), timeout=60)
        assert [said(next(call)) for _ in range(3)] == [Said([99], False)] * 3
        call.cancel()
        until(note.exists, 10, "the generator is closed")
    assert over_grpc(streams, numbers("steps", 5)) == [Said([5], True)]


def test_a_deadline_of_a_grpc_stream(streams: Gateway) -> None:
    with grpc.insecure_channel(streams.grpc_url) as channel:
        call = channel.stream_stream(f"{SERVICE}/ModelStreamInfer")
        metadata = [("x-request-timeout", "300ms")]
        *pieces, late = [said(each) for each in call(iter([numbers("steps", 99)]), timeout=60, metadata=metadata)]
    assert set(map(repr, pieces)) == {repr(Said([99], False))}
    assert "deadline" in late.error


def test_the_configuration_says_what_streams(streams: Gateway) -> None:
    policies = {
        name: streams.get(f"/v2/models/{name}/config").json()["model_transaction_policy"]["decoupled"]
        for name in ("words", "steps", "counter", "generator")
    }
    assert policies == {"words": True, "steps": True, "counter": True, "generator": False}


def test_the_unmodified_tritonclient(streams: Gateway) -> None:
    found = answers_of("tritonclient", streams.grpc_url, "tritonclient_stream")
    assert {name: answer.get("result", answer) for name, answer in found.items()} == {
        "case_decoupled": True,
        "case_pieces": [[[0], False], [[1], False], [[2], True]],
        "case_empty_final_response": [[[0], False], [[1], False], [None, True]],
        "case_asyncio": [[[0], False], [[1], True]],
        "case_error_in_the_middle": [[[1], False], "RuntimeError: it broke", [[2], True]],
        "case_cancelled": [[99], False],
    }


# ---- generate ------------------------------------------------------------------------------------


def test_generate_in_one_piece_and_in_many(streams: Gateway) -> None:
    body = {"id": "q", "text_input": "one two", "parameters": {"stream": False}}
    whole = {"id": "q", "model_name": "words", "model_version": "1"}
    assert streams.post("/v2/models/words/generate", body).json() == {**whole, "text_output": "one two"}
    assert streams.post("/v2/models/words/versions/1/generate", body).status == 200
    found = events(streams, "async", body, "generate_stream")
    assert found == [{**whole, "model_name": "async", "text_output": text} for text in ("one", "two")]


def test_errors_of_generate(streams: Gateway) -> None:
    for route in ("generate", "generate_stream"):
        wrong = streams.post(f"/v2/models/words/{route}", {"text": "x"})
        assert (wrong.status, list(wrong.json())) == (400, ["error"])
        assert streams.post(f"/v2/models/nowhere/{route}", {"text_input": "x"}).status == 404
    first, last = events(streams, "words", {"text_input": "one boom"}, "generate_stream")
    assert first["text_output"] == "one"
    assert last == {"error": "RuntimeError: it broke"}
    assert 'route="generate_stream",status="400"' in streams.get("/metrics").body.decode()
