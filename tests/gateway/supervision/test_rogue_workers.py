"""Workers whose model's code turns on the gateway: it goes on, for everybody else, and nothing of them stays."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from modelhub.serving.gateway.supervision import said
from modelhub.serving.protocol.errors import LoadError
from modelhub.serving.protocol.limits import MAX_CREDITS
from modelhub.serving.protocol.messages import ReadyReply, StatsReply
from support.gateway_process import Gateway
from support.processes import alive, survivors, until
from support.v2_client import tensor


def one(value: float) -> list[dict[str, Any]]:
    return [tensor("input-0", "FP32", [1, 1], [value])]


@pytest.fixture(scope="module")
def rogues(models: Path, module_gateway: Callable[..., Gateway]) -> Gateway:
    names = ("cuts_its_journal", "leaves_daemons", "huge_output", "identity")
    entries = [{"name": name, "uri": str(models / name), "environment": "shared"} for name in names]
    running = module_gateway({"server": {"max_buffered": "1MiB", "max_body": "1MiB"}, "models": entries})
    running.wait_ready()
    return running


def worker_pid(gateway: Gateway, model: str) -> int:
    found = [each for each in gateway.get("/status").json()["models"] if each["name"] == model]
    return int(found[0]["replicas"][0]["pid"])


def test_a_page_that_was_cut_short_ends_nobody_but_its_worker(rogues: Gateway) -> None:
    assert rogues.infer("cuts_its_journal", one(666)).status in (200, 503)
    assert rogues.infer("cuts_its_journal", one(1)).status == 200
    assert rogues.infer("identity", one(1)).status == 200


def test_daemons_end_with_the_worker_that_left_them_and_with_no_other(rogues: Gateway) -> None:
    daemon = psutil.Process(int(rogues.infer("leaves_daemons", one(0)).json()["outputs"][0]["data"][0]))
    until(lambda: daemon.name() == "sleep", 5)
    first, other = worker_pid(rogues, "leaves_daemons"), worker_pid(rogues, "identity")
    os.kill(other, signal.SIGKILL)
    assert rogues.infer("identity", one(1)).status == 200
    assert alive(daemon)
    os.kill(first, signal.SIGKILL)
    assert not survivors([daemon], 5)
    assert rogues.infer("leaves_daemons", one(0)).status == 200


def test_an_answer_that_is_larger_than_the_server_may_hold_is_an_error(rogues: Gateway) -> None:
    answer = rogues.infer("huge_output", one(48), parameters={"binary_data_output": True})
    assert (answer.status, "server.max_buffered" in answer.json()["error"]) == (500, True)
    assert rogues.infer("huge_output", one(0), parameters={"binary_data_output": True}).status == 200


@pytest.mark.parametrize(
    "metadata",
    [
        {"inputs": [{"name": "x"}]},
        {"inputs": [7]},
        {"inputs": 7},
        {"platform": b"bytes"},
        {7: "no text"},
        {"inputs": [{"name": "x", "datatype": "FP32", "shape": ["-1"]}]},
    ],
)
def test_metadata_that_would_break_what_is_said_of_all_models_fail_one(metadata: Any) -> None:
    with pytest.raises(LoadError, match="none of V2's"):
        said.check_ready(ReadyReply(1, "3", metadata=metadata))


def test_what_a_worker_says_of_itself_is_bounded() -> None:
    facts = {"enabled": True, "reason": "x" * 1000, "nested": {}, 7: 8, **{f"more {number}": 1 for number in range(99)}}
    found = said.batching_of(StatsReply({"batching": facts}))
    assert (found["enabled"], len(found["reason"]), len(found) < 21) == (True, said.MAX_TEXT, True)
    assert "nested" not in found
    assert said.batching_of(StatsReply({"batching": "no"})) == {}
    assert said.metrics_of(StatsReply(metrics=bytes(said.MAX_METRICS + 1))) == b""
    assert (said.credits_of(1 << 40, 2), said.credits_of(0, 2)) == (MAX_CREDITS, 2)
