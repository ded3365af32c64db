"""The guide's scripts as separate processes, each with a real MLflow model behind it."""

from __future__ import annotations

import base64
import json
import shlex
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from support.modelhub_server import CLIENT, COPILOT, SECRET, ModelHubServer
from support.processes import until
from support.script_process import ScriptProcess

Fill = Callable[..., str]
Start = Callable[..., ScriptProcess]
Runs = dict[str, str]


def test_auto_model_predictor(runs: Runs, fill: Fill, start: Start) -> None:
    running = start("python app.py", {"app.py": fill("auto_model_predictor.py", run=runs["anything"])})
    running.wait_ready("my-model")
    for body, kind in (({"text": "hello"}, "str"), ({"data": [{"a": 1}]}, "DataFrame")):
        answer = running.post("/v2/models/my-model/infer", body)
        assert (answer.status, answer.json()["data"][0]["type"]) == (200, kind)
    assert running.infer("my-model", [{"name": "x", "shape": [1], "datatype": "INT64", "data": [1]}]).status == 200
    both = running.post("/v2/models/my-model/infer", {"text": "hello", "data": []})
    assert both.status == 400
    assert "text" in both.json()["message"]
    assert "data" in both.json()["message"]


@pytest.fixture(scope="module")
def configured(
    runs: Runs, fill: Fill, mlflow_server: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ScriptProcess]:
    """The guide's classes that no script of it starts, named by a configuration file."""
    nlp = {"name": "nlp", "uri": runs["spam"], "service": "services.nlp:CustomNLPModelService", "pythonpath": ["."]}
    llm = {"name": "llm", "uri": runs["async_llm"], "limits": {"concurrency": 4}}
    folder = tmp_path_factory.mktemp("configured")
    (folder / "services").mkdir()
    (folder / "services/nlp.py").write_text(fill("custom_nlp_service.py"))
    (folder / "models.yaml").write_text(yaml.safe_dump({"models": [nlp, llm]}))
    running = ScriptProcess("modelhub serve models.yaml", folder, env={"MLFLOW_TRACKING_URI": mlflow_server})
    try:
        running.wait_live()
        running.wait_ready()
        yield running
        running.stop()
    finally:
        running.kill()


def test_custom_nlp_service(configured: ScriptProcess) -> None:
    answer = configured.post("/v2/models/nlp/infer", {"text": "  Free MONEY "})
    assert answer.status == 200
    assert answer.json() == {
        "statusCode": 200,
        "data": {"prediction": "negative", "confidence": 0.95, "model_version": "v1.0"},
    }
    assert configured.post("/v2/models/nlp/infer", {"text": "good news"}).json()["data"]["prediction"] == "neutral"
    other = configured.post("/v2/models/nlp/infer", {"data": [{"text": "money"}]})
    assert other.json() == {"statusCode": 200, "data": 0}


def test_custom_nlp_service_from_other_clients(configured: ScriptProcess) -> None:
    """KServe V1, MLflow's own route and Triton's generate reach the service's method, too."""
    texts = ["Free MONEY", "good news"]
    v1 = configured.post("/v1/models/nlp:predict", {"instances": texts})
    assert [each["prediction"] for each in v1.json()["predictions"]] == ["negative", "neutral"]
    mlflow = configured.post("/models/nlp/invocations", {"dataframe_split": {"columns": ["text"], "data": [texts[:1]]}})
    assert [each["prediction"] for each in mlflow.json()["predictions"]] == ["negative"]
    generated = configured.post("/v2/models/nlp/generate", {"text_input": texts[0]}).json()
    assert json.loads(generated["text_output"])["prediction"] == "negative"


def test_main_as_the_inference_service_runs_it(runs: Runs, fill: Fill, mlflow_server: str, start: Start) -> None:
    """The command and the variables of the KServe manifest."""
    with ModelHubServer(mlflow_server) as hub:
        text = fill(
            "inference_service.yaml",
            run=runs["anything"],
            modelhub=hub.url,
            client_id=CLIENT,
            client_secret=SECRET,
        )
        (container,) = yaml.safe_load(text)["spec"]["predictor"]["containers"]
        assert container["command"][:2] == ["sh", "-c"]
        env = {each["name"]: each["value"] for each in container["env"]}
        running = start(container["command"][2], {"app/main.py": fill("main.py")}, {**env, "COPILOT_ID": COPILOT})
        running.wait_ready("text-classifier")
        answer = running.post("/v2/models/text-classifier/infer", {"text": "hello"})
        assert answer.json() == {"statusCode": 200, "data": [{"type": "str", "value": "hello"}]}
        assert hub.asked[:3] == ["token", "tracking_uri", "credentials"]
        assert SECRET not in running.log()


def test_the_kserve_dockerfile_runs_that_script(fill: Fill) -> None:
    lines = fill("kserve.dockerfile").splitlines()
    assert 'RUN pip install "modelhub-serving[text-serving]"' in lines
    entry = json.loads(next(line for line in lines if line.startswith("ENTRYPOINT")).removeprefix("ENTRYPOINT "))
    assert entry == ["python", "app/main.py"]


def test_multiple_models(runs: Runs, fill: Fill, start: Start) -> None:
    script = fill("multiple_models.py", run=runs["anything"], other_run=runs["spam"])
    running = start("python app.py", {"app.py": script})
    running.wait_ready()
    assert running.get("/v2/models").json() == {"models": ["extraction-model", "classification-model"]}
    extracted = running.post("/v2/models/extraction-model/infer", {"text": "hello"}).json()
    classified = running.post("/v2/models/classification-model/infer", {"text": "money"}).json()
    assert extracted["data"] == [{"type": "str", "value": "hello"}]
    assert classified == {"statusCode": 200, "data": 0}
    assert "forking this process is unsafe" not in running.log()  # the download has left no thread in the script


def test_text_classifier(runs: Runs, fill: Fill, start: Start) -> None:
    script = {"app.py": fill("text_classifier.py")}
    running = start(f"python app.py --model_name spam --run {shlex.quote(runs['spam'])}", script)
    running.wait_ready("spam")
    spam = running.post("/v2/models/spam/infer", {"text": "Win money now"})
    assert (spam.status, spam.json()) == (200, {"statusCode": 200, "data": {"label": "spam", "original_prediction": 0}})
    missing = running.post("/v2/models/spam/infer", {"text": ""})
    assert (missing.status, missing.json()["message"]) == (400, "Missing text input")
    running.wait_log("Processing text: Win money now")


def test_a_run_that_does_not_exist_stops_the_script(fill: Fill, start: Start) -> None:
    script = {"app.py": fill("text_classifier.py")}
    running = start(f"python app.py --model_name spam --run runs:/{'0' * 32}/model", script, live=False)
    assert running.code() == 1
    last = running.log().splitlines()[-1]
    assert "NotFound" in last
    assert "0000/model does not exist on the tracking server" in last


def test_document_processor(runs: Runs, fill: Fill, files: Any, start: Start) -> None:
    script = {"app.py": fill("document_processor.py")}
    running = start(f"python app.py --model_name documents --run {shlex.quote(runs['sizes'])}", script)
    running.wait_ready("documents")
    path = "/v2/models/documents/infer"
    uploaded = running.post(
        path, (files.folder / "document.pdf").read_bytes(), {"Content-Type": "application/octet-stream"}
    )
    assert uploaded.status == 200
    assert len(uploaded.json()["data"]) == 2
    in_json = running.post(path, {"pdf_file": files.pdf})
    assert in_json.json() == uploaded.json()
    images = running.post(path, {"images": [files.jpeg, files.png]})
    assert images.json() == {"statusCode": 200, "data": [[40, 30], [20, 10]]}
    nothing = running.post(path, {"text": "no document"})
    assert (nothing.status, nothing.json()["message"]) == (400, "No images or PDF provided")
    broken = running.post(path, {"pdf_file": base64.b64encode(b"%PDF-1.4 nonsense").decode()})
    assert broken.status == 500
    assert broken.json()["message"].startswith("Prediction error:")


def test_async_llm_model(configured: ScriptProcess) -> None:
    path = "/v2/models/llm/infer"
    answer = configured.post(path, {"data": [{"prompt": "abc"}, {"prompt": "xyz"}]})
    assert answer.json() == {"statusCode": 200, "data": [{"predictions": "cba"}, {"predictions": "zyx"}]}
    threads = max(process.num_threads() for process in configured.processes())
    for _ in range(20):
        assert configured.post(path, {"data": [{"prompt": "abc"}]}).status == 200
    assert max(process.num_threads() for process in configured.processes()) <= threads + 4


def test_async_executor(fill: Fill) -> None:
    """The guide's class and ours answer alike; where the guide's gives up on a thread, ours cancels."""
    import asyncio

    from modelhub.serving import AsyncExecutor

    guides: dict[str, Any] = {}
    exec(fill("async_executor.py"), guides)  # noqa: S102 - the guide's own code is what is compared

    async def double(value: int, *, plus: int = 0) -> int:
        await asyncio.sleep(0)
        return 2 * value + plus

    async def fail() -> None:
        raise KeyError("no")

    ended: list[str] = []

    async def linger() -> None:
        try:
            await asyncio.sleep(0.5)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    for executor in (guides["AsyncExecutor"], AsyncExecutor):
        assert executor.run_async(double, 4, plus=1, timeout=5) == 9
        with pytest.raises(KeyError, match="no"):
            executor.run_async(fail, timeout=5)
        with pytest.raises(TimeoutError, match=r"timed out after 0\.1 seconds"):
            executor.run_async(linger, timeout=0.1)
    until(lambda: ended == ["cancelled"], 5, "the coroutine is cancelled")
