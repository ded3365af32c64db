"""The real image, built and run with podman: it serves, without root, without writing to its own files; it drains."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from observed import tensor

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
IMAGE = "localhost/modelhub-serving"
BAKED = "localhost/modelhub-baked"
#: What a container may not do, as a careful operator starts it.
CONFINED = ("--read-only", "--read-only-tmpfs=false", "--cap-drop=ALL", "--security-opt=no-new-privileges")


def build(*arguments: str) -> list[str]:
    """Build an image (`build-image` says of what); the command line that runs podman."""
    command = [str(HERE / "build-image"), str(ROOT / ".venvs" / "podman"), *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return shlex.split(done.stdout.splitlines()[-1])


@pytest.fixture(scope="session")
def podman() -> Callable[..., str]:
    """Runs podman, once the image is built; returns what it printed."""
    prefix = build()

    def run(*arguments: str, check: bool = True, errors: bool = False) -> str:
        done = subprocess.run([*prefix, *arguments], capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout + (done.stderr if errors else "")

    return run


class Container:
    """One running container on the host's network, bound to loopback."""

    def __init__(self, podman: Callable[..., str], *options: str, arguments: tuple[str, ...] = ()) -> None:
        self.podman = podman
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        settings = ("--server.host=127.0.0.1", f"--server.port={self.port}", "--server.admin=same", *arguments)
        self.token = ""
        self.name = podman("run", "-d", *CONFINED, "--network=host", *options, IMAGE, *settings).strip()

    def get(self, path: str, body: Any = None) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        if path == "/status":
            self.token = self.token or self.sh("cat /var/lib/modelhub/gateways/*.token").strip()
            headers["Authorization"] = f"Bearer {self.token}"
        request = urllib.request.Request(self.url + path, data, headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def wait_ready(self, seconds: float = 120) -> None:
        deadline = time.monotonic() + seconds
        status = 0
        while status != 200:
            assert time.monotonic() < deadline, self.log()
            assert self.state("Running") == "true", self.log()
            try:
                status, _ = self.get("/v2/health/ready")
            except OSError:
                status = 0

    def log(self) -> str:
        return self.podman("logs", self.name, errors=True)

    def state(self, what: str) -> str:
        return self.podman("inspect", "--format", f"{{{{.State.{what}}}}}", self.name).strip()

    def sh(self, script: str) -> str:
        return self.podman("exec", self.name, "sh", "-c", script, check=False)


@pytest.fixture
def container(podman: Callable[..., str]) -> Iterator[Callable[..., Container]]:
    started: list[Container] = []

    def start(*options: str, arguments: tuple[str, ...] = ()) -> Container:
        started.append(Container(podman, *options, arguments=arguments))
        return started[-1]

    yield start
    for each in started:
        podman("rm", "-f", "-v", "-t", "0", each.name, check=False)


@pytest.fixture
def readable(models: Path, tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a fixture model that user 10001 can read."""

    def copy(name: str) -> Path:
        folder = tmp_path / name
        shutil.copytree(models / name, folder)
        subprocess.run(["chmod", "-R", "a+rX", str(folder)], check=True)
        for parent in [tmp_path, *tmp_path.parents][:4]:
            if os.access(parent, os.W_OK) and parent != Path("/tmp"):
                parent.chmod(parent.stat().st_mode | 0o055)
        return folder

    return copy


@pytest.mark.timeout(1500)
def test_a_mounted_model_is_served_without_root_and_without_writing(
    container: Callable[..., Container], readable: Callable[[str], Path]
) -> None:
    """As KServe runs it: the files at /mnt/models, the name in MODEL_NAME."""
    served = container("-v", f"{readable('identity')}:/mnt/models:ro", "-e", "MODEL_NAME=mine")
    served.wait_ready()
    status, answer = served.get("/v2/models/mine/infer", tensor([[1.0, 2.0]]))
    assert (status, answer["outputs"][0]["data"]) == (200, [1.0, 2.0])
    assert served.sh("id -u; id -g").split() == ["10001", "10001"]
    owners = served.sh("for p in /proc/[0-9]*; do stat -c %u $p; done").split()
    assert set(owners) == {"10001"}, owners
    assert served.sh("touch /x /tmp/x /opt/modelhub/x 2>/dev/null; ls /x /tmp/x /opt/modelhub/x 2>/dev/null") == ""
    assert "pdftoppm" in served.sh("command -v pdftoppm")
    assert served.sh("healthy; echo $?").strip() == "0"


@pytest.mark.timeout(600)
def test_sigterm_answers_what_is_in_flight(
    container: Callable[..., Container], readable: Callable[[str], Path], tmp_path: Path
) -> None:
    config = tmp_path / "models.yaml"
    config.write_text(yaml.safe_dump({"models": [{"name": "slow", "uri": "/models/slow"}]}))
    config.chmod(0o644)
    slow = readable("slow_predict")
    served = container("-v", f"{slow}:/models/slow:ro", "-v", f"{config}:/etc/modelhub/models.yaml:ro")
    served.wait_ready()
    answers: list[tuple[int, Any]] = []
    request = threading.Thread(
        target=lambda: answers.append(served.get("/v2/models/slow/infer", tensor([[3000.0, 0.0]])))
    )
    request.start()
    while not served.get("/status")[1]["models"][0]["requests"]["in_flight"]:
        assert request.is_alive(), answers
    served.podman("stop", "-t", "45", served.name)
    request.join(10)
    assert [status for status, _ in answers] == [200]
    assert served.state("ExitCode") == "0", served.log()


@pytest.mark.timeout(300)
def test_a_changed_file_is_read_again(
    container: Callable[..., Container], readable: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = tmp_path / "etc"
    folder.mkdir()
    config = folder / "models.yaml"

    def write(*names: str) -> None:
        config.write_text(yaml.safe_dump({"models": [{"name": name, "uri": "/models/identity"} for name in names]}))
        config.chmod(0o644)

    write("one")
    folder.chmod(0o755)
    model = readable("identity")
    state = tmp_path / "state"  # as in a pod: of both containers, which have one name
    state.mkdir()
    state.chmod(0o777)
    pod = ("--hostname=pod", "-v", f"{state}:/var/lib/modelhub")
    served = container("-v", f"{model}:/models/identity:ro", "-v", f"{folder}:/etc/modelhub:ro", *pod)
    served.wait_ready()
    assert served.get("/v2/models")[1] == {"models": ["one"]}
    watcher = served.podman(
        *(
            "run",
            "-d",
            "--read-only",
            "--network=host",
            "--entrypoint=reload-on-change",
            *pod,
            "-v",
            f"{folder}:/etc/modelhub:ro",
        ),
        *(IMAGE, "/etc/modelhub/models.yaml"),
    ).strip()
    try:
        deadline = time.monotonic() + 60
        while "reloaded" not in served.podman("logs", watcher, errors=True):
            assert time.monotonic() < deadline
        write("one", "two")
        while served.get("/v2/models")[1] != {"models": ["one", "two"]}:
            assert time.monotonic() < deadline, served.podman("logs", watcher, errors=True)
    finally:
        served.podman("rm", "-f", "-t", "0", watcher)


@pytest.mark.timeout(900)
def test_baked_environments_are_found_without_a_network(
    podman: Callable[..., str], readable: Callable[[str], Path], tmp_path: Path
) -> None:
    """Built into the image, in a folder that cannot be written, on an empty volume; nothing but loopback."""
    model = readable("identity")
    context = tmp_path / "context"
    for line in (ROOT / "deploy" / "Dockerfile.dockerignore").read_text().splitlines():
        source = ROOT / line.removeprefix("!")
        if line.startswith("!") and source.is_dir():
            shutil.copytree(source, context / source.name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        elif line.startswith("!") and source.is_file():
            (context / source.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, context / source.relative_to(ROOT))
    entry = {"name": "mine", "uri": "/models/identity", "environment": "isolated"}
    (context / "my-models.yaml").write_text(yaml.safe_dump({"models": [entry]}))
    mounted = ("-v", f"{model}:/models/identity:ro")
    build(BAKED, str(context), "--target=baked", "--build-arg=CONFIG=my-models.yaml", *mounted)
    inside = "import json, urllib.request as r; print(r.urlopen('http://127.0.0.1:8080{}', {}, 30).read().decode())"
    ask = ("python", "-c", inside.format("/v2/models/mine/infer", json.dumps(tensor([[1.0, 2.0]])).encode()))
    name = podman("run", "-d", *CONFINED, "--network=none", *mounted, BAKED).strip()
    try:
        deadline = time.monotonic() + 120
        while "true" not in podman("exec", name, "python", "-c", inside.format("/v2/health/ready", None), check=False):
            assert time.monotonic() < deadline, podman("logs", name, errors=True)
        assert json.loads(podman("exec", name, *ask))["outputs"][0]["data"] == [1.0, 2.0]
        (found,) = json.loads(podman("exec", name, "modelhub", "status", "--json"))["models"]
        assert found["environment"] != "shared"
        (place,) = podman("exec", name, "sh", "-c", "readlink /var/lib/modelhub/environments/*").split()
        assert place.startswith("/opt/modelhub-baked/environments/")
        compiled = podman("exec", name, "find", place, "-name", "*.pyc", "-path", "*/mlflow/*")
        assert len(compiled.splitlines()) > 100
        assert "building" not in podman("logs", name, errors=True)
    finally:
        podman("rm", "-f", "-v", "-t", "0", name, check=False)


@pytest.mark.timeout(120)
def test_a_model_is_named_by_a_variable(container: Callable[..., Container], readable: Callable[[str], Path]) -> None:
    served = container("-v", f"{readable('identity')}:/models/mine:ro", "-e", "MODEL_URI=/models/mine")
    served.wait_ready()
    assert served.get("/v2/models")[1] == {"models": ["default-model"]}


def test_nothing_to_serve_says_what_to_do(podman: Callable[..., str]) -> None:
    name = podman("run", "-d", "--network=host", IMAGE).strip()
    try:
        assert podman("wait", name).strip() == "2"
    finally:
        podman("rm", "-f", name)
