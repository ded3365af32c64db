"""Which versions there are: defaults of a name, folders that are watched, hundreds of entries, `modelhub reload`."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from support.gateway_process import MODELHUB, Gateway
from support.group_configs import SHARED, copies, group, models_of, one, states
from support.processes import until

Start = Callable[..., Gateway]


def served_by(running: Gateway, name: str = "m") -> str:
    return str(running.infer(name, one(1)).json()["model_version"])


def versions(models: Path, **of: dict[str, Any]) -> list[dict[str, Any]]:
    """Entries of one name: `v2={…}` is version 2 with these keys."""
    uri = str(models / "identity")
    return [{"name": "m", "uri": uri, "version": label.removeprefix("v"), **keys} for label, keys in of.items()]


@pytest.mark.parametrize("load", ["eager", "lazy"])
def test_a_request_that_names_no_version_gets_the_newest(gateway: Start, models: Path, load: str) -> None:
    """By number, and whatever is loaded."""
    running = gateway(group(versions(models, v9={}, v10={}, v2={}), load))
    until(lambda: load == "lazy" or {each["state"] for each in models_of(running)} == {"READY"})
    answer = running.post("/v2/models/m/versions/9/infer", {"inputs": one(1)})
    assert answer.json()["model_version"] == "9"
    assert served_by(running) == "10"


def test_the_newest_that_can_be_loaded_answers(gateway: Start, models: Path) -> None:
    entries = versions(models, v1={}, v2={"uri": str(models / "raises_on_load")})
    running = gateway({"defaults": SHARED, "models": entries})
    running.wait_ready()
    until(lambda: "FAILED" in {each["state"] for each in models_of(running)})
    assert served_by(running) == "1"


def test_a_default_version_answers_whatever_is_newer(gateway: Start, models: Path) -> None:
    running = gateway({"defaults": SHARED, "models": versions(models, v1={"default": True}, v2={})})
    running.wait_ready()
    assert served_by(running) == "1"
    assert running.post("/v2/models/m/versions/2/infer", {"inputs": one(1)}).json()["model_version"] == "2"
    assert running.post("/v2/repository/models/m/versions/1/unload").status == 200
    assert running.infer("m", one(1)).status == 503, "another version does not stand in for it"


# ---- folders -------------------------------------------------------------------------------------------


def test_a_folder_is_read_again_while_it_is_served(gateway: Start, models: Path, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    for name in ("a", "b"):
        shutil.copytree(models / "identity", folder / name)
    entries = [{"name": "own", "uri": str(models / "identity")}]
    running = gateway(group(entries, **{"from": {"folder": str(folder)}}))
    assert {name: running.infer(name, one(1)).status for name in ("a", "b", "own")} == {"a": 200, "b": 200, "own": 200}
    pids = {each["name"]: each["replicas"][0]["pid"] for each in models_of(running)}

    shutil.copytree(models / "pair", folder / "c")
    (folder / "no name for a model").mkdir()
    shutil.copy(models / "identity" / "MLmodel", folder / "no name for a model")
    shutil.rmtree(folder / "a")
    until(lambda: set(states(running)) == {"own", "b", "c"})
    assert running.get("/v2/models/c").json()["inputs"][0]["name"] == "left"
    assert running.infer("a", one(1)).status == 404
    now = {each["name"]: each["replicas"][0]["pid"] for each in models_of(running) if each["replicas"]}
    assert now == {name: pids[name] for name in ("b", "own")}, "the rest is left alone"
    running.wait_log("no name for a model is not served")

    new = tmp_path / "new"
    shutil.copytree(models / "slow_predict", new)
    os.replace(new / "MLmodel", folder / "b" / "MLmodel")
    shutil.copytree(new, folder / "b", dirs_exist_ok=True)
    until(lambda: pid_of(running, "b") not in (0, pids["b"]))
    assert running.infer("b", one(1)).status == 200
    assert running.log().count("the folder of group all has changed") == 2, "a look without news says nothing"


def pid_of(running: Gateway, name: str) -> int:
    found = [each for each in models_of(running) if each["name"] == name]
    return found[0]["replicas"][0]["pid"] if len(found) == 1 and found[0]["replicas"] else 0


# ---- many ----------------------------------------------------------------------------------------------


def test_five_hundred_models_are_ready_at_once(gateway: Start, models: Path, tmp_path: Path) -> None:
    kinds = ("iris", "digits", "sentiment", "identity", "pair")
    entries = []
    for number in range(500):
        path = tmp_path / f"m{number}"
        shutil.copytree(models / kinds[number % len(kinds)], path)
        entries.append({"name": path.name, "uri": str(path)})
    running = gateway(group(entries, memory_budget="1GiB"))
    running.wait_ready()
    assert psutil.Process(running.pid).memory_info().rss < 150 << 20  # bench/lazy.py prints the CPU time
    assert not running.processes(), "nothing is started before it is needed"
    assert len(running.get("/metrics").body) < 500_000


# ---- the command ---------------------------------------------------------------------------------------


def reload(running: Gateway, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(MODELHUB), "reload", *arguments, f"--server.state_dir={running.state_dir}"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def config_metrics(running: Gateway) -> tuple[str, float]:
    """Whether the last reload was taken, and when the configuration in force was read."""
    text = running.get("/metrics").body.decode()
    found = dict(re.findall(r"^modelhub_config_last_reload_(\w+) (\S+)$", text, re.MULTILINE))
    return found["successful"], float(found["success_timestamp_seconds"])


def test_the_metrics_say_whether_the_last_reload_was_taken(gateway: Start, models: Path) -> None:
    before = time.time()
    running = gateway({"server": {"admin": 0}, "defaults": SHARED, "models": copies(models, 1)})
    assert isinstance(running.config, Path)
    taken, at = config_metrics(running)
    assert (taken, before < at < time.time()) == ("1.0", True)
    text = running.config.read_text()
    running.config.write_text("models: [{name: m0, urn: nowhere}]\n")
    assert reload(running).returncode == 2
    assert config_metrics(running) == ("0.0", at), "the configuration in force is the one from before"
    running.config.write_text(text)
    assert reload(running).returncode == 0
    taken, again = config_metrics(running)
    assert (taken, again > at) == ("1.0", True)


def test_the_command_reloads_the_gateway_that_runs_here(gateway: Start, models: Path, tmp_path: Path) -> None:
    running = gateway({"server": {"admin": 0}, "defaults": SHARED, "models": copies(models, 1)})
    assert isinstance(running.config, Path)
    text = running.config.read_text()
    done = reload(running)
    assert (done.returncode, done.stdout) == (0, "nothing has changed\n")
    running.config.write_text(text.replace("name: m0", "name: renamed"))
    done = reload(running, running.admin_url)
    assert (done.returncode, done.stdout) == (0, "1 added, 1 removed\n")
    changed = yaml.safe_load(text.replace("name: m0", "name: renamed"))
    running.config.write_text(yaml.safe_dump({**changed, "server": {**changed["server"], "max_body": "1MiB"}}))
    assert reload(running).stdout == "nothing has changed\n"
    running.wait_log("server.max_body changed: that takes effect at the next start")
    running.config.write_text("models: [{name: m0, urn: nowhere}]\n")
    done = reload(running)
    assert (done.returncode, "nothing was changed" in done.stderr, "urn" in done.stderr) == (2, True, True)
    closed = reload(running, running.url)
    assert (closed.returncode, "server.admin" in closed.stderr) == (1, True)
    nobody = subprocess.run(
        [sys.executable, str(MODELHUB), "reload", f"--server.state_dir={tmp_path}"], capture_output=True, check=False
    )
    assert (nobody.returncode, b"no gateway is running here" in nobody.stderr) == (1, True)
