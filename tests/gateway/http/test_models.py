"""The routes of MLflow's and KServe V1's clients, and every kind of input, through a whole gateway."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from support.files import form, image_file, pdf_file, png_bomb
from support.gateway_process import Gateway

RECORD = {"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}
JSON = "application/json"


def test_invocations(shared_gateway: Gateway) -> None:
    for path in ("/models/iris/invocations", "/models/iris/versions/1/invocations"):
        answer = shared_gateway.post(path, {"dataframe_records": [RECORD]})
        assert (answer.status, answer.body, answer.headers["content-type"]) == (200, b'{"predictions": [0]}', JSON)
    csv = ",".join(RECORD) + "\n5.1,3.5,1.4,0.2\n"
    answer = shared_gateway.post("/models/iris/invocations", csv.encode(), {"Content-Type": "text/csv"})
    assert answer.json() == {"predictions": [0]}


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status", "code"),
    [
        ("POST", "/models/iris/invocations", {"nothing": 1}, {}, 400, "BAD_REQUEST"),
        ("POST", "/models/iris/invocations", b"{", {}, 400, "BAD_REQUEST"),
        ("POST", "/models/iris/invocations", b"<a/>", {"Content-Type": "application/xml"}, 415, "BAD_REQUEST"),
        ("POST", "/models/irs/invocations", {}, {}, 404, "RESOURCE_DOES_NOT_EXIST"),
        ("POST", "/models/iris/versions/9/invocations", {}, {}, 404, "RESOURCE_DOES_NOT_EXIST"),
        ("POST", "/invocations", {"inputs": []}, {}, 404, "RESOURCE_DOES_NOT_EXIST"),
        ("POST", "/models/iris/invocations", b"{}", {"X-Request-Timeout": "soon"}, 400, "BAD_REQUEST"),
        ("POST", "/models/iris/invocations", b"{}", {"Content-Encoding": "br"}, 415, "BAD_REQUEST"),
        ("GET", "/invocations", None, {}, 405, "ENDPOINT_NOT_FOUND"),
        ("PUT", "/models/iris/invocations", {}, {}, 405, "ENDPOINT_NOT_FOUND"),
    ],
)
def test_errors_have_mlflows_form(
    shared_gateway: Gateway, method: str, path: str, body: Any, headers: Any, status: int, code: str
) -> None:
    answer = shared_gateway.request(method, path, body, headers)
    assert answer.status == status
    assert answer.headers["content-type"] == JSON
    assert answer.json().keys() == {"error_code", "message"}
    assert answer.json()["error_code"] == code


def test_mlflows_other_paths(shared_gateway: Gateway) -> None:
    for path in ("/ping", "/health"):
        answer = shared_gateway.get(path)
        assert (answer.status, answer.body) == (200, b"\n")
    assert shared_gateway.get("/version").body.decode() == version("mlflow")


def test_one_model_needs_no_name(gateway: Callable[..., Gateway], models: Path) -> None:
    running = gateway({"models": [{"name": "iris", "uri": str(models / "iris")}]})
    running.wait_ready()
    assert running.post("/invocations", {"inputs": [RECORD]}).json() == {"predictions": [0]}
    answer = running.post("/invocations", {"inputs": "x"})
    assert (answer.status, answer.json()["error_code"]) == (400, "BAD_REQUEST")


def test_v1(shared_gateway: Gateway) -> None:
    assert shared_gateway.get("/").json() == {"status": "alive"}
    assert "iris" in shared_gateway.get("/v1/models").json()["models"]
    assert shared_gateway.get("/v1/models/iris").json() == {"name": "iris", "ready": True}
    answer = shared_gateway.post("/v1/models/iris:predict", {"instances": [list(RECORD.values())]})
    assert (answer.status, answer.body) == (200, b'{"predictions":[0]}')
    for path, body, status in (
        ("/v1/models/iris:predict", {"instances": 1}, 400),
        ("/v1/models/irs:predict", {"instances": [1]}, 404),
        ("/v1/models/iris:explain", {}, 501),
        ("/v1/models/irs:explain", {}, 404),
    ):
        answer = shared_gateway.post(path, body)
        assert (answer.status, list(answer.json())) == (status, ["error"])
    assert shared_gateway.get("/v1/models/irs").status == 404


def infer(gateway: Gateway, model: str, body: Any, content_type: str = JSON, query: str = "") -> Any:
    return gateway.post(f"/v2/models/{model}/infer{query}", body, {"Content-Type": content_type})


def test_every_kind_of_request(shared_gateway: Gateway) -> None:
    image, document = image_file("JPEG", (8, 8), "white"), pdf_file("white", "black")
    upload, boundary = form(("file", image, "a.jpg"), ("file", image, "b.jpg"))
    for model, body, content_type, rows in (
        ("iris", {"data": [RECORD]}, JSON, 1),
        ("sentiment", {"text": "a wonderful day"}, JSON, 1),
        ("digits", image, "application/octet-stream", 1),
        ("digits", image, "image/jpeg", 1),
        ("digits", document, "application/pdf", 2),
        ("digits", upload, boundary, 2),
    ):
        answer = infer(shared_gateway, model, body, content_type)
        assert (answer.status, answer.json()["statusCode"]) == (200, 200), answer
        assert len(answer.json()["data"]) == rows


def test_hostile_files_are_the_clients_mistake_and_the_worker_lives(shared_gateway: Gateway) -> None:
    workers = {process.pid for process in shared_gateway.processes()}
    for body, content_type, status in (
        (png_bomb(60_000, 60_000), "image/png", 413),
        (image_file()[:40], "image/png", 400),
        (pdf_file("red")[:300], "application/pdf", 400),
        (image_file(), "application/pdf", 400),
        (b"\0\1\2", "application/octet-stream", 400),
        (b"--x\r\n", "multipart/form-data; boundary=x", 400),
        (b"<svg/>", "image/svg+xml", 400),
        ({"image": "?"}, JSON, 400),
        ({"image": "AAAA", "text": "x"}, JSON, 400),
    ):
        answer = infer(shared_gateway, "digits", body, content_type)
        assert answer.status == status, answer
        assert answer.json()["statusCode"] == status
        assert answer.json()["message"] == answer.json()["error"]
    assert infer(shared_gateway, "digits", image_file("PNG", (8, 8)), "image/png").status == 200
    assert {process.pid for process in shared_gateway.processes()} == workers


def test_unknown_overrides(shared_gateway: Gateway) -> None:
    answer = infer(shared_gateway, "digits", image_file(), "image/png", "?inference_type=video")
    assert answer.status == 400
    assert "inference_type=video is unknown" in answer.json()["error"]
