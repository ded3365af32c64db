"""`infer_stream`: events of services and of a model's own predict_stream, errors in the middle, clients that go."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from gateway_process import Gateway
from processes import until

SERVICES = '''
import asyncio
import os
import time
from modelhub.serving import ModelhubModelService


class Words(ModelhubModelService):
    """Streams the words; "boom" fails, "forever" has no end and notes when it was closed."""

    def load(self):
        self.ready = True

    def predict_stream(self, request, headers=None):
        for word in request["text"].split():
            if word == "boom":
                raise RuntimeError("it broke")
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
        {"name": "counter", "uri": uri},
    ]
    running = Gateway({"models": models}, folder, env={"NOTE": str(folder / "note")})
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
