"""When a worker that has ended is started again, and what ends the patience."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from modelhub.serving.gateway.supervision.restarts import BUDGET, MAX_REQUEST_DELAY, RestartPolicy
from support.gateway_process import Gateway
from support.v2_client import tensor


def test_requests_that_end_their_worker_leave_no_other_unanswered(
    models: Path, gateway: Callable[..., Gateway]
) -> None:
    running = gateway({"models": [{"name": "poisoned", "uri": str(models / "killed_in_predict")}]})
    running.wait_ready()
    for number in range(2 * BUDGET):
        assert running.infer("poisoned", [tensor("input-0", "FP32", [1, 1], [666])]).status == 503
        assert running.infer("poisoned", [tensor("input-0", "FP32", [1, 1], [number])]).status == 200
    assert running.get("/status").json()["models"][0]["state"] == "READY"


def test_only_deaths_that_no_request_explains_count() -> None:
    policy = RestartPolicy()
    delays = [policy.after_exit(0.5, 0, in_request=True) for _ in range(20)]
    assert delays[:3] == [0.0, 0.1, 0.2], "they may not keep the machine busy"
    assert delays[-1] == MAX_REQUEST_DELAY
    assert policy.after_exit(0.5, 1, in_request=True) == 0.0
    assert policy.after_exit(0.0, 0, in_request=True) == 0.0, "it never was ready: its own example ended it"
    assert [policy.after_exit(0.5, 0) for _ in range(BUDGET - 1)][-1] is None
