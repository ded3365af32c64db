"""Real gateways: what a model's code can have them do, where operators' routes are, and what the note of them says."""

from __future__ import annotations

import json
import socket
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.gateway_process import MODELHUB, Gateway

Start = Callable[..., Gateway]


def ask(running: Gateway, port: int) -> list[float]:
    """What the model answers, that it has asked this port."""
    row = {"name": "input-0", "shape": [1, 1], "datatype": "FP32", "data": [port]}
    answer = running.infer("reloads_itself", [row])
    assert answer.status == 200, answer
    found: list[float] = answer.json()["outputs"][0]["data"]
    return found


@pytest.mark.parametrize(("auth", "status"), [("token", 401), ("off", 403)])
def test_a_model_that_reloads_itself_is_refused(gateway: Start, models: Path, auth: str, status: int) -> None:
    config = {
        "server": {"admin_auth": auth},
        "models": [{"name": "reloads_itself", "uri": str(models / "reloads_itself")}],
    }
    running = gateway(config, env={"MLFLOW_TRACKING_PASSWORD": "the secret of the gateway"})
    running.wait_ready()
    port = int(running.url.rpartition(":")[2])
    assert ask(running, port) == [status, 0]
    assert ask(running, 0) == [0, 0]
    running.wait_log("a request to change the server was refused")
    assert "the secret of the gateway" not in running.log()


def config_of(models: Path, **server: Any) -> dict[str, Any]:
    """Of which nothing is loaded."""
    iris = {"name": "iris", "uri": str(models / "iris")}
    return {"server": server, "groups": [{"name": "g", "load": "lazy", "models": [iris]}]}


def notes(running: Gateway) -> dict[str, Any]:
    (note,) = (running.state_dir / "gateways").glob("*.json")
    found: dict[str, Any] = json.loads(note.read_text())
    return found


def test_operators_have_a_port_of_their_own_unless_it_is_said(gateway: Start, models: Path) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind(("127.0.0.1", 8081))
            taken.listen()
        except OSError:
            pass  # by somebody else: as good
        running = gateway(config_of(models, admin=None))
    note = notes(running)
    assert note["admin_url"].startswith("http://127.0.0.1:")
    assert note["admin_url"] not in (note["url"], "http://127.0.0.1:8081")
    assert running.get("/status").status == 404
    assert running.post("/admin/reload").status == 501
    assert running.get(note["admin_url"] + "/status").status == 200
    assert note["admin_url"] in running.log()


def test_a_port_that_was_named_and_is_taken_is_an_error(models: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        config = config_of(models, admin=port, host="127.0.0.1", port=0, state_dir=str(tmp_path / "state"))
        (tmp_path / "models.yaml").write_text(json.dumps(config))
        command = [str(MODELHUB), "serve", str(tmp_path / "models.yaml")]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr


def test_the_note_names_the_token_and_both_go_at_the_end(gateway: Start, models: Path) -> None:
    running = gateway(config_of(models))
    token_file = Path(notes(running)["token_file"])
    assert stat.S_IMODE(token_file.stat().st_mode) == 0o600
    token = token_file.read_text().strip()
    assert running.get("/status", {"Authorization": "Bearer wrong"}).status == 401
    assert running.get("/status", {"Authorization": f"Bearer {token}"}).status == 200
    for command in (["status", "--json"], ["reload"]):
        line = [str(MODELHUB), *command, f"--server.state_dir={running.state_dir}"]
        done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
    assert token not in running.log()
    running.stop()
    assert list((running.state_dir / "gateways").iterdir()) == []


def test_without_a_token_it_is_warned_of(gateway: Start, models: Path) -> None:
    running = gateway(config_of(models, admin_auth="off"))
    assert notes(running)["token_file"] == ""
    assert running.get("/status", {"Authorization": ""}).status == 200
    assert "server.admin_auth is off" in running.log()
