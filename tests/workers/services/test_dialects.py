"""Services behind the routes of MLflow, KServe V1 and Triton's generate: what they are given, how they answer."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from modelhub.serving import ImageModelService, InvalidRequest, ModelhubModelService, TextModelService
from modelhub.serving.workers.services.adapter import ServiceAdapter
from support.quiet_mlflow import import_mlflow, quiet
from support.service_calls import ask, ask_stream, served

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)
FORMS = ("v1_predict", "invocations")


class Spam(ModelhubModelService):
    """As the guide writes them: for one text at a time."""

    def predict_text(self, request: Any, headers: Any = None) -> Any:
        if not request["text"]:
            return {"statusCode": 422, "message": "no text"}
        return {"statusCode": 200, "data": {"spam": "money" in request["text"].lower(), "by": sorted(request)}}


class Rows(ModelhubModelService):
    def predict_tabular(self, request: Any, headers: Any = None) -> Any:
        return [sum(row.values()) if isinstance(row, dict) else sum(row) for row in request["data"]]


class Files(ImageModelService):
    def predict_image(self, request: Any, headers: Any = None) -> Any:
        return {"size": len(request["image"])}

    def predict_images(self, request: Any, headers: Any = None) -> Any:
        return [len(each) for each in request["images"]]

    def predict_pdf(self, request: Any, headers: Any = None) -> Any:
        return "a document"


class Pages(ModelhubModelService):
    def predict_pdf(self, request: Any, headers: Any = None) -> Any:
        return "pages"


class Everything(ModelhubModelService):
    def predict(self, request: Any, headers: Any = None) -> Any:
        return {"got": request, "agent": (headers or {}).get("user-agent")}


@pytest.fixture(scope="module", autouse=True)
def mlflow_is_imported() -> None:
    import_mlflow()


@pytest.fixture
def load(models: Path) -> Iterator[Callable[..., ServiceAdapter]]:
    """`load(class, model)`: a service of this class with a fixture model."""

    def make(cls: type[ModelhubModelService], model: str) -> ServiceAdapter:
        service = cls("m", str(models / model))
        service.load()
        return served(service)

    with quiet():
        yield make


@pytest.fixture
def sentiment(load: Callable[..., ServiceAdapter]) -> Callable[..., ServiceAdapter]:
    """The model with one string column."""
    return lambda cls: load(cls, "sentiment")


@pytest.mark.parametrize("kind", FORMS)
def test_texts_are_asked_one_by_one(kind: str) -> None:
    adapter = served(Spam("m", ""))
    status, answer = ask(adapter, {"instances": ["Win money", "hello"]}, kind=kind)
    assert status == 0
    assert [each["spam"] for each in answer["predictions"]] == [True, False]
    by = ["instances", "text"] if kind == "v1_predict" else ["text"]
    assert answer["predictions"][0]["by"] == by


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_split": {"columns": ["text"], "data": [["Win money"], ["hello"]]}},
        {"dataframe_records": [{"text": "Win money"}, {"text": "hello"}]},
        {"inputs": ["Win money", "hello"]},
        {"inputs": {"text": ["Win money", "hello"]}},
        {"instances": [{"text": "Win money"}, {"text": "hello"}]},
        b"text\nWin money\nhello\n",
    ],
)
def test_mlflows_formats_of_a_text_column(sentiment: Callable[..., ServiceAdapter], body: Any) -> None:
    media = "text/csv" if isinstance(body, bytes) else "application/json"
    status, answer = ask(sentiment(Spam), body, kind="invocations", content_type=media)
    assert (status, [each["spam"] for each in answer["predictions"]]) == (0, [True, False])


@pytest.mark.parametrize("kind", FORMS)
def test_a_kind_without_a_method_goes_to_the_model(sentiment: Callable[..., ServiceAdapter], kind: str) -> None:
    """As it would without the class: with the same words."""
    body = {"instances": [{"text": "a wonderful day"}]}
    adapter, plain = sentiment(Pages), sentiment(ModelhubModelService)
    status, answer = ask(adapter, body, kind=kind)
    assert (status, answer["predictions"][0]["label"]) == (0, "positive")
    assert ask(plain, body, kind=kind)[1] == answer


@pytest.mark.parametrize("kind", FORMS)
def test_tables_are_one_request(kind: str) -> None:
    adapter = served(Rows("m", ""))
    for instances in ([[1, 2], [3, 4]], [{"a": 1, "b": 2}, {"a": 3, "b": 4}]):
        assert ask(adapter, {"instances": instances}, kind=kind) == (0, {"predictions": [3, 7]})
    assert ask(adapter, {"instances": [[1, 2]]}, kind=kind)[1] == {"predictions": [3]}


def test_mlflows_columns_are_records() -> None:
    adapter = served(Rows("m", ""))
    body = {"dataframe_split": {"columns": ["a", "b"], "data": [[1, 2], [3, 4]]}}
    assert ask(adapter, body, kind="invocations")[1] == {"predictions": [3, 7]}
    assert ask(adapter, {"inputs": {"a": [1, 3], "b": [2, 4]}}, kind="invocations")[1] == {"predictions": [3, 7]}


def test_files_of_v1() -> None:
    adapter = served(Files("m", ""))

    def files(*contents: bytes) -> Any:
        return {"instances": [{"b64": base64.b64encode(each).decode()} for each in contents]}

    assert ask(adapter, files(PNG), kind="v1_predict")[1] == {"predictions": [{"size": 28}]}
    assert ask(adapter, files(PNG, PNG), kind="v1_predict")[1] == {"predictions": [28, 28]}
    assert ask(adapter, files(b"%PDF-1.7"), kind="v1_predict")[1] == {"predictions": ["a document"]}


@pytest.mark.parametrize("kind", FORMS)
def test_a_predict_of_its_own_sees_it_all(kind: str) -> None:
    adapter = served(Everything("m", ""))
    status, answer = ask(adapter, {"instances": [{"a": 1}]}, kind=kind, headers={"user-agent": "me"})
    (prediction,) = answer["predictions"]
    assert (status, prediction["agent"], prediction["got"]["data"]) == (0, "me", [{"a": 1}])
    assert prediction["got"].get("instances") == ([{"a": 1}] if kind == "v1_predict" else None)


def test_params_reach_the_model(load: Callable[..., ServiceAdapter]) -> None:
    class Doubled(ModelhubModelService):
        def predict_tabular(self, request: Any, headers: Any = None) -> Any:
            return super().predict_tabular(
                {**request, "data": [{"value": 2 * row["value"]} for row in request["data"]]}
            )

    adapter = load(Doubled, "params")
    params = {"factor": 3.0, "suffix": " EUR"}
    for kind in FORMS:
        _, answer = ask(adapter, {"instances": [{"value": 1.0}], "params": params}, kind=kind)
        assert answer == {"predictions": [{"value": 6.0, "label": "6 EUR"}]}
    _, answer = ask(adapter, {"data": [{"value": 1.0}], "params": params})
    assert answer["data"] == [{"value": 6.0, "label": "6 EUR"}]


def test_a_status_of_its_own_in_the_dialects_form() -> None:
    adapter = served(Spam("m", ""))
    assert ask(adapter, {"instances": ["a", ""]}, kind="v1_predict") == (422, {"error": "no text"})
    mlflow = ask(adapter, {"inputs": ["a", ""]}, kind="invocations")
    assert mlflow == (422, {"error_code": "BAD_REQUEST", "message": "no text"})


@pytest.mark.parametrize("kind", FORMS)
def test_narrow_services_refuse_other_kinds(kind: str) -> None:
    adapter = served(TextModelService("m", ""))
    with pytest.raises(InvalidRequest, match="takes no requests of the kind tabular"):
        ask(adapter, {"instances": [{"a": 1, "b": 2}]}, kind=kind)


# ---- generate ------------------------------------------------------------------------------------


class Talker(ModelhubModelService):
    def predict_text(self, request: Any, headers: Any = None) -> Any:
        if request["text"] == "no":
            return {"statusCode": 403, "message": "not this"}
        return {"statusCode": 200, "data": [{"generated_text": request["text"] + str(request["parameters"])}]}

    def predict_stream(self, request: Any, headers: Any = None) -> Iterator[str]:
        yield from request["text"]


class Streamer(ModelhubModelService):
    def predict_stream(self, request: Any, headers: Any = None) -> Iterator[Any]:
        for letter in request["text"]:
            yield {"statusCode": 200, "data": letter} if request.get("wrapped") else letter


def test_generate() -> None:
    adapter = served(Talker("m", ""))
    status, answer = ask(adapter, {"id": "q", "text_input": "ab", "parameters": {"n": 1}}, kind="generate")
    assert (status, answer) == (
        0,
        {"id": "q", "model_name": "m", "model_version": "7", "text_output": "ab{'n': 1}"},
    )
    assert ask(adapter, {"text_input": "no"}, kind="generate") == (403, {"error": "not this"})


def test_generate_stream() -> None:
    found = ask_stream(served(Talker("m", "")), {"text_input": "ab"}, "generate_stream")
    assert [event["text_output"] for event in found] == ["a", "b"]
    assert "id" not in found[0]
    wrapped = ask_stream(served(Streamer("m", "")), {"text_input": "ab", "wrapped": True}, "generate_stream")
    assert [event["text_output"] for event in wrapped] == ["a", "b"]


def test_generate_joins_a_stream_where_there_is_nothing_else() -> None:
    assert ask(served(Streamer("m", "")), {"text_input": "abc"}, kind="generate")[1]["text_output"] == "abc"


def test_generate_asks_a_model(sentiment: Callable[..., ServiceAdapter]) -> None:
    adapter = sentiment(ModelhubModelService)
    text = ask(adapter, {"text_input": "a wonderful day", "parameters": {"stream": False}}, kind="generate")[1]
    assert '"label":"positive"' in text["text_output"]
    (event,) = ask_stream(adapter, {"text_input": "a wonderful day"}, "generate_stream")
    assert event == text


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"text": "a"}, '"text_input"'),
        ({"text_input": ["a"]}, '"text_input"'),
        ({"text_input": "a", "text": "b"}, "ambiguous"),
        ({"text_input": "a", "parameters": []}, '"parameters" must be an object'),
        ({"text_input": "a", "id": 5}, '"id" must be a text'),
        ([], "JSON object"),
    ],
)
def test_what_generate_refuses(body: Any, message: str) -> None:
    for service in (Talker("m", ""), ModelhubModelService("m", "")):
        with pytest.raises(InvalidRequest, match=message):
            ask(served(service), body, kind="generate")


def test_generate_needs_a_model_that_takes_text(load: Callable[..., ServiceAdapter]) -> None:
    with pytest.raises(InvalidRequest, match="takes no text"):
        ask(load(ModelhubModelService, "iris"), {"text_input": "a"}, kind="generate")
