"""Models that MLflow traces: no client's data on the disk of a server that nobody told where traces go."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from support.code_models import save_code_model
from support.gateway_process import Gateway
from support.processes import until
from support.quiet_mlflow import import_mlflow
from support.v2_client import tensor

SECRET = "payload-of-a-client"
TRACED = """
import mlflow

class Own(mlflow.pyfunc.PythonModel):
    {load}

    @mlflow.trace
    def predict(self, context, model_input, params=None):
        return [self.upper(text) for text in model_input["text"]]

    @mlflow.trace(name="upper")
    def upper(self, text):
        with mlflow.start_span("inner") as span:
            span.set_inputs(text)
            return text.upper()
"""
AGENT = """
from mlflow.pyfunc import ResponsesAgent
from mlflow.types.responses import ResponsesAgentResponse

class Own(ResponsesAgent):
    def predict(self, request):
        text = request.input[-1].content
        return ResponsesAgentResponse(output=[self.create_text_output_item(text=str(text).upper(), id="1")])
"""
Start = Callable[..., Gateway]


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the models: `decorated`, `in-load` (traces when it is loaded too), `names-a-target`, `agent`."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    import_mlflow()
    folder = tmp_path_factory.mktemp("traced")
    signature = ModelSignature(Schema([ColSpec("string", "text")]))
    loads = {
        "decorated": "pass",
        "in-load": f"load_context = lambda self, context: self.upper({SECRET!r})",
        "names-a-target": f"load_context = lambda self, context: mlflow.set_tracking_uri('sqlite:///{folder}/own.db')",
    }
    for name, load in loads.items():
        save_code_model(folder / name, TRACED.format(load=load), signature=signature)
    save_code_model(folder / "agent", AGENT)
    return folder


def files_of_workers(running: Gateway) -> list[str]:
    """Everything that lies in the folders of the gateway's processes."""
    folders = {process.cwd() for process in running.processes() if "worker" in "".join(process.cmdline())}
    assert folders
    return [str(path) for folder in folders for path in Path(folder).rglob("*")]


def ask(running: Gateway, name: str) -> None:
    answer = running.infer(name, [tensor("text", "BYTES", [1], [SECRET])])
    assert answer.json()["outputs"][0]["data"] == [SECRET.upper()]


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_a_traced_model_writes_nothing(gateway: Start, traced: Path, start: str) -> None:
    entries = [{"name": name, "uri": str(traced / name), "start": start} for name in ("decorated", "in-load")]
    running = gateway({"models": [*entries, {"name": "agent", "uri": str(traced / "agent"), "start": start}]})
    running.wait_ready()
    for _ in range(5):
        ask(running, "decorated")
        ask(running, "in-load")
        body = {"input": [{"role": "user", "content": SECRET}]}
        said = running.post("/models/agent/invocations", body).json()["output"]
        assert said[0]["content"][0]["text"] == SECRET.upper()
    assert files_of_workers(running) == []


def spans_in(database: Path) -> int:
    """How many spans of the traced model a tracking database holds; 0 while it is being made."""
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
            return int(connection.execute("SELECT count(*) FROM spans WHERE name = 'inner'").fetchone()[0])
    except sqlite3.OperationalError:
        return 0


def test_traces_go_where_the_entry_or_the_models_own_code_says(gateway: Start, traced: Path, tmp_path: Path) -> None:
    """A tracking URI under `env`, or set while the model is loaded; the entry beside them stays quiet."""
    entry = {"uri": str(traced / "decorated")}
    told = {**entry, "name": "told", "env": ["MLFLOW_TRACKING_URI"]}
    own = {"name": "own", "uri": str(traced / "names-a-target")}
    running = gateway(
        {"models": [told, own, {**entry, "name": "untold"}]},
        env={"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/traces.db"},
    )
    running.wait_ready()
    for name in ("untold", "told", "own"):
        ask(running, name)
    for database in (tmp_path / "traces.db", traced / "own.db"):
        until(lambda database=database: spans_in(database) == 1, 60, f"the trace is in {database}")
