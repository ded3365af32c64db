"""Services without processes: which method answers, what it is given, what becomes of what it returns."""

from __future__ import annotations

import asyncio
import json
import math
import time
from pathlib import Path
from typing import Any

import pytest

from modelhub.serving import (
    AutoModelPredictor,
    DeadlineExceeded,
    ImageModelService,
    InvalidRequest,
    LoadError,
    ModelError,
    ModelhubModelService,
    NotReady,
    TextModelService,
)
from modelhub.serving.gateway.grpc.codec import to_response, to_wire
from modelhub.serving.gateway.grpc.generated import open_inference_pb2 as pb
from modelhub.serving.protocol.messages import InferRequest
from modelhub.serving.workers.loop.batching import Batching
from modelhub.serving.workers.loop.runner import Held, Runner
from support.service_calls import ask, served
from support.v2_client import Tensor, binary_request, parse, tensor

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)


class Text(ModelhubModelService):
    def predict_text(self, request: Any, headers: Any = None) -> Any:
        return {
            "statusCode": 200,
            "data": {"text": request["text"].upper(), "agent": (headers or {}).get("user-agent")},
        }


def test_the_method_of_the_kind_answers_with_headers() -> None:
    adapter = served(Text("m", ""))
    assert adapter.wants_headers
    status, answer = ask(adapter, {"text": "abc"}, headers={"user-agent": "me"})
    assert (status, answer) == (0, {"statusCode": 200, "data": {"text": "ABC", "agent": "me"}})


def test_other_kinds_go_to_the_model() -> None:
    adapter = served(Text("m", ""))
    assert ask(adapter, {"data": [{"a": 1}]})[1]["data"]["type"] == "DataFrame"
    v2 = {"inputs": [{"name": "x", "shape": [2], "datatype": "INT64", "data": [1, 2]}], "id": "q"}
    status, answer = ask(adapter, v2)
    assert (status, answer["model_name"], answer["model_version"], answer["id"]) == (0, "m", "7", "q")


class Whole(ModelhubModelService):
    def predict(self, request: Any) -> Any:  # type: ignore[override]
        return sorted(request)


def test_a_predict_of_its_own_gets_everything_and_may_leave_headers_out() -> None:
    adapter = served(Whole("m", ""))
    assert ask(adapter, {"prompt": "x", "more": 1}) == (0, {"statusCode": 200, "data": ["more", "prompt"]})
    assert ask(adapter, {"text": "x", "data": []})[1]["data"] == ["data", "text"]
    upload = ask(adapter, PNG, content_type="application/octet-stream")
    assert upload[1]["data"] == ["data", "image"]


def test_v2_answers_of_a_predict_of_its_own() -> None:
    adapter = served(Whole("m", ""))
    v2 = {"id": "q", "inputs": [{"name": "x", "shape": [2], "datatype": "FP32", "data": [1, 2]}]}
    status, answer = ask(adapter, v2)
    assert (status, answer["id"]) == (0, "q")
    assert answer["outputs"][0]["data"] == ["id", "inputs"]
    binary = json.dumps(
        {"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "parameters": {"binary_data_size": 4}}]}
    ).encode()
    status, answer = ask(adapter, binary + bytes(4), json_size=len(binary), content_type="")
    assert answer["outputs"][0]["data"] == ["inputs"]


def test_null_inputs_are_none() -> None:
    assert ask(served(Whole("m", "")), {"inputs": None, "text": "x"})[1]["data"] == ["text"]


class Raw(ModelhubModelService):
    def predict_raw(self, request: Any, headers: Any = None) -> Any:
        if request["inputs"][0]["name"] == "refused":
            return {"statusCode": 418, "message": "no coffee"}
        return {"outputs": [{"name": "y", "shape": [1], "datatype": "INT64", "data": [5]}]}


def test_outputs_and_status_codes_of_v2_handlers_are_passed_on() -> None:
    adapter = served(Raw("m", ""))
    tensor = {"shape": [1], "datatype": "INT64", "data": [1]}
    status, answer = ask(adapter, {"inputs": [{"name": "x", **tensor}], "id": "a"})
    assert (status, answer["id"], answer["outputs"][0]["data"], answer["model_name"]) == (0, "a", [5], "m")
    status, answer = ask(adapter, {"inputs": [{"name": "refused", **tensor}]})
    assert (status, answer["message"]) == (418, "no coffee")


class Async(ModelhubModelService):
    async def predict_text(self, request: Any, headers: Any = None) -> Any:
        await asyncio.sleep(float(request.get("sleep", 0)))
        return request["text"]


def test_async_handlers_and_their_deadline() -> None:
    adapter = served(Async("m", ""))
    assert ask(adapter, {"text": "x"})[1] == {"statusCode": 200, "data": "x"}
    with pytest.raises(DeadlineExceeded):
        ask(adapter, {"text": "x", "sleep": 30}, deadline=time.monotonic() + 0.05)


class AsyncRaw(ModelhubModelService):
    async def predict_raw(self, request: Any, headers: Any = None) -> Any:
        await asyncio.sleep(30)


def test_the_timeout_of_a_v2_request() -> None:
    adapter = served(AsyncRaw("m", ""))
    inputs = [{"name": "x", "shape": [1], "datatype": "INT64", "data": [1]}]
    with pytest.raises(DeadlineExceeded):
        ask(adapter, {"inputs": inputs, "parameters": {"timeout": 50_000}})
    with pytest.raises(InvalidRequest, match="microseconds"):
        ask(adapter, {"inputs": inputs, "parameters": {"timeout": "soon"}})


class Threshold(ModelhubModelService):
    """Has a parameter of its own, which its model does not know, and leaves the rest to the default."""

    def predict_raw(self, request: Any, headers: Any = None) -> Any:
        found = super().predict_raw(request)
        return {**found, "parameters": {"threshold": request["parameters"]["threshold"]}}


def test_a_service_may_take_parameters_that_its_model_does_not_know() -> None:
    inputs = [{"name": "x", "shape": [1], "datatype": "INT64", "data": [1]}]
    status, answer = ask(served(Threshold("m", "")), {"inputs": inputs, "parameters": {"threshold": 0.5}})
    assert (status, answer["parameters"]) == (0, {"threshold": 0.5})


class Before(ModelhubModelService):
    def predict_text(self, request: Any, headers: Any = None) -> Any:
        found = super().predict_text({"text": request["text"].strip()})
        return {**found, "more": True}


class Passing(ModelhubModelService):
    def predict(self, request: Any, headers: Any = None) -> Any:
        return super().predict(request, headers)


class Same:
    def predict(self, data: Any, params: Any = None) -> Any:
        self.got = data
        return {"a": data, "b": data}


@pytest.mark.parametrize(
    ("datatype", "data"),
    [("FP32", [1.5, math.inf]), ("BF16", [1.5, -math.inf]), ("BYTES", [b"abc", b"\xff"]), ("BOOL", [True, False])],
)
def test_super_asks_the_model_of_binary_requests(datatype: str, data: list[Any]) -> None:
    service = Passing("m", "")
    service.loaded_model = Same()
    said = {"id": "q", "parameters": {"binary_data_output": True}, "outputs": [{"name": "b"}]}
    body, json_size = binary_request(tensor("x", datatype, [1, 2], data), **said)
    adapter = served(service)
    call = adapter.decode(InferRequest(id=1, json_size=json_size), body)
    answer = adapter.encode(call, adapter.predict(call))
    document, outputs = parse(bytes(answer.body), answer.json_size)
    assert (document["id"], answer.content_type) == ("q", "application/octet-stream")
    assert outputs == {"b": Tensor("FP32" if datatype == "BF16" else datatype, [1, 2], data)}
    assert service.loaded_model.got.tolist() == [data]


def test_super_gives_arrays_where_the_client_wants_binary() -> None:
    request = {"inputs": [tensor("x", "FP32", [2], [1, None])], "parameters": {"binary_data_output": True}}
    service = Passing("m", "")
    service.loaded_model = Same()
    found = served(service).service.predict_raw({**request, "outputs": [{"name": "a"}]})["outputs"][0]
    assert (found["data"].dtype, found["shape"]) == ("float32", [2])
    plain = service.predict_raw({"inputs": request["inputs"]})["outputs"][1]
    assert plain == {"name": "b", "shape": [2], "datatype": "FP32", "data": [1, None]}


def test_arrays_that_are_base64_text_are_decoded_once() -> None:
    service = Passing("m", "")
    service.loaded_model = Same()
    body, json_size = binary_request(tensor("x", "BYTES", [1], [b"/w=="], content_type="base64"))
    assert ask(served(service), body, json_size=json_size)[0] == 0
    assert service.loaded_model.got.tolist() == [b"\xff"]


def test_super_asks_the_model() -> None:
    answer = ask(served(Before("m", "")), {"text": " x "})[1]
    assert answer == {"statusCode": 200, "data": {"type": "str", "value": "x"}, "more": True}


class Broken(ModelhubModelService):
    def predict_text(self, request: Any, headers: Any = None) -> Any:
        raise RuntimeError("it broke")


def test_exceptions_are_errors_in_the_requests_own_form() -> None:
    adapter = served(Broken("m", ""))
    request = InferRequest(id=1, content_type="application/json")
    call = adapter.decode(request, b'{"text": "x"}')
    with pytest.raises(ModelError, match="RuntimeError: it broke") as raised:
        adapter.predict(call)
    answer = adapter.failure(call.kind, raised.value)
    assert answer is not None
    assert (answer.status, json.loads(bytes(answer.body))["statusCode"]) == (500, 500)


def test_narrow_services_say_what_they_take() -> None:
    text = served(TextModelService("m", ""))
    assert ask(text, {"text": "x"})[1]["data"]["value"] == "x"
    with pytest.raises(InvalidRequest, match="no requests of the kind tabular: it takes text, v2"):
        ask(text, {"data": [{"a": 1}]})


class Pictures(ImageModelService):
    def predict_image(self, request: Any, headers: Any = None) -> Any:
        return len(request["image"])


def test_an_unknown_upload_is_an_image_for_an_image_service() -> None:
    adapter = served(Pictures("m", ""))
    assert ask(adapter, b"no known magic", content_type="application/octet-stream")[1]["data"] == 14


def test_images_of(tmp_path: Path) -> None:
    from PIL import Image

    service = ImageModelService("m", "")
    served(service)
    pages = [Image.new("RGB", (72, 72)) for _ in range(3)]
    pages[0].save(tmp_path / "d.pdf", save_all=True, append_images=pages[1:])
    Image.new("RGB", (5, 4)).save(tmp_path / "i.png")
    png, pdf = (tmp_path / "i.png").read_bytes(), (tmp_path / "d.pdf").read_bytes()
    found = service.images_of({"image": png, "images": [png], "pdf_file": pdf})
    assert [image.size for image in found[:2]] == [(5, 4), (5, 4)]
    assert len(found) == 5


def test_not_loaded() -> None:
    with pytest.raises(NotReady, match="m is not loaded"):
        ModelhubModelService("m", "").predict({"text": "x"})
    with pytest.raises(LoadError, match="has no URI"):
        ModelhubModelService("m", "").load()
    with pytest.raises(LoadError, match="no file"):
        ModelhubModelService("m", "/nowhere/at/all").load()


def test_auto_model_predictor_needs_one_name() -> None:
    assert AutoModelPredictor("m", model_uri="runs:/a/b").run_uri == "runs:/a/b"
    assert AutoModelPredictor("m", model_name="r", version="3").run_uri == "models:/r/3"
    assert AutoModelPredictor("m", model_name="r").run_uri == "models:/r/latest"
    for wrong in ({}, {"model_uri": "a", "model_name": "b"}, {"model_uri": "a", "version": "1"}):
        with pytest.raises(ValueError, match="model_uri"):
            AutoModelPredictor("m", **wrong)


def test_the_log_shows_the_users_code_first(capsys: pytest.CaptureFixture[str]) -> None:
    adapter = served(Broken("m", ""))
    held = Held(InferRequest(id=1, content_type="application/json"), b'{"text": "x"}', 0)
    Runner(adapter, Batching(adapter)).run([held], [].append)
    first, where, *_ = capsys.readouterr().err.splitlines()
    assert first.startswith("Traceback")
    assert Path(__file__).name in where


@pytest.mark.parametrize(
    ("said", "outputs"),
    [
        ({"statusCode": 200, "data": [1.5, 2.5]}, {"output-0": ("FP64", [1.5, 2.5])}),
        ({"statusCode": 201, "data": {"label": ["a"], "p": [0.5]}}, {"label": ("BYTES", [b"a"]), "p": ("FP64", [0.5])}),
        ({"statusCode": 200, "label": ["a"]}, {"label": ("BYTES", [b"a"])}),
        ({"statusCode": 200, "data": None}, {"output-0": ("BYTES", [b""])}),
    ],
)
def test_success_in_our_own_form_is_outputs_over_grpc(said: Any, outputs: dict[str, Any]) -> None:
    """And for clients of binary tensors; a failure keeps its status, and JSON clients get it as it is."""

    class Says(ModelhubModelService):
        def predict(self, request: Any) -> Any:
            return said

    adapter = served(Says("m", "uri"))
    request = pb.ModelInferRequest(model_name="m")
    request.inputs.add(name="x", datatype="FP32", shape=[1]).contents.fp32_contents.append(1)
    body, json_size = to_wire(request)
    call = adapter.decode(InferRequest(id=1, json_size=json_size), body)
    answer = adapter.encode(call, adapter.predict(call))
    assert not answer.status
    response = to_response(answer.body, answer.json_size, raw=True)
    _, found = parse(bytes(answer.body), answer.json_size)
    assert {name: (each.datatype, each.data) for name, each in found.items()} == outputs
    assert [each.name for each in response.outputs] == list(outputs)
    assert ask(adapter, {"inputs": [tensor("x", "FP32", [1], [1])]})[1] == said
