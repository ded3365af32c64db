"""Workers that die, hang, leak and refuse to end: what becomes of their requests, their neighbours and themselves."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from modelhub.serving.workers.linux import cpus
from support.gateway_process import Answer, Gateway
from support.processes import survivors, until
from support.v2_client import tensor

Start = Callable[..., Gateway]

UNLOADABLE = ["exits_on_load", "raises_on_load", "raises_on_import"]
SECRETS = {"MLFLOW_TRACKING_PASSWORD": "hush", "MODELHUB_CLIENT_SECRET": "hush", "GIVEN": "yes"}


def one(value: float) -> list[dict[str, Any]]:
    return [tensor("input-0", "FP32", [1, 1], [value])]


def entry(models: Path, kind: str, **keys: Any) -> dict[str, Any]:
    return {"name": kind, "uri": str(models / kind), "environment": "shared", **keys}


@pytest.fixture(scope="module")
def arena(models: Path, module_gateway: Start) -> Gateway:
    """One gateway for all tests that break nothing but a model of their own, each named for its test."""
    entries = [
        entry(models, "identity"),
        entry(models, "slow_predict", name="killed"),
        entry(models, "killed_in_predict", name="poisoned"),
        entry(models, "killed_in_predict", name="no-retry", retry=False),
        entry(models, "segfaults", retry=False),
        entry(models, "hangs_forever", timeout="1s"),
        entry(models, "slow_predict", name="patient", timeout="20s"),
        entry(models, "identity", name="stopped", timeout="1s"),
        entry(models, "leaks_memory", limits={"memory": "300MiB"}),
        entry(models, "slow_predict", name="twins", replicas=2),
        entry(models, "spawns_children"),
        entry(models, "huge_output"),
        entry(models, "prints_a_lot"),
        entry(models, "killed_in_predict", name="spawned", start="spawn", threads=2),
        *(entry(models, name) for name in UNLOADABLE),
        entry(models, "identity", name="told", start="spawn", env=["GIVEN"]),
        entry(models, "inside", name="one-thread"),
        entry(models, "inside", name="three-threads", threads=3),
        entry(models, "inside", name="three-threads-spawned", threads=3, start="spawn"),
        entry(models, "inside", name="all-threads", threads="auto"),
    ]
    running = module_gateway({"server": {"log": {"format": "text"}}, "models": entries}, env=SECRETS)
    for each in entries:
        if each["name"] not in UNLOADABLE:
            running.wait_ready(each["name"])
    return running


def status(gateway: Gateway, model: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = [each for each in gateway.get("/status").json()["models"] if each["name"] == model]
    return found[0]


def worker_pid(gateway: Gateway, model: str) -> int:
    return int(status(gateway, model)["replicas"][0]["pid"])


def test_a_killed_worker_costs_nobody_an_answer(arena: Gateway) -> None:
    first = worker_pid(arena, "killed")
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(arena.infer, "killed", one(100 + index)) for index in range(8)]
        until(lambda: status(arena, "killed")["requests"]["in_flight"] == 2)
        os.kill(first, signal.SIGKILL)
        assert arena.infer("identity", one(5)).status == 200
        for index, answer in enumerate(answers):
            assert answer.result().status == 200, answer.result().body
            assert answer.result().json()["outputs"][0]["data"] == [100.0 + index]
    after = status(arena, "killed")
    assert after["replicas"][0]["pid"] != first
    assert after["replicas"][0]["restarts"] == 1
    assert after["state"] == "READY"
    assert re.search(r"killed/1: its worker was killed by signal 9 .*: it used .*[0-9.]+ MiB", arena.log())


def test_a_worker_that_takes_up_nothing_any_more_is_replaced(arena: Gateway) -> None:
    first = worker_pid(arena, "stopped")
    os.kill(first, signal.SIGSTOP)
    assert arena.infer("stopped", one(1)).status == 504
    until(lambda: arena.infer("stopped", one(1)).status == 200)
    assert worker_pid(arena, "stopped") != first
    arena.wait_log("stopped/1: its worker was killed: it took up no request for the timeout of 1 s")


@pytest.mark.parametrize(
    ("model", "threads"),
    [("one-thread", 1), ("three-threads", 3), ("three-threads-spawned", 3), ("all-threads", cpus())],
)
def test_numeric_libraries_get_the_threads_of_the_entry(arena: Gateway, model: str, threads: int) -> None:
    *_, blas, limit = arena.infer(model, one(0)).json()["outputs"][0]["data"]
    assert limit == threads
    assert blas == (threads if "spawned" not in model else min(threads, os.cpu_count() or 1)), "as OpenBLAS does"


def test_workers_of_one_fork_server_do_not_draw_the_same_random_numbers(arena: Gateway) -> None:
    drawn = [
        number
        for model in ("one-thread", "three-threads")
        for number in arena.infer(model, one(0)).json()["outputs"][0]["data"][:2]
    ]
    assert len(set(drawn)) == 4, drawn


def test_a_request_that_kills_its_worker_fails_alone(arena: Gateway) -> None:
    with ThreadPoolExecutor(9) as pool:
        poison = pool.submit(arena.infer, "poisoned", one(666))
        others = [pool.submit(arena.infer, "poisoned", one(index)) for index in range(8)]
        assert [other.result().status for other in others] == [200] * 8
        answer = poison.result()
    assert answer.status == 503
    assert "killed by signal 9" in answer.json()["error"]
    assert status(arena, "poisoned")["replicas"][0]["restarts"] == 2, "begun, retried once, no more"


def test_without_retry_a_begun_request_is_answered_at_once(arena: Gateway) -> None:
    answer = arena.infer("no-retry", one(666))
    assert answer.status == 503
    assert arena.infer("no-retry", one(1)).status == 200
    assert status(arena, "no-retry")["replicas"][0]["restarts"] == 1


def test_a_segfault_is_survived(arena: Gateway) -> None:
    assert arena.infer("segfaults", one(666)).status == 503
    assert arena.infer("segfaults", one(1)).status == 200
    assert "SIGSEGV" in arena.log()
    arena.wait_log("segfaults.py")  # where: the last frames are in the log


def test_a_segfault_while_the_model_reads_its_own_stderr_is_told_all_the_same(arena: Gateway) -> None:
    before = arena.log().count("Fatal Python error: Segmentation fault")
    assert arena.infer("segfaults", one(667)).status == 503
    until(lambda: arena.log().count("Fatal Python error: Segmentation fault") > before)
    assert arena.infer("segfaults", one(1)).status == 200


def test_a_hanging_prediction_is_answered_and_its_worker_replaced(arena: Gateway) -> None:
    first = worker_pid(arena, "hangs_forever")
    answer = arena.infer("hangs_forever", one(666))
    assert answer.status == 504, answer.body
    until(lambda: arena.infer("hangs_forever", one(1)).status == 200)
    assert worker_pid(arena, "hangs_forever") != first
    assert "ran longer than the timeout" in arena.log()


def test_a_clients_own_short_deadline_kills_no_worker(arena: Gateway) -> None:
    first = worker_pid(arena, "patient")
    path, body = "/v2/models/patient/infer", {"inputs": one(1500)}
    answer = arena.post(path, body, {"X-Request-Timeout": "50ms"})
    assert answer.status == 504
    assert arena.infer("patient", one(1)).status == 200, "it waited for the one before it"
    assert worker_pid(arena, "patient") == first


def test_a_leak_is_ended_at_the_limit(arena: Gateway) -> None:
    first = worker_pid(arena, "leaks_memory")
    for _ in range(8):  # its end may come while a request runs, which is then retried
        assert arena.infer("leaks_memory", one(50)).status == 200
    until(lambda: worker_pid(arena, "leaks_memory") not in (0, first))
    arena.wait_log("its limit is 300 MiB")
    assert status(arena, "leaks_memory")["state"] == "READY"
    assert 'modelhub_worker_restarts_total{model="leaks_memory",reason="memory"' in metrics(arena)


@pytest.mark.parametrize("model", UNLOADABLE)
def test_a_model_that_cannot_be_loaded_fails_alone_and_says_why(arena: Gateway, model: str) -> None:
    until(lambda: status(arena, model)["state"] == "FAILED")
    answer = arena.infer(model, one(1))
    assert answer.status == 503
    assert "FAILED" in answer.json()["error"]
    assert int(answer.headers["retry-after"]) >= 1
    ready = arena.get("/v2/health/ready")
    assert ready.status == 503
    assert model in str(ready.json()["reasons"])
    failed = f'modelhub_model_state{{model="{model}",state="FAILED",version="1"}} 1'
    until(lambda: failed in metrics(arena))  # it may just be tried again
    assert arena.infer("identity", one(1)).status == 200


def metrics(running: Gateway) -> str:
    return running.get("/metrics").body.decode()


def test_replicas_share_a_queue_and_one_takes_only_itself(arena: Gateway) -> None:
    replicas = until(lambda: ready_replicas(arena, "twins")[1:] and ready_replicas(arena, "twins"))
    with ThreadPoolExecutor(12) as pool:
        answers = [pool.submit(arena.infer, "twins", one(100)) for _ in range(12)]
        until(lambda: status(arena, "twins")["requests"]["in_flight"] == 4)
        os.kill(replicas[0]["pid"], signal.SIGKILL)
        assert [answer.result().status for answer in answers] == [200] * 12
    assert sorted(replica["restarts"] for replica in status(arena, "twins")["replicas"]) == [0, 1]


def ready_replicas(running: Gateway, model: str) -> list[dict[str, Any]]:
    return [replica for replica in status(running, model)["replicas"] if replica["state"] == "ready"]


def test_what_a_worker_started_ends_with_it(arena: Gateway) -> None:
    child = psutil.Process(int(arena.infer("spawns_children", one(0)).json()["outputs"][0]["data"][0]))
    assert child.name() == "sleep"
    os.kill(worker_pid(arena, "spawns_children"), signal.SIGKILL)
    assert not survivors([child], 2)


def test_a_huge_answer_arrives_whole(arena: Gateway) -> None:
    body = {"inputs": one(48), "parameters": {"binary_data_output": True}}
    answer: Answer = arena.post("/v2/models/huge_output/infer", body)
    assert answer.status == 200
    size = int(answer.headers["inference-header-content-length"])
    assert len(answer.body) - size == 48 << 20


def test_a_flood_of_output_is_cut_and_said(arena: Gateway) -> None:
    assert arena.infer("prints_a_lot", one(2000)).status == 200
    arena.wait_log("[prints_a_lot/1] line 0 ")
    arena.wait_log("more lines were printed than the 200 per second that are logged")


def test_a_worker_says_where_it_is_when_asked(arena: Gateway) -> None:
    """`kill -USR1`: what operators do when a load or a prediction hangs; it goes on."""
    pid = worker_pid(arena, "one-thread")
    os.kill(pid, signal.SIGUSR1)
    arena.wait_log("[one-thread/1] Current thread 0x")
    arena.wait_log("workers/loop/loop.py")
    assert worker_pid(arena, "one-thread") == pid
    assert arena.infer("one-thread", one(0)).status == 200


def test_spawned_workers_behave_like_forked_ones(arena: Gateway) -> None:
    pid = worker_pid(arena, "spawned")
    assert " ".join(psutil.Process(pid).cmdline()).startswith("modelhub: worker spawned/1")
    assert psutil.Process(pid).environ()["OMP_NUM_THREADS"] == "2"
    os.kill(pid, signal.SIGKILL)
    assert arena.infer("spawned", one(1)).status == 200


def test_a_worker_knows_no_secrets_and_holds_no_strangers_descriptors(arena: Gateway) -> None:
    worker = psutil.Process(worker_pid(arena, "identity"))
    server = worker.parent()
    assert server is not None
    told = psutil.Process(worker_pid(arena, "told")).environ()
    assert told["GIVEN"] == "yes"
    assert "GIVEN" not in server.environ()
    assert "hush" not in str([worker.environ(), server.environ(), told])
    assert not worker.net_connections("tcp")
    mine, theirs = open_files(worker.pid), open_files(server.pid)
    assert not {name for name in mine & theirs if name.startswith(("socket:", "pipe:"))}


def open_files(pid: int) -> set[str]:
    return {os.readlink(f"/proc/{pid}/fd/{number}") for number in os.listdir(f"/proc/{pid}/fd")}


# ---- what ends more than a model: a gateway each ------------------------------------------------


def test_the_end_of_a_fork_server_loses_no_request(gateway: Start, models: Path) -> None:
    names = ["slow_predict", "identity"]
    running = gateway({"models": [entry(models, name) for name in [*names, "spawns_children"]]})
    running.wait_ready()
    old = [worker_pid(running, name) for name in names]
    (sleep,) = (each for each in running.processes() if each.name() == "sleep")
    fork_server = psutil.Process(old[0]).parent()
    assert fork_server is not None
    assert "fork server" in " ".join(fork_server.cmdline())
    processes = [*(psutil.Process(pid) for pid in old), sleep]
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(running.infer, names[index % 2], one(50)) for index in range(8)]
        fork_server.kill()
        assert not survivors(processes, 2), "its workers end with it, and what they have started"
        assert [answer.result().status for answer in answers] == [200] * 8
    assert not set(old) & {worker_pid(running, name) for name in names}


def test_nothing_survives_a_killed_gateway(gateway: Start, models: Path) -> None:
    names = ["spawns_children", "ignores_sigterm", "identity"]
    running = gateway({"models": [entry(models, name) for name in names]})
    running.wait_ready()
    below = running.processes()
    assert any(process.name() == "sleep" for process in below)
    running.signal(signal.SIGKILL)
    assert not survivors(below, 2)


def test_a_gateway_stops_whatever_its_models_do(gateway: Start, models: Path) -> None:
    names = ["ignores_sigterm", "hangs_forever", "changes_cwd_and_signals"]
    entries = [entry(models, name) for name in names]
    running = gateway({"server": {"shutdown_grace": "1s"}, "models": entries})
    running.wait_ready()
    with ThreadPoolExecutor(3) as pool:
        for name in names:
            pool.submit(_ask_to_the_end, running, name)
        until(lambda: status(running, "hangs_forever")["requests"]["in_flight"])
        running.stop(timeout=15)


def _ask_to_the_end(running: Gateway, model: str) -> None:
    try:
        running.infer(model, one(666))
    except OSError:
        pass  # the gateway went away, as it was told to
