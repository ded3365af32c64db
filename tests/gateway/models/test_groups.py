"""Groups in a real gateway: lazy loading, eviction, budgets, idle models; and what operators and reloads do."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import yaml

from support.gateway_process import Gateway
from support.group_configs import SHARED, copies, group, metrics, one, states
from support.processes import until

Start = Callable[..., Gateway]


def test_models_are_loaded_by_their_first_request_and_the_idle_one_leaves(gateway: Start, models: Path) -> None:
    running = gateway(group(copies(models, 4), max_loaded=2))
    running.wait_ready()  # at once: every model could be loaded
    assert set(states(running).values()) == {"UNLOADED"}
    assert running.get("/v2/models/m3/ready").status == 200
    assert running.get("/v2/models/m3").json()["inputs"] == [{"name": "input-0", "datatype": "FP32", "shape": [-1, -1]}]
    for name in ("m0", "m1", "m0", "m2"):
        assert running.infer(name, one(1)).status == 200
    assert states(running) == {"m0": "READY", "m1": "UNLOADED", "m2": "READY", "m3": "UNLOADED"}
    index = {row["name"]: row for row in running.post("/v2/repository/index").json()}
    assert index["m1"]["state"] == "UNAVAILABLE"
    assert "evicted to make room for m2" in index["m1"]["reason"]
    assert index["m3"]["reason"] == "not loaded"


def test_a_hundred_first_requests_are_one_load(gateway: Start, models: Path) -> None:
    running = gateway(group(copies(models, 1)))
    with ThreadPoolExecutor(100) as pool:
        answers = [pool.submit(running.infer, "m0", one(number)) for number in range(100)]
        assert [answer.result().json()["outputs"][0]["data"] for answer in answers] == [[n] for n in range(100)]
    (model,) = running.get("/status").json()["models"]
    assert [replica["generation"] for replica in model["replicas"]] == [1]
    assert 'modelhub_state_changes_total{model="m0",state="LOADING",version="1"} 1.0' in metrics(running)


def test_busy_and_pinned_models_stay(gateway: Start, models: Path) -> None:
    entries = copies(models, 3, "slow_predict")
    entries[0]["pinned"] = True
    running = gateway(group(entries, max_loaded=2))
    assert running.infer("m0", one(1)).status == 200
    assert running.infer("m1", one(1)).status == 200
    with ThreadPoolExecutor(2) as pool:
        busy = pool.submit(running.infer, "m1", one(1500))
        until(lambda: running.get("/status").json()["models"][1]["requests"]["in_flight"] == 1)
        started = time.monotonic()
        assert running.infer("m2", one(1)).status == 200, "it waits until m1 is idle"
        assert time.monotonic() - started > 0.5
        assert busy.result().status == 200
    assert states(running) == {"m0": "READY", "m1": "UNLOADED", "m2": "READY"}


def test_where_nothing_may_leave_the_answer_names_what_holds_the_budget(gateway: Start, models: Path) -> None:
    entries = copies(models, 2)
    entries[0]["pinned"] = True
    running = gateway(group(entries, max_loaded=1))
    assert running.infer("m0", one(1)).status == 200
    answer = running.infer("m1", one(1))
    assert answer.status == 503
    assert "max_loaded 1" in answer.json()["error"]
    assert "m0/1" in answer.json()["error"]
    assert "retry-after" in answer.headers
    assert running.infer("m0", one(1)).status == 200


def test_a_budget_of_measured_bytes_is_kept(gateway: Start, models: Path) -> None:
    """Each model holds 60 MiB of its own after its first prediction."""
    running = gateway(group(copies(models, 6, "leaks_memory"), memory_budget="250MiB"))
    for name in [f"m{number}" for number in range(6)]:
        assert running.infer(name, one(60)).status == 200
    until(lambda: used(running) < 250 << 20 and "evicted" in str(running.post("/v2/repository/index").json()))
    running.stop()
    assert (running.state_dir / "memory.json").exists()


def used(running: Gateway) -> int:
    found = running.get("/status").json()["models"]
    measured = [replica["memory_private"] for model in found for replica in model["replicas"]]
    return sum(measured) if all(measured) else 1 << 40


def test_idle_models_leave_and_come_back(gateway: Start, models: Path) -> None:
    running = gateway(group(copies(models, 1), idle_timeout="1s"))
    assert running.infer("m0", one(1)).status == 200
    until(lambda: states(running)["m0"] == "UNLOADED")
    assert "idle for 1 s" in str(running.post("/v2/repository/index").json())
    assert running.infer("m0", one(1)).status == 200


def test_a_model_that_fails_to_load_lazily_says_so_and_is_not_hammered(gateway: Start, models: Path) -> None:
    running = gateway(group([{"name": "bad", "uri": str(models / "raises_on_load")}]))
    answers = [running.infer("bad", one(1)) for _ in range(3)]
    assert [answer.status for answer in answers] == [503] * 3
    assert "this model refuses to load" in answers[0].json()["error"]
    assert running.get("/v2/models/bad/ready").status == 503
    assert 'modelhub_state_changes_total{model="bad",state="LOADING",version="1"} 1.0' in metrics(running)


def test_operators_load_and_unload(gateway: Start, models: Path) -> None:
    running = gateway({"defaults": SHARED, "models": copies(models, 2)})
    running.wait_ready()
    assert running.post("/v2/repository/models/m0/unload").status == 200
    assert states(running)["m0"] == "UNLOADED"
    assert running.get("/v2/models/m0/ready").status == 503
    answer = running.infer("m0", one(1))
    assert (answer.status, "unloaded by an operator" in answer.json()["error"]) == (503, True)
    assert running.infer("m1", one(1)).status == 200
    assert running.post("/v2/repository/models/m0/load").status == 200
    assert running.infer("m0", one(1)).status == 200
    other = running.post("/v2/repository/models/nobody/load")
    assert other.status == 404
    config = {"parameters": {"config": '{"replicas": 2}'}}
    assert running.post("/v2/repository/models/m0/load", config).status == 200
    until(lambda: [len(each["replicas"]) for each in running.get("/status").json()["models"]] == [2, 1])
    wrong = running.post("/v2/repository/models/m0/load", {"parameters": {"config": '{"replica": 2}'}})
    assert (wrong.status, "replica" in wrong.json()["error"]) == (400, True)


@pytest.mark.parametrize("how", ["signal", "route"])
def test_a_reload_adds_removes_and_changes_and_leaves_the_rest_alone(gateway: Start, models: Path, how: str) -> None:
    running = gateway({"defaults": SHARED, "models": copies(models, 3)})
    running.wait_ready()
    before = {each["name"]: each["replicas"][0]["pid"] for each in running.get("/status").json()["models"]}
    content = yaml.safe_load(running.config.read_text())  # type: ignore[union-attr]
    content["models"] = [
        content["models"][0],
        {**content["models"][1], "uri": str(models / "killed_in_predict")},
        {"name": "new", "uri": str(models / "identity")},
    ]
    write(running, yaml.safe_dump(content))
    if how == "signal":
        psignal(running)
        running.wait_log("configuration reloaded")
    else:
        answer = running.post(f"{running.admin_url}/admin/reload")
        assert answer.json() == {"changes": "1 added, 1 changed, 1 removed"}
    running.wait_ready("new")
    until(lambda: running.infer("m2", one(1)).status == 404)
    until(lambda: pids(running).get("m1") not in (0, before["m1"]))
    assert pids(running)["m0"] == before["m0"]
    assert running.infer("m1", one(1)).status == 200

    write(running, "models: [{name: m0, urn: nowhere}]\n")
    answer = running.post(f"{running.admin_url}/admin/reload")
    assert answer.status == 400
    assert "did you mean" in answer.json()["error"].lower() or "uri" in answer.json()["error"]
    assert running.infer("m0", one(1)).status == 200


def test_a_hangup_while_it_starts_is_a_reload(gateway: Start, models: Path, tmp_path: Path) -> None:
    """The configuration is a pipe: so it is known when the gateway has begun to read it."""
    first, second = (yaml.safe_dump({"defaults": SHARED, "models": copies(models, number)}) for number in (1, 2))
    config, new = tmp_path / "models.yaml", tmp_path / "new.yaml"
    os.mkfifo(config)

    def hang_up() -> None:
        with config.open("w") as pipe:  # opens when the gateway opens it
            (pid,) = (
                each.pid for each in psutil.process_iter(["cmdline"]) if str(config) in (each.info["cmdline"] or ())
            )
            os.kill(pid, signal.SIGHUP)
            new.write_text(second)
            new.replace(config)
            pipe.write(first)

    with ThreadPoolExecutor(1) as pool:
        hung_up = pool.submit(hang_up)
        running = gateway(config)
        hung_up.result()
    running.wait_log("configuration reloaded")
    until(lambda: set(states(running)) == {"m0", "m1"})


def write(running: Gateway, text: str) -> None:
    assert isinstance(running.config, Path)
    running.config.write_text(text)


def psignal(running: Gateway) -> None:
    os.kill(running.pid, signal.SIGHUP)


def pids(running: Gateway) -> dict[str, int]:
    found = running.get("/status").json()["models"]
    return {each["name"]: each["replicas"][0]["pid"] for each in found if each["replicas"] and each["state"] == "READY"}


def test_a_hundred_cycles_of_load_and_unload_leave_nothing_behind(gateway: Start, models: Path) -> None:
    running = gateway({"defaults": SHARED, "models": copies(models, 2)})
    running.wait_ready()
    process = psutil.Process(running.pid)

    def cycle(times: int) -> tuple[int, int, int, int]:
        for _ in range(times):
            assert running.post("/v2/repository/models/m0/unload").status == 200
            assert running.post("/v2/repository/models/m0/load").status == 200
        below = len(running.processes())
        descriptors = sum(each.num_fds() for each in [process, *running.processes()])
        threads = sum(each.num_threads() for each in [process, *running.processes()])
        return below, descriptors, threads, process.memory_info().rss

    first = cycle(10)
    last = cycle(90)
    assert last[0] == first[0]
    assert last[1] <= first[1] + 2, "descriptors"
    assert last[2] <= first[2], "threads"
    assert last[3] - first[3] < 12 << 20
