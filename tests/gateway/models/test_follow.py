"""A model that follows an alias of a real MLflow registry, moved under load; and the webhook that tells of it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from modelhub.serving.config.settings import ModelSettings
from modelhub.serving.gateway.models.follow import Follower
from modelhub.serving.gateway.models.states import ModelState
from support.gateway_process import Gateway
from support.processes import until
from support.v2_client import tensor

Start = Callable[..., Gateway]
MODELS = Path(__file__).parents[2] / "support" / "rolling_models.py"


@pytest.fixture(scope="module")
def registry(mlflow_server: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], None]:
    """`registry(3)`: the alias `live` of the registered model `rolling` now means version 3."""
    done = subprocess.run(
        [sys.executable, str(MODELS), mlflow_server],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        cwd=tmp_path_factory.mktemp("rolling"),
        env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"},
    )
    assert done.returncode == 0, done.stderr

    def move(version: int) -> None:
        body = json.dumps({"name": "rolling", "alias": "live", "version": str(version)}).encode()
        headers = {"Content-Type": "application/json"}
        url = f"{mlflow_server}/api/2.0/mlflow/registered-models/alias"
        with urllib.request.urlopen(urllib.request.Request(url, body, headers)) as answer:
            assert answer.status == 200

    return move


def following(mlflow_server: str, gateway: Start, interval: str, **env: str) -> Gateway:
    entry = {"name": "rolling", "uri": "models:/rolling@live", "follow": interval, "environment": "shared"}
    running = gateway({"models": [entry]}, env={"MLFLOW_TRACKING_URI": mlflow_server, **env})
    running.wait_ready(timeout=90)
    return running


class Load:
    """Clients that ask all the time; what they were answered, in order."""

    def __init__(self, running: Gateway, clients: int = 4) -> None:
        self.failures: list[Any] = []
        self.answers: list[tuple[float, float, int]] = []  # begun, ended, version
        self._running = running
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def _ask(self) -> None:
        while not self._stop.is_set():
            begun = time.monotonic()
            answer = ask(self._running)
            if answer.status == 200:
                self.answers.append((begun, time.monotonic(), int(answer.json()["outputs"][0]["data"][0])))
            else:
                self.failures.append(answer)

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def ask(running: Gateway) -> Any:
    return running.infer("rolling", [tensor("input-0", "FP32", [1, 1], [0])])


def until_served(running: Gateway, version: int) -> None:
    until(lambda: ask(running).json().get("model_version") == str(version), 60, f"version {version} is served")


def test_an_alias_moves_ten_times_under_load_and_nobody_notices(
    mlflow_server: str, registry: Callable[[int], None], gateway: Start
) -> None:
    registry(1)
    running = following(mlflow_server, gateway, "200ms")
    moves = [(0.0, 0.0, 1)]  # when the alias moved, when the new version was seen to serve, which
    load = Load(running)
    try:
        for version in (2, 3, 1, 2, 1, 3, 2, 3, 1, 2):
            moved = time.monotonic()
            registry(version)
            until_served(running, version)
            moves.append((moved, time.monotonic(), version))
        registry(4)
        running.wait_log("version 4 refuses to load")
        registry(5)
        running.wait_log("the new version 5 does not become ready")
        assert ask(running).json()["model_version"] == "2", "what serves goes on"
        failed = {each["version"]: each["state"] for each in running.get("/status").json()["models"]}
        assert failed["5"] == "FAILED"
        assert running.get("/v2/health/ready").status == 200
        assert 'modelhub_model_state{model="rolling",state="FAILED",version="5"} 1.0' in metrics(running)
        moved = time.monotonic()
        registry(3)
        until_served(running, 3)
        moves.append((moved, time.monotonic(), 3))
    finally:
        load.stop()
    assert not load.failures, load.failures[0]
    assert len(load.answers) > 100
    ends = [*(served for _, served, _ in moves[1:]), float("inf")]
    periods = [(since, until, current) for (since, _, current), until in zip(moves, ends, strict=True)]
    for begun, ended, version in load.answers:
        current = {each for since, until, each in periods if since < ended and begun < until}
        assert version in current, f"{version} answered when it should have been one of {current}"


def metrics(running: Gateway) -> str:
    return running.get("/metrics").body.decode()


def test_an_alias_moves_in_a_lazy_group_with_one_place(
    mlflow_server: str, registry: Callable[[int], None], gateway: Start
) -> None:
    registry(1)
    entry = {"name": "rolling", "uri": "models:/rolling@live", "follow": "200ms", "environment": "shared"}
    group = {"name": "one", "load": "lazy", "max_loaded": 1, "models": [entry]}
    running = gateway({"groups": [group]}, env={"MLFLOW_TRACKING_URI": mlflow_server})
    registry(2)
    until_served(running, 2)
    load = Load(running)
    try:
        for version in (3, 4, 1):
            registry(version)
            if version == 4:
                running.wait_log("version 4 refuses to load")
            else:
                until_served(running, version)
    finally:
        load.stop()
    assert not load.failures, load.failures[0]
    loaded = [each for each in running.get("/status").json()["models"] if each["state"] == "READY"]
    assert [each["version"] for each in loaded] == ["1"]


def test_a_webhook_is_quicker_than_the_interval(
    mlflow_server: str, registry: Callable[[int], None], gateway: Start
) -> None:
    registry(1)
    running = following(mlflow_server, gateway, "1h", MLFLOW_WEBHOOK_SECRET="the secret")
    registry(2)
    body = json.dumps({"entity": "model_version_alias", "action": "created", "data": {}}).encode()
    path = "/admin/mlflow-webhook"
    stamp = str(int(time.time()))
    for headers in (
        {},
        signed(b"another secret", stamp, body),
        signed(b"the secret", str(int(time.time()) - 4000), body),
        {**signed(b"the secret", stamp, body), "X-MLflow-Delivery-Id": "another"},
    ):
        assert running.post(path, body, headers).status == 401
    assert running.post(path, body, signed(b"the secret", stamp, body)).status == 200
    until_served(running, 2)


class Registry:
    """What a follower asks: the first question waits, and is answered with what was true when it was asked."""

    def __init__(self) -> None:
        self.version = "1"
        self.asked = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.questions = 0

    async def search(self, names: set[str]) -> dict[str, dict[str, str]]:
        self.questions += 1
        version = self.version
        self.asked.set()
        await self.may_answer.wait()
        return {name: {"live": version} for name in names}


class Entries:
    """A catalog of one followed entry; `rolled` has the versions it was told to bring."""

    def __init__(self) -> None:
        entry = ModelSettings(name="rolling", uri="models:/rolling@live", follow=3600)
        version = SimpleNamespace(version="1", group=None, state=ModelState.READY)
        self.slots = {("rolling", ""): SimpleNamespace(entry=entry, version=version, candidate=None)}
        self.rolled: asyncio.Queue[str] = asyncio.Queue()

    def roll(self, slot: Any, entry: ModelSettings, group: Any, why: str) -> None:
        self.rolled.put_nowait(entry.version or "")


async def test_a_webhook_that_comes_during_a_look_is_not_lost() -> None:
    registry, entries = Registry(), Entries()
    follower = Follower(entries, registry)  # type: ignore[arg-type]
    running = asyncio.create_task(follower.run())
    await registry.asked.wait()
    registry.version = "2"
    follower.poke()
    registry.may_answer.set()
    assert await asyncio.wait_for(entries.rolled.get(), 5) == "2"
    assert registry.questions == 2
    running.cancel()


async def test_following_outlives_a_fault_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelhub.serving.gateway.models.follow.RETRY", 0.01)
    registry, entries = Registry(), Entries()
    registry.version = "2"
    registry.may_answer.set()
    slots, entries.slots = entries.slots, None  # type: ignore[assignment]
    follower = Follower(entries, registry)  # type: ignore[arg-type]
    running = asyncio.create_task(follower.run())
    await asyncio.sleep(0)
    entries.slots = slots
    assert await asyncio.wait_for(entries.rolled.get(), 5) == "2"
    running.cancel()


def signed(secret: bytes, stamp: str, body: bytes) -> dict[str, str]:
    code = hmac.new(secret, f"id-1.{stamp}.".encode() + body, hashlib.sha256).digest()
    return {
        "X-MLflow-Signature": f"v1,{base64.b64encode(code).decode()}",
        "X-MLflow-Delivery-Id": "id-1",
        "X-MLflow-Timestamp": stamp,
    }
