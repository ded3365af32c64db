"""ModelServer in a script of its own: what is loaded where, who restarts whom, and what ends with what."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest

from support.processes import alive, survivors, until
from support.script_process import ScriptProcess

SCRIPT = """
import os, sys
from modelhub.serving import ModelhubModelService, ModelServer, ModelServiceGroup

class Service(ModelhubModelService):
    def load(self):
        print(f"LOAD {self.name} {os.getpid()}", flush=True)
        if self.run_uri:
            super().load()
        self.ballast = bytearray(os.urandom(1 << 20) * 60)
        self.loader = os.getpid()

    def predict_text(self, request, headers=None):
        if request["text"] == "exit":
            os._exit(3)
        answer = self.loaded_model.predict(request["text"]) if self.loaded_model else None
        return {"pid": os.getpid(), "loader": self.loader, "ballast": len(self.ballast), "env": sorted(os.environ),
                "cwd": os.getcwd(), "answer": answer}

if __name__ == "__main__":
    BEFORE
    services = [Service(name, sys.argv[1]) for name in sys.argv[2:]]
    START
"""
START = "[service.load() for service in services]; ModelServer().start(services)"
ENV = {"MLFLOW_TRACKING_PASSWORD": "hunter22", "OWN": "1"}

Start = Callable[..., ScriptProcess]


def begin(folder: Path, model: str, *names: str, before: str = "pass", then: str = START) -> ScriptProcess:
    """The script with these services of this model; "": they load no model, which takes a second instead of five."""
    (folder / "app.py").write_text(SCRIPT.replace("BEFORE", before).replace("START", then))
    return ScriptProcess(["python", "app.py", model, *names], folder, env=ENV)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """`start("a", "b", …, model=…)`: a script of one's own."""
    with ExitStack() as stack:

        def run(*names: str, model: str = "", **options: str) -> ScriptProcess:
            running = begin(tmp_path, model, *names, **options)
            stack.callback(running.kill)
            return running

        yield run


@pytest.fixture(scope="module")
def running(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptProcess]:
    """Services a and b with a model each, and plain entries."""
    entries = [
        {"name": "plain", "uri": str(models / "identity")},
        {"name": "native", "uri": str(models / "iris"), "model_type": "sklearn"},
    ]
    then = f"[service.load() for service in services]; ModelServer([*services, *{entries!r}]).start()"
    script = begin(tmp_path_factory.mktemp("script"), str(models / "echo"), "a", "b", then=then)
    try:
        script.wait_live()
        script.wait_ready()
        yield script
        script.stop()
    finally:
        script.kill()


def ask(running: ScriptProcess, model: str, text: str = "x") -> Any:
    answer = running.post(f"/v2/models/{model}/infer", {"text": text})
    assert answer.status == 200, answer.body
    return answer.json()["data"]


def private(pid: int) -> int:
    """Private bytes of a process."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Private_"))


def test_what_is_loaded_is_loaded_once_and_held_once(running: ScriptProcess) -> None:
    found = {name: ask(running, name) for name in ("a", "b")}
    assert found["a"]["answer"] == "x"
    assert running.log().count("LOAD a ") == running.log().count("LOAD b ") == 1
    assert {each["loader"] for each in found.values()} == {running.pid}
    assert len({running.pid, *(each["pid"] for each in found.values())}) == 3
    for each in found.values():
        assert each["ballast"] == 60 << 20
        assert private(each["pid"]) < 40 << 20  # the 60 MiB of each service are the script's
        assert each["cwd"] == str(running.state_dir.parent)  # the script's own
        assert "OWN" in each["env"]
        assert "MLFLOW_TRACKING_PASSWORD" not in each["env"]


def test_a_service_that_dies_is_forked_again_and_hurts_no_other(running: ScriptProcess) -> None:
    other = ask(running, "b")["pid"]
    assert running.post("/v2/models/a/infer", {"text": "exit"}).status == 503
    assert ask(running, "a")["loader"] == running.pid
    assert ask(running, "b")["pid"] == other
    assert running.log().count("LOAD a ") == 1


def test_plain_entries_beside_services(running: ScriptProcess) -> None:
    assert running.get("/v2/models").json() == {"models": ["a", "b", "plain", "native"]}
    answer = running.infer("plain", [{"name": "input-0", "shape": [1, 1], "datatype": "FP32", "data": [4]}])
    assert answer.json()["outputs"][0]["data"] == [4.0]
    row = {"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}
    assert running.post("/v2/models/native/infer", {"data": [row]}).json() == {"statusCode": 200, "data": [0]}


def test_a_script_with_threads_loads_afresh(start: Start) -> None:
    before = "import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()"
    running = start("a", before=before)
    running.wait_live()
    running.wait_ready()
    found = ask(running, "a")
    assert found["loader"] == found["pid"] != running.pid
    assert found["cwd"] == str(running.state_dir.parent)
    assert "forking this process is unsafe" in running.log()
    assert "1 more threads" in running.log()
    assert running.log().count("LOAD a ") == 2
    assert private(running.pid) < 60 << 20  # the script has dropped its own
    running.stop()


def test_start_loads_what_is_not_loaded_and_stops_with_a_message(start: Start) -> None:
    running = start("a", then="ModelServer(services).start()")
    running.wait_live()
    running.wait_ready("a")
    assert ask(running, "a")["loader"] == running.pid
    running.stop()
    failing = start("a", then="ModelServer(services).start()", model="nothing-there")
    assert failing.code() == 1
    assert "modelhub: model a could not be loaded: " in failing.log()
    assert "Traceback" not in failing.log()


def test_a_lazy_group_loads_in_its_worker(start: Start) -> None:
    running = start("a", then="ModelServer(ModelServiceGroup(services, load='lazy')).start()")
    running.wait_live()
    assert "LOAD" not in running.log()
    found = ask(running, "a")
    assert found["loader"] == found["pid"] != running.pid
    running.stop()


def test_a_load_that_fails_stops_the_script_at_once(start: Start) -> None:
    running = start("a", model="nothing-there")
    assert running.code() == 1
    assert "LoadError" in running.log().splitlines()[-1]
    assert "nothing-there is no MLflow model" in running.log()


def test_a_tracking_server_that_is_not_there_is_said_soon(tmp_path: Path) -> None:
    """MLflow alone would ask eight times, for minutes."""
    asked = []

    class Unavailable(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(503)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Unavailable) as server:
        threading.Thread(target=server.serve_forever).start()
        uri = f"http://127.0.0.1:{server.server_port}"
        script = "from modelhub.serving import ModelhubModelService as S; S('a', 'models:/a/1').load()"
        env = {"MLFLOW_TRACKING_URI": uri, "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0"}
        running = ScriptProcess(["python", "-c", script], tmp_path, env=env)
        try:
            assert running.code() == 1
        finally:
            running.kill()
            server.shutdown()
    assert len(asked) == 3
    assert f"could not be read from the tracking server {uri}" in running.log()


def test_an_interrupt_is_passed_on(start: Start) -> None:
    """As SIGTERM is, by which every other script here ends."""
    running = start("a")
    running.wait_live()
    running.wait_ready("a")
    below = running.processes()
    assert len(below) == 2  # gateway and worker
    assert running.signal(signal.SIGINT) == 0
    assert not survivors(below, 5)


def gateway_of(running: ScriptProcess) -> psutil.Process:
    return next(each for each in running.processes() if "modelhub: gateway" in " ".join(each.cmdline()))


def test_the_gateways_end_is_the_scripts(start: Start) -> None:
    running = start("a")
    running.wait_live()
    running.wait_ready("a")
    below = running.processes()
    gateway_of(running).kill()
    assert running.code() == 128 + signal.SIGKILL
    assert not survivors(below, 5)


def test_the_scripts_end_is_everyones(start: Start) -> None:
    running = start("a")
    running.wait_live()
    running.wait_ready("a")
    below = running.processes()
    os.kill(running.pid, signal.SIGKILL)
    until(lambda: not any(alive(each) for each in below), 10, "gateway and worker end with the script")


def test_names_that_cannot_be_are_said(start: Start) -> None:
    running = start("a", "a")
    assert running.code() == 2
    assert "two services are called 'a'" in running.log()
    wrong = start("a b", then="ModelServer(services).start()")
    assert wrong.code() == 2
    assert "'a b' is not a name" in wrong.log()
