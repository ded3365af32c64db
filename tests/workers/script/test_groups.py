"""A lazy ModelServiceGroup in a user's script: services and plain entries behind one limit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support.script_process import ScriptProcess

SCRIPT = """
import os, sys
from modelhub.serving import ModelhubModelService, ModelServer, ModelServiceGroup

class Service(ModelhubModelService):
    def load(self):
        print(f"LOAD {self.name} {os.getpid()}", flush=True)
        super().load()

    def predict_text(self, request, headers=None):
        return {"pid": os.getpid(), "answer": self.loaded_model.predict(request["text"])}

if __name__ == "__main__":
    path = sys.argv[1]
    group = ModelServiceGroup(
        models=[Service("a", path), Service("b", path), {"name": "plain", "uri": path, "environment": "shared"}],
        load="lazy", memory_budget="2GiB", idle_timeout="1h", max_loaded=2, preload_order=["b"], parallel_loads=1,
        name="documents",
    )
    group.load_models()
    ModelServer().start(group)
"""


def test_a_lazy_group_loads_each_model_at_its_first_request(models: Path, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(SCRIPT)
    running = ScriptProcess(["python", "app.py", str(models / "echo")], tmp_path)
    try:
        running.wait_live()
        running.wait_ready()
        running.wait_log("LOAD b ")
        assert "LOAD a " not in running.log()
        first = ask(running, "a")
        assert first["answer"] == "x"
        assert first["pid"] != running.pid
        ask(running, "b")
        answer = running.post("/v2/models/plain/infer", {"text": "x"})
        assert answer.status == 200, answer.body
        states = {each["name"]: each["state"] for each in running.get("/status").json()["models"]}
        assert states == {"a": "UNLOADED", "b": "READY", "plain": "READY"}, "the least recently used one made room"
        assert ask(running, "a")["pid"] != first["pid"], "it comes back in a new process"
        assert (running.log().count("LOAD a "), running.log().count("LOAD b ")) == (2, 1)
        assert 'modelhub_group_models_loaded{group="documents"} 2.0' in running.get("/metrics").body.decode()
        running.stop()
        remembered = (running.state_dir / "memory.json").read_text()
        assert remembered.count(":") == 2, "one for the services, one for the same model without them"
    finally:
        running.kill()


def ask(running: ScriptProcess, model: str) -> Any:
    answer = running.post(f"/v2/models/{model}/infer", {"text": "x"})
    assert answer.status == 200, answer.body
    return answer.json()["data"]
