"""A gateway whose MLflow server is away: what it has fetched once, it starts, loads and loads again."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from support.flaky_proxy import FlakyProxy
from support.gateway_process import Gateway
from support.processes import until

Start = Callable[..., Gateway]
RECORDS = {"dataframe_records": [{"x": 1}]}


def point(mlflow_server: str, alias: str, version: int) -> None:
    """The alias means this version from now on; 0: there is no such alias."""
    facts = {"name": "echo", "alias": alias, **({"version": str(version)} if version else {})}
    url, headers = f"{mlflow_server}/api/2.0/mlflow/registered-models/alias", {"Content-Type": "application/json"}
    how = "POST" if version else "DELETE"
    with urllib.request.urlopen(urllib.request.Request(url, json.dumps(facts).encode(), headers, method=how)) as answer:
        assert answer.status == 200


@pytest.fixture
def alias(mlflow_server: str, logged: Any) -> Iterator[Callable[[int], None]]:
    """`alias(2)`: models:/echo@moves means version 2."""
    yield partial(point, mlflow_server, "moves")
    point(mlflow_server, "moves", 0)


def rows(gateway: Gateway) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in gateway.get("/status").json()["models"] if each["state"] == "READY"}


def stale(gateway: Gateway) -> list[str]:
    return [
        line for line in gateway.get("/metrics").body.decode().splitlines() if line.startswith("modelhub_model_stale{")
    ]


@pytest.mark.parametrize("mode", ["away", "stuck"])
def test_a_start_a_load_and_a_load_after_an_unload_ask_nobody_who_is_away(
    mlflow_server: str,
    logged: Any,
    alias: Callable[[int], None],
    gateway: Start,
    tmp_path_factory: pytest.TempPathFactory,
    mode: str,
) -> None:
    alias(1)
    state = tmp_path_factory.mktemp("state")
    keys = {"environment": "shared"}
    config = {
        "server": {"state_dir": str(state)},
        "models": [
            {"name": "pinned", "uri": "models:/echo/2", **keys},
            {"name": "run", "uri": f"runs:/{logged.run_1}/model", **keys},
            {"name": "alias", "uri": "models:/echo@moves", **keys},
        ],
        "groups": [{"name": "g", "load": "lazy", "models": [{"name": "lazy", "uri": "models:/echo/1", **keys}]}],
    }
    with FlakyProxy(mlflow_server) as proxy:
        env = {"MLFLOW_TRACKING_URI": proxy.url}
        first = gateway(config, env=env)
        first.wait_ready(timeout=90)
        first.stop()
        proxy.become(mode)
        running = gateway(config, env=env)
        running.wait_ready()
        assert running.post("/models/lazy/invocations", RECORDS).status == 200
        load = f"{running.admin_url}/v2/repository/models/pinned"
        assert running.post(f"{load}/unload").status == 200
        assert running.post(f"{load}/load").status == 200
        said = rows(running)
        assert [name for name, row in said.items() if row["stale"]] == ["alias"]
        assert [line[-3:] for line in sorted(stale(running))] == ["1.0", "0.0", "0.0", "0.0"]
        running.wait_log("alias/1: models:/echo@moves is served as it was known last, and asked for again: ")
        alias(2)
        proxy.become("there")
        until(lambda: rows(running)["alias"]["version"] == "2", 90)
        assert rows(running)["alias"]["stale"] == ""
        assert sum(1 for line in stale(running) if line.endswith("1.0")) == 0


def test_a_byte_that_has_changed_on_disk_costs_one_download_and_no_model(
    mlflow_server: str, logged: Any, gateway: Start
) -> None:
    entry = {"name": "echo", "uri": "models:/echo/1", "environment": "shared"}
    running = gateway({"models": [entry]}, env={"MLFLOW_TRACKING_URI": mlflow_server})
    running.wait_ready(timeout=90)
    control = f"{running.admin_url}/v2/repository/models/echo"
    for number, name in enumerate(("echo.py", "MLmodel"), 1):
        assert running.post(f"{control}/unload").status == 200
        (file,) = (running.state_dir / "artifacts").rglob(name)
        content = file.read_bytes()
        file.chmod(0o600)
        file.write_bytes(content.replace(b":", b"(", 1).replace(b"\n", b"\t", 1))
        assert running.post(f"{control}/load").status == 200
        assert file.read_bytes() == content
        assert running.log().count("has changed on disk since it was fetched: it is fetched anew") == number
    before = file.stat().st_ino
    assert running.post(f"{control}/load", {"parameters": {"fetch": True}}).status == 200
    assert file.stat().st_ino != before
    answer = running.post(f"{control}/load", {"parameters": {"fetch": "yes"}})
    assert (answer.status, "parameters.fetch" in answer.json()["error"]) == (400, True)
    assert running.post("/invocations", RECORDS).status == 200
