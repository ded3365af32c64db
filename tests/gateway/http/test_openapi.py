"""The OpenAPI documents say what is there, and the page at /docs needs nothing from elsewhere."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from support.gateway_process import Gateway
from support.http_front import Model, serving

EXAMPLE = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1.5, None]}]}

#: Browsers run and use only what is of its type.
TYPES = {"css": {"text/css"}, "js": {"text/javascript", "application/javascript"}, "png": {"image/png"}}


def iris() -> Model:
    model = Model()
    model.known_metadata = {
        "platform": "mlflow_sklearn",
        "inputs": [
            {"name": "x", "datatype": "FP32", "shape": [-1, 2]},
            {"name": "n", "datatype": "UINT8", "shape": []},
        ],
        "outputs": [{"name": "y", "datatype": "INT64", "shape": [-1]}],
    }
    model.example = json.dumps(EXAMPLE).encode()
    return model


def schema_of(document: dict[str, Any], path: str) -> Draft202012Validator:
    schema = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    whole = {**schema, "components": document["components"]}
    Draft202012Validator.check_schema(whole)
    return Draft202012Validator(whole)


async def test_every_path_of_the_document_is_there() -> None:
    async with serving(iris(), admin=False) as front:
        document = (await front.get("/openapi.json")).json()
        assert document["openapi"] == "3.1.0"
        for template, operations in document["paths"].items():
            path = template.replace("{model}", "iris").replace("{version}", "1")
            for method in operations.keys() & {"get", "post"}:
                answer = await front.request(method.upper(), path, b"{}" if method == "post" else None)
                assert answer.status == 200, (method, path, answer)
                assert str(answer.status) in operations[method]["responses"]
    assert document["paths"]["/v2/models/{model}"]["parameters"][0]["schema"]["enum"] == ["iris"]


async def test_a_models_document_has_its_tensors_and_its_example() -> None:
    async with serving(iris()) as front:
        document = (await front.get("/v2/models/iris/openapi.json")).json()
        versioned = (await front.get("/v2/models/iris/versions/1/openapi.json")).json()
        (await front.get("/v2/models/nosuch/openapi.json")).assert_error(404)
    assert versioned == document
    assert set(document["paths"]) == {"/v2/models/iris/infer", "/v2/models/iris/versions/1/infer"}
    body = document["paths"]["/v2/models/iris/infer"]["post"]["requestBody"]["content"]["application/json"]
    assert body["example"] == EXAMPLE
    schema = schema_of(document, "/v2/models/iris/infer")
    schema.validate(EXAMPLE)
    for wrong in (
        {"name": "z", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]},
        {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]},
        {"name": "x", "shape": [1], "datatype": "FP32", "data": [1]},
        {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": ["a", "b"]},
        {"name": "n", "shape": [], "datatype": "UINT8", "data": [256]},
        {"name": "x", "shape": [1, 2], "datatype": "FP32"},
    ):
        assert not schema.is_valid({"inputs": [wrong]}), wrong


@pytest.mark.parametrize("name", ["iris", "sentiment", "datatypes", "params", "echo"])
def test_examples_of_real_models_are_valid_and_answered(shared_gateway: Gateway, name: str) -> None:
    document = shared_gateway.get(f"/v2/models/{name}/openapi.json").json()
    path = f"/v2/models/{name}/infer"
    schema = schema_of(document, path)
    example = document["paths"][path]["post"]["requestBody"]["content"]["application/json"].get("example")
    assert (example is not None) == (name in ("iris", "sentiment"))
    if example is not None:
        schema.validate(example)
        answer = shared_gateway.post(path, example)
        assert answer.status == 200
        response = document["paths"][path]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
        Draft202012Validator({**response, "components": document["components"]}).validate(answer.json())


@pytest.mark.allow_blocking
async def test_the_page_and_what_it_loads() -> None:
    other = iris()
    other.name = "digits"
    async with serving(iris(), other) as front:
        page = await front.get("/docs")
        assert page.status == 200
        assert page.headers["content-type"].startswith("text/html")
        assert page.headers["content-security-policy"].startswith("default-src 'self'")
        text = page.body.decode()
        assert "://" not in text
        files = re.findall(r'(?:src|href)="([^"]+)"', text)
        assert len(files) == 5
        for file in files:
            answer = await front.get(f"/{file}")
            assert answer.status == 200, file
            assert len(answer.body) > 100, file
            kind = TYPES[file.rpartition(".")[2]]
            assert answer.headers["content-type"].partition(";")[0] in kind, file
            if file.endswith(".css"):
                assert set(re.findall(rb"url\(\s*[\"']?([a-z]+:)", answer.body)) <= {b"data:"}
        start = (await front.get("/docs/start.js")).body.decode()
        assert "://" not in start
        assert "validatorUrl: null" in start, "Swagger's own would be asked about the document"
        [urls] = re.findall(r"urls: (\[.*?\]),", start)
        for each in json.loads(urls):
            assert (await front.get(f"/{each['url']}")).json()["openapi"] == "3.1.0"
        assert [each["name"] for each in json.loads(urls)] == ["the server", "iris", "digits"]


@pytest.mark.parametrize("name", ["swagger-ui.js", "..%2f__init__.py", "%2e%2e/__init__.py", "index.html", "x" * 500])
async def test_no_other_file_is_given(name: str) -> None:
    async with serving(iris()) as front:
        (await front.get(f"/docs/{name}")).assert_error(404)
