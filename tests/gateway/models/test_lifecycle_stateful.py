"""Loads, unloads, evictions, new versions, kills, hangs and requests in random order: what must hold in any order.

Every request is answered exactly once and in time, with its own numbers or with an error that says why; nothing
is left queued or held; the gateway itself never fails; afterwards every model can be loaded and answers.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import psutil
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from support.gateway_process import Answer, Gateway
from support.processes import until
from support.v2_client import tensor

MODELS = {
    "plain": "identity",
    "slow": "slow_predict",
    "hanging": "hangs_forever",
    "lazy-a": "identity",
    "lazy-b": "slow_predict",
    "lazy-c": "slow_load",
}
#: A model that takes three seconds to load gives its first request longer.
TIMEOUTS = {"slow_load": "8s"}
names = st.sampled_from(sorted(MODELS))


def ask(running: Gateway, model: str, value: float) -> Answer:
    return running.infer(model, [tensor("input-0", "FP32", [1, 1], [value])], timeout=30)


class Lifecycle(RuleBasedStateMachine):
    running: ClassVar[Gateway]

    def __init__(self) -> None:
        super().__init__()
        self.pool = ThreadPoolExecutor(32)
        self.asked: list[tuple[str, float, Future[Answer]]] = []
        self.value = 0

    # ---- what may happen ----------------------------------------------------------------------

    @rule(model=names, count=st.integers(1, 4))
    def request(self, model: str, count: int) -> None:
        for _ in range(count):
            self.value += 1
            self.send(model, float(self.value % 300))

    @rule()
    def hang(self) -> None:
        self.send("hanging", 666.0)

    def send(self, model: str, value: float) -> None:
        self.asked.append((model, value, self.pool.submit(ask, self.running, model, value)))

    @rule(model=names)
    def kill_worker(self, model: str) -> None:
        for each in self.status():
            if each["name"] == model:
                for replica in each["replicas"]:
                    if replica["pid"]:
                        end(replica["pid"])

    @rule()
    def kill_fork_server(self) -> None:
        for process in self.running.processes():
            if "fork server" in name_of(process):
                end(process.pid)

    @rule(model=names)
    def unload(self, model: str) -> None:
        self.pool.submit(self.running.post, f"/v2/repository/models/{model}/unload")

    @rule(model=names)
    def load(self, model: str) -> None:
        self.pool.submit(self.running.post, f"/v2/repository/models/{model}/load")

    @rule(model=names, threads=st.integers(1, 3))
    def roll(self, model: str, threads: int) -> None:
        """A version with another entry is brought beside the one that serves, and takes over."""
        config = json.dumps({"threads": threads})
        path = f"/v2/repository/models/{model}/load"
        self.pool.submit(self.running.post, path, {"parameters": {"config": config}})

    @rule()
    def kill_what_loads(self) -> None:
        """Whatever is on its way up or down loses its process."""
        for each in self.status():
            if each["state"] not in ("READY", "UNLOADED"):
                for replica in each["replicas"]:
                    if replica["pid"]:
                        end(replica["pid"])

    # ---- what must hold -----------------------------------------------------------------------

    @invariant()
    def the_gateway_answers(self) -> None:
        assert self.running.get("/v2/health/live", timeout=5).status == 200

    def teardown(self) -> None:
        for model, value, future in self.asked:
            answer = future.result(timeout=40)
            if answer.status == 200:
                assert answer.json()["outputs"][0]["data"] == [value], (model, value, answer.body)
            else:
                assert answer.status in (503, 504), (model, answer.status, answer.body)
                assert answer.json()["error"]
        self.pool.shutdown(wait=True)
        for model in sorted(MODELS):
            self.running.post(f"/v2/repository/models/{model}/load")
        for model in MODELS:
            until(lambda model=model: ask(self.running, model, 1).status == 200, 60)  # type: ignore[misc]
        until(lambda: sorted(each["name"] for each in self.status()) == sorted(MODELS), 60)
        until(
            lambda: not any(each["requests"]["in_flight"] or each["requests"]["queued"] for each in self.status()), 60
        )
        workers = [process for process in self.running.processes() if ": worker " in name_of(process)]
        expected = sum(len(each["replicas"]) for each in self.status())
        assert len(workers) == expected
        assert sum(each["name"].startswith("lazy") and each["state"] == "READY" for each in self.status()) <= 1
        assert "Traceback" not in without_models(self.running.log())

    def status(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.running.get("/status").json()["models"]
        return found


def name_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def without_models(log: str) -> str:
    """The gateway's own lines; a model may print what it likes."""
    return "\n".join(line for line in log.splitlines() if '"source"' not in line)


def end(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


@pytest.mark.timeout(280)
def test_any_order_of_events(module_gateway: Callable[..., Gateway], models: Path) -> None:
    entries = [
        {"name": name, "uri": str(models / kind), "timeout": TIMEOUTS.get(kind, "3s")} for name, kind in MODELS.items()
    ]
    lazy = [entry for entry in entries if entry["name"].startswith("lazy")]
    config = {
        "defaults": {"environment": "shared"},
        "models": [entry for entry in entries if entry not in lazy],
        "groups": [{"name": "lazy", "load": "lazy", "max_loaded": 1, "idle_timeout": "2s", "models": lazy}],
    }
    Lifecycle.running = module_gateway(config)
    Lifecycle.running.wait_ready()
    run_state_machine_as_test(
        Lifecycle,
        settings=settings(
            max_examples=5,
            stateful_step_count=12,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
