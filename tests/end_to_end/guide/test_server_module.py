"""The guide's quick start and its input formats: `python -m modelhub.serving.server`, called by curl as printed."""

from __future__ import annotations

import itertools
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from support.modelhub_server import CLIENT, COPILOT, SECRET, ModelHubServer
from support.script_process import ScriptProcess

ROOT = Path(__file__).parents[3]
Fill = Callable[..., str]


def command(block: str) -> str:
    """A shell block without its comments, on one line."""
    lines = [line for line in block.splitlines() if not line.startswith("#")]
    return " ".join(line.rstrip("\\") for line in lines).strip()


def environment(block: str) -> dict[str, str]:
    lines = [line.partition("#")[0].strip() for line in block.splitlines()]
    return dict(line.split("=", 1) for line in lines if line)


class Servers(NamedTuple):
    """All at once, because each takes seconds to import what it serves with."""

    by_run: ScriptProcess  # the block `serve_run_id`, under the name that the guide's curl lines use
    by_registry: ScriptProcess  # the block `serve_registry`
    container: ScriptProcess  # what `docker run` gives the container, given to its entry point
    hub: ModelHubServer  # by way of which the container's model comes


@pytest.fixture(scope="module")
def servers(
    runs: dict[str, str], fill: Fill, mlflow_server: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Servers]:
    mlflow = {"MLFLOW_TRACKING_URI": mlflow_server}
    with ExitStack() as stack:

        def start(command: Any, env: dict[str, str]) -> ScriptProcess:
            running = ScriptProcess(command, tmp_path_factory.mktemp("server"), env=env)
            stack.callback(running.kill)
            return running

        hub = stack.enter_context(ModelHubServer(mlflow_server))
        values = {"run": runs["anything"], "modelhub": hub.url, "client_id": CLIENT, "client_secret": SECRET}
        words = shlex.split(command(fill("docker_run.sh", **values)))
        given = dict(word.split("=", 1) for before, word in itertools.pairwise(words) if before == "-e")
        known = environment(fill("environment.env", **values))
        assert given.items() <= known.items()
        known = {name: value for name, value in known.items() if name not in ("MODEL_NAME_REGISTRY", "MODEL_VERSION")}
        found = Servers(
            start(command(fill("serve_run_id.sh", run=runs["anything"])), {**mlflow, "MODEL_NAME": "my-model"}),
            start(command(fill("serve_registry.sh")), mlflow),
            start(
                [sys.executable, str(ROOT / "examples/serving/generic_serve.py")],
                {**known, "PORT": "0", "COPILOT_ID": COPILOT},
            ),
            hub,
        )
        for running in found[:3]:
            running.wait_live()
            running.wait_ready()
        yield found
        for running in found[:3]:
            running.stop()


@pytest.fixture
def served(servers: Servers) -> ScriptProcess:
    return servers.by_run


def curl(block: str, folder: Path) -> Any:
    done = subprocess.run(
        [*shlex.split(command(block)), "--silent", "--show-error", "--fail-with-body"],
        capture_output=True,
        check=False,
        stdin=subprocess.DEVNULL,
        cwd=folder,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_serve_run_id_and_the_endpoints(served: ScriptProcess) -> None:
    assert served.get("/v2/health/live").json()["live"] is True
    assert served.get("/v2/health/ready").json()["ready"] is True
    assert served.get("/v2/models").json() == {"models": ["my-model"]}
    assert served.get("/v2/models/my-model/ready").json() == {"name": "my-model", "ready": True}


def test_serve_registry(servers: Servers) -> None:
    servers.by_registry.wait_ready("default-model", version="2")
    assert servers.by_registry.get("/v2/models").json() == {"models": ["default-model"]}


def test_v2_request(served: ScriptProcess, fill: Fill) -> None:
    answer = served.post("/v2/models/my-model/infer", json.loads(fill("v2_request.json")))
    assert answer.status == 200
    row = {output["name"]: output["data"][0] for output in answer.json()["outputs"]}
    text = json.dumps(row)
    assert "ndarray" in text
    assert "3.0" in text


def test_upload_pdf(served: ScriptProcess, fill: Fill, files: Any) -> None:
    answer = curl(fill("upload_pdf.sh", url=served.url), files.folder)
    assert answer["statusCode"] == 200
    pages = answer["data"][0]["value"]["image"]
    assert pages == ["bytes \x89PNG", "bytes \x89PNG"]


def test_upload_image(served: ScriptProcess, fill: Fill, files: Any) -> None:
    answer = curl(fill("upload_image.sh", url=served.url), files.folder)
    assert answer["statusCode"] == 200
    assert len(answer["data"][0]["value"]["image"]) == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("legacy_text.json", {"type": "str", "value": "This is a sample text for classification"}),
        ("legacy_tabular.json", {"type": "DataFrame", "value": {"feature1": [1.0, 3.0], "feature2": [2.0, 4.0]}}),
        ("legacy_image.json", {"type": "DataFrame", "value": {"image": ["bytes \xff\xd8\xff\xe0"]}}),
        ("legacy_images.json", {"type": "DataFrame", "value": {"image": ["bytes \xff\xd8\xff\xe0", "bytes \x89PNG"]}}),
        ("legacy_pdf.json", {"type": "DataFrame", "value": {"image": ["bytes \x89PNG", "bytes \x89PNG"]}}),
    ],
)
def test_legacy_input(served: ScriptProcess, fill: Fill, files: Any, name: str, value: Any) -> None:
    body = json.loads(fill(name, jpeg=files.jpeg, png=files.png, pdf=files.pdf))
    answer = served.post("/v2/models/my-model/infer", body)
    assert (answer.status, answer.json()) == (200, {"statusCode": 200, "data": [value]})


def test_environment_and_docker_run(servers: Servers) -> None:
    running = servers.container
    running.wait_ready("custom-name")
    assert servers.hub.asked[:3] == ["token", "tracking_uri", "credentials"]
    assert running.post("/v2/models/custom-name/infer", {"text": "hello"}).json()["data"][0]["value"] == "hello"
    assert SECRET not in running.log()


def test_a_missing_copilot_is_named(start: Callable[..., ScriptProcess]) -> None:
    """And the arguments that the guide's scripts have are understood here too."""
    command = "python -m modelhub.serving.server --model_name own --run models:/my-model/2 --model_type sklearn"
    running = start(
        command, env={"MODELHUB_BASE_URL": "http://127.0.0.1:9", "CLIENT_ID": "a", "CLIENT_SECRET": "hunter22"}
    )
    running.wait_log("COPILOT_ID")
    assert running.get("/v2/models").json() == {"models": ["own"]}
    assert "hunter22" not in running.log()


def test_install_names_extras_that_exist(fill: Fill) -> None:
    project = (ROOT / "pyproject.toml").read_text()
    name = re.search(r'^name = "(.+)"$', project, re.MULTILINE)
    assert name is not None
    assert command(fill("install_basic.sh")) == f"pip install {name[1]}"
    assert command(fill("install_serving.sh")) == f'pip install "{name[1]}[serving]"'
    section = project.partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    assert {"serving", "text-serving", "image-serving"} <= set(re.findall(r"^([a-z-]+) = \[", section, re.MULTILINE))


def test_docker_build_finds_its_files(fill: Fill) -> None:
    folder = ROOT / shlex.split(command(fill("docker_build.sh")))[-1]
    lines = (folder / "Dockerfile").read_text().splitlines()
    copied = [line.split()[1] for line in lines if line.startswith("COPY")]
    assert copied == ["generic_serve.py"]
    assert all((folder / name).is_file() for name in copied)
    assert 'CMD ["python", "/app/serve.py"]' in lines
    assert 'CMD ["python", "/app/serve.py"]' in fill("generic.dockerfile")
