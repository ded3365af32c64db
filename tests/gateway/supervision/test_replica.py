"""One replica by itself, with real processes: it can be stopped in every state, and leaves nothing open or running."""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from modelhub.serving.gateway.artifacts.store import Artifact
from modelhub.serving.gateway.dispatch.channel import Channel
from modelhub.serving.gateway.dispatch.dispatcher import Dispatcher
from modelhub.serving.gateway.environments.environments import Environment
from modelhub.serving.gateway.places.fork_servers import ForkServers
from modelhub.serving.gateway.places.local import LocalPlace
from modelhub.serving.gateway.places.place import WorkerOrder
from modelhub.serving.gateway.supervision import replica as module
from modelhub.serving.gateway.supervision.plan import ReplicaPlan
from modelhub.serving.gateway.supervision.replica import Replica
from modelhub.serving.gateway.system.processes import Memory
from modelhub.serving.protocol.messages import InferRequest
from modelhub.serving.protocol.worker_spec import WorkerSpec

pytestmark = pytest.mark.allow_blocking  # processes are started from the event loop's thread, on purpose

SHARED = Environment("shared", Path(sys.executable), platform.python_version(), None, "shared")


class Owner:
    """Notes what a replica says; `rest` is the answer to its failure."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.changed = asyncio.Event()
        self.rest: float | None = None

    def _say(self, what: str) -> None:
        self.said.append(what)
        self.changed.set()

    async def until(self, what: str) -> None:
        while not any(each.startswith(what) for each in self.said):
            self.changed.clear()
            await asyncio.wait_for(self.changed.wait(), 30)

    def replica_loading(self) -> None:
        self._say("loading")

    def replica_warming(self) -> None:
        self._say("warming")

    def replica_ready(self, replica: Any, ready: Any) -> None:
        self._say("ready")

    def replica_restarts(self, replica: Any, reason: str, kind: str, delay: float) -> None:
        self._say(f"restarts {delay:g}: {reason}")

    def replica_failed(self, replica: Any, reason: str) -> float | None:
        self._say(f"failed: {reason}")
        return self.rest

    def replica_may_return(self, replica: Any) -> bool:
        return True

    def replica_traceback(self, replica: Any, text: str) -> None:
        self._say("traceback")

    def replica_corrected(self, replica: Any, text: str) -> None:
        self._say("corrected")


class Stage:
    """What a replica needs: a channel, a place with fork servers, a queue."""

    def __init__(self, folder: Path) -> None:
        self.channel = Channel()
        self.fork_servers = ForkServers(dict(os.environ), folder)
        endpoint = self.channel.bind(folder / "workers.sock")
        self.place = LocalPlace(folder, lambda: endpoint, dict(os.environ), self.fork_servers)
        self.folder = folder
        self.dispatcher = Dispatcher("m/1", limit=10, retry=True)
        self.owner = Owner()

    def replica(self, model: Path, *, start: str = "fork", **keys: Any) -> Replica:
        spec = WorkerSpec("m", "1", 0, 0, "", "", "", "", "")
        facts: dict[str, Any] = {
            "place": self.place,
            "order": WorkerOrder(spec, Artifact(model), SHARED, start),
            "start_reason": "",
            "timeout": 5.0,
            "load_timeout": 60.0,
            "memory_limit": 0,
            "warmup": "fail",
            "credits": 2,
            **keys,
        }
        return Replica(0, ReplicaPlan(**facts), self.owner, self.dispatcher, self.channel)

    def left(self) -> list[str]:
        """Whatever a worker that is gone must not leave."""
        running = [each for server in self.fork_servers.running() for each in psutil.Process(server.pid).children()]
        files = [path.name for path in self.folder.glob("*.journal")] + os.listdir(self.folder / "work")
        queued = [f"{self.dispatcher.queued} queued"] if self.dispatcher.queued else []
        return [*map(str, running), *files, *map(str, self.channel._peers), *queued]


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    (tmp_path / "work").mkdir()
    found = Stage(tmp_path)
    yield found
    await asyncio.wait_for(found.fork_servers.close(), 20)
    found.channel.close()


def with_example(model: Path, target: Path, value: float) -> Path:
    """A copy of a model whose input example is this number."""
    shutil.copytree(model, target)
    mlmodel = yaml.safe_load((target / "MLmodel").read_text())
    mlmodel["saved_input_example_info"] = {"artifact_path": "input_example.json", "type": "ndarray"}
    (target / "MLmodel").write_text(yaml.safe_dump(mlmodel))
    (target / "input_example.json").write_text(f"[[{value}]]")
    return target


async def test_stopped_while_its_fork_server_starts(stage: Stage, models: Path) -> None:
    replica = stage.replica(models / "identity")
    await asyncio.sleep(0)
    await asyncio.wait_for(replica.stop(), 10)
    assert (replica.state, stage.owner.said) == ("stopped", [])
    assert not stage.left()


@pytest.mark.parametrize("start", ["fork", "spawn"])
@pytest.mark.parametrize(
    ("model", "state"), [("slow_load", "loading"), ("hangs_forever", "warming"), ("identity", "ready")]
)
async def test_stopped_in_the_midst_of(stage: Stage, models: Path, model: str, state: str, start: str) -> None:
    path = models / model
    if state == "warming":
        path = with_example(path, stage.folder / "model", 666)
    await stage.fork_servers.get(SHARED)
    before = len(os.listdir("/proc/self/fd"))
    replica = stage.replica(path, start=start)
    await stage.owner.until(state)
    await asyncio.wait_for(replica.stop(), 10)
    assert replica.state == "stopped"
    assert not stage.left()
    assert len(os.listdir("/proc/self/fd")) == before


async def test_stopped_while_it_waits_to_start_again(stage: Stage, models: Path) -> None:
    replica = stage.replica(models / "exits_on_load")
    await stage.owner.until("restarts 0.4")
    await asyncio.wait_for(replica.stop(), 10)
    assert not stage.left()
    assert "failed" not in str(stage.owner.said)


async def test_stopped_twice_and_after_its_worker_was_killed(stage: Stage, models: Path) -> None:
    replica = stage.replica(models / "identity")
    await stage.owner.until("ready")
    os.kill(replica.pid, signal.SIGKILL)
    await asyncio.wait_for(asyncio.gather(replica.stop(), replica.stop()), 10)
    assert not stage.left()


async def test_an_example_that_does_not_end_fails_the_load_even_with_warn(
    stage: Stage, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would hold the only worker for ever, and nothing would replace it."""
    monkeypatch.setattr(module, "WARMUP_TIMEOUT", 0.5)
    path = with_example(models / "hangs_forever", stage.folder / "model", 666)
    replica = stage.replica(path, warmup="warn", timeout=0.5)
    await stage.owner.until("failed: its own input example was not answered within 0.5 s")
    assert not stage.left()
    assert replica.state == "failed"


async def test_a_load_that_does_not_end_is_ended(stage: Stage, models: Path) -> None:
    replica = stage.replica(models / "slow_load", load_timeout=0.5)
    await stage.owner.until("failed: it was not loaded within 500ms (load_timeout)")
    assert not stage.left()
    assert replica.state == "failed"


async def test_what_fails_in_the_gateway_itself_is_a_failure_with_a_reason(stage: Stage, models: Path) -> None:
    shutil.rmtree(stage.folder / "work")
    (stage.folder / "work").write_text("no folder")
    replica = stage.replica(models / "identity")
    await stage.owner.until("failed: its worker could not be looked after: ")
    assert stage.owner.said[0].startswith("restarts 0: could not be looked after: ")
    await replica.stop()
    (stage.folder / "work").unlink()
    (stage.folder / "work").mkdir()
    assert not stage.left()


async def test_one_that_failed_beside_others_comes_back_after_a_rest(stage: Stage, models: Path) -> None:
    stage.owner.rest = 0.01
    model = stage.folder / "model"
    shutil.copytree(models / "identity", model)
    (model / "MLmodel").rename(model / "away")
    replica = stage.replica(model)
    await stage.owner.until("failed")
    (model / "away").rename(model / "MLmodel")
    await stage.owner.until("ready")
    answer = await stage.dispatcher.submit(
        InferRequest(0, content_type="application/json"),
        b'{"inputs": [{"name": "input-0", "shape": [1, 1], "datatype": "FP32", "data": [3]}]}',
    )
    assert b"3.0" in bytes(answer[1])
    await asyncio.wait_for(replica.stop(), 10)
    assert not stage.left()


async def test_what_loading_took_is_no_growth(stage: Stage, models: Path) -> None:
    """When the container is full, the worker goes that has grown most since it became ready."""
    replica = stage.replica(models / "identity")
    await stage.owner.until("loading")
    replica.baseline = Memory(private=1, rss=1)  # as the watch found it while it loaded
    await stage.owner.until("ready")
    assert replica.baseline == Memory(), "to be measured anew"
    await asyncio.wait_for(replica.stop(), 10)


async def test_a_fork_server_that_dies_while_a_worker_is_started_costs_a_restart_only(
    stage: Stage, models: Path
) -> None:
    server = await stage.fork_servers.get(SHARED)
    os.kill(server.pid, signal.SIGSTOP)
    replica = stage.replica(models / "identity")
    await asyncio.sleep(0.05)
    os.kill(server.pid, signal.SIGKILL)
    await stage.owner.until("ready")
    assert stage.owner.said[0].startswith("restarts 0: could not be started: the fork server of environment shared")
    await asyncio.wait_for(replica.stop(), 10)
    assert not stage.left()
