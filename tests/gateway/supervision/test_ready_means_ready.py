"""READY is no worker's word: what is said of it while workers start slowly, cannot connect, or are not missed."""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from support.gateway_process import Gateway
from support.processes import until
from support.v2_client import tensor

Start = Callable[..., Gateway]


def one(value: float) -> list[dict[str, Any]]:
    return [tensor("input-0", "FP32", [1, 1], [value])]


def entry(models: Path, kind: str, **keys: Any) -> dict[str, Any]:
    return {"name": kind, "uri": str(models / kind), "environment": "shared", **keys}


def status(gateway: Gateway, model: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = [each for each in gateway.get("/status").json()["models"] if each["name"] == model]
    return found[0]


def worker_pid(gateway: Gateway, model: str) -> int:
    return int(status(gateway, model)["replicas"][0]["pid"])


def ready(gateway: Gateway, model: str) -> bool:
    return gateway.get(f"/v2/models/{model}/ready").status == 200


def test_a_restart_that_takes_long_shows_everywhere_and_a_short_one_nowhere(models: Path, gateway: Start) -> None:
    running = gateway(
        {
            "server": {"readiness_strict": True},
            "models": [
                entry(models, "slow_load", name="slow", ready_grace="200ms"),
                entry(models, "slow_load", name="bridged", ready_grace="1h"),
            ],
        }
    )
    running.wait_ready()
    for model in ("slow", "bridged"):
        os.kill(worker_pid(running, model), signal.SIGKILL)
    until(lambda: not ready(running, "slow"), 10)
    server = running.get("/v2/health/ready")
    assert server.status == 503
    assert re.fullmatch(r"LOADING for .* s: its worker was killed by signal 9 .*", server.json()["reasons"]["slow/1"])
    assert list(server.json()["reasons"]) == ["slow/1"], "a short restart is bridged"
    assert (status(running, "slow")["state"], status(running, "bridged")["state"]) == ("LOADING", "READY")
    metrics = running.get("/metrics").body.decode()
    assert 'modelhub_model_ready{model="slow",version="1"} 0.0' in metrics
    assert 'modelhub_model_ready{model="bridged",version="1"} 1.0' in metrics
    assert 'modelhub_model_state{model="slow",state="READY",version="1"} 0.0' in metrics
    rows = {row["name"]: row["state"] for row in running.post("/v2/repository/index", {}).json()}
    assert rows == {"slow": "LOADING", "bridged": "READY"}
    running.wait_ready()
    assert status(running, "slow")["state"] == "READY"
    running.wait_log("slow/1 answers again, after")


@pytest.mark.parametrize("removed", ["all of it", "the socket", "what is in it"])
def test_a_removed_runtime_directory_keeps_no_worker_from_starting(
    models: Path, gateway: Start, tmp_path_factory: pytest.TempPathFactory, removed: str
) -> None:
    """As cleaners of temporary files do it."""
    base = tmp_path_factory.mktemp("run")
    running = gateway({"models": [entry(models, "identity")]}, env={"XDG_RUNTIME_DIR": str(base)})
    running.wait_ready()
    first = worker_pid(running, "identity")
    (directory,) = base.iterdir()
    if removed == "all of it":
        shutil.rmtree(directory)
    for path in list(directory.iterdir()) if directory.exists() else []:
        if path.is_dir() and removed != "the socket":
            shutil.rmtree(path)
        elif removed != "the socket" or path.suffix == ".sock":
            path.unlink()
    os.kill(first, signal.SIGKILL)
    assert running.infer("identity", one(3)).status == 200
    assert worker_pid(running, "identity") != first
    running.wait_log("workers.sock was removed")
    assert directory.stat().st_mode & 0o777 == 0o700


def fork_server(gateway: Gateway, model: str) -> int:
    return psutil.Process(worker_pid(gateway, model)).ppid()


def test_a_stopped_fork_server_is_ended_and_a_death_that_it_did_not_tell_is_noticed(
    models: Path, gateway: Start
) -> None:
    running = gateway({"models": [entry(models, "identity")]})
    running.wait_ready()
    first = worker_pid(running, "identity")
    os.kill(fork_server(running, "identity"), signal.SIGSTOP)
    os.kill(first, signal.SIGKILL)
    assert running.infer("identity", one(3)).status == 200
    assert worker_pid(running, "identity") != first
    assert "the fork server of environment shared was stopped for" in running.log()


def test_a_stopped_fork_server_keeps_neither_an_unload_nor_the_end(models: Path, gateway: Start) -> None:
    running = gateway({"models": [entry(models, "identity"), entry(models, "identity", name="other")]})
    running.wait_ready()
    os.kill(fork_server(running, "identity"), signal.SIGSTOP)
    assert running.post(f"{running.admin_url}/v2/repository/models/identity/unload").status == 200
    until(lambda: worker_pid(running, "other") > 0, 20)  # it had the same fork server
    os.kill(fork_server(running, "other"), signal.SIGSTOP)
    running.stop(timeout=20)
