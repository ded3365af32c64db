"""Events that end, stop and replace what serves: workers, versions, whoever reads the log, and MLflow.

Each method is one event. Who asks meanwhile is the base load and the prober; here is counted what the operator's own
requests are answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import yaml
from clients import Client, values_of
from ledger import Ledger
from servers import Gateway, Mlflow

#: Models whose workers are killed. Those with two replicas lose one while the other answers.
VICTIMS = ["identity", "iris", "first", "second", "slow", "registered", "aliased", "printer", "rolled"]
#: Seconds between two kills of one model: five exits in a row, none after ten seconds, are a fault of the model's own.
APART = 12.0
REPOSITORY = "/v2/repository/models"


class Disturbance:
    def __init__(self, client: Client, ledger: Ledger, rng: random.Random, gateway: Gateway, mlflow: Mlflow) -> None:
        self._client = client
        self._ledger = ledger
        self._rng = rng
        self._gateway = gateway
        self._mlflow = mlflow
        self._killed: dict[str, float] = {}
        self._rolled = self._pointed = 1
        #: Held by whoever needs MLflow, and while it is away.
        self._registry = asyncio.Lock()
        self._reloads = asyncio.Lock()

    # ---- workers --------------------------------------------------------------------------------

    async def kill(self) -> None:
        """SIGKILL to one worker of a model that has not lost one for a while."""
        now = time.monotonic()
        free = [name for name in VICTIMS if now - self._killed.get(name, -APART) >= APART]
        model = self._rng.choice(free or VICTIMS[:1])
        pids = await self._client.workers(model)
        if len(pids) < (2 if model in ("identity", "iris") else 1):
            return  # it starts: its other replica is what is left
        self._killed[model] = now
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._rng.choice(pids), signal.SIGKILL)
        self._ledger.events[f"kill {model}"] += 1

    async def hang(self) -> None:
        """A worker that is stopped takes up nothing: the gateway ends it when a request has waited for its timeout."""
        for pid in await self._client.workers("stuck"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)

    async def poison(self) -> None:
        """A request that kills whoever runs it gets an error, not an answer and not nothing."""
        status, body = await self._client.infer("poison", 666)
        self._ledger.count("poison", "" if status >= 500 else f"{status} {body[:200]!r}")

    # ---- versions -------------------------------------------------------------------------------

    async def roll(self) -> None:
        """The entry's `uri` changes; a reload, by HTTP or SIGHUP, brings the other version, which takes over."""
        async with self._reloads:
            self._rolled = 3 - self._rolled
            _rewrite(self._gateway.config, "rolled", self._rolled)
            if self._rng.random() < 0.5:
                self._gateway.hang_up()
                status, body = 200, b""
            else:
                status, body = await self._client.control("/admin/reload")
            wrong = "" if status == 200 else f"{status} {body[:200]!r}"
            self._ledger.count("roll", wrong or await self._becomes("rolled", self._rolled, 60))

    async def repository(self) -> None:
        """Unload, which is said by its readiness at once, and load."""
        wrong = await self._operator("coming", "unload")
        status, _ = await self._client.ask("GET", "/v2/models/coming/ready")
        if not wrong and status != 503:
            wrong = f"/ready is {status} after an unload"
        wrong = await self._operator("coming", "load") or wrong
        status, body = await self._client.infer("coming", 7, 8)
        if not wrong and (status != 200 or values_of(body) != [7, 8]):
            wrong = f"after a load: {status} {body[:200]!r}"
        self._ledger.count("load", wrong, requests=2)

    async def alias(self) -> None:
        """The alias moves to the other version; who follows it rolls."""
        if self._registry.locked():
            return
        async with self._registry:
            self._pointed = 3 - self._pointed
            try:
                await asyncio.to_thread(self._mlflow.point, self._pointed)
                wrong = await self._becomes("aliased", self._pointed, 60)
            except OSError as error:
                wrong = repr(error)
        self._ledger.count("alias", wrong)

    async def _operator(self, model: str, what: str, timeout: float = 60) -> str:
        """Load or unload; what was wrong."""
        began = time.monotonic()
        status, body = await self._client.control(f"{REPOSITORY}/{model}/{what}", timeout)
        took = time.monotonic() - began
        return "" if status == 200 else f"{what} of {model}: {status} {body[:200]!r} after {took:.1f} s"

    async def _becomes(self, model: str, value: int, timeout: float) -> str:
        """Until the model answers with this value; what was wrong where it does not, or fails meanwhile."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            status, body = await self._client.infer(model, 0)
            if status != 200:
                return f"{model}: {status} {body[:200]!r}"
            if values_of(body) == [value]:
                return ""
            await asyncio.sleep(0.2)
        return f"{model} does not become version {value} within {timeout:g} s"

    # ---- incidents ------------------------------------------------------------------------------

    async def log_unread(self, seconds: float) -> None:
        """Nobody reads the gateway's standard error, while a model prints more than it keeps: it says so."""
        self._gateway.reading.clear()
        deadline = time.monotonic() + seconds
        try:
            while time.monotonic() < deadline:
                status, body = await self._client.infer("printer", 500, 3000)
                self._ledger.count("print", "" if status == 200 else f"{status} {body[:200]!r}")
                await asyncio.sleep(0.5)
        finally:
            self._gateway.reading.set()
        for _ in range(100):
            if self._gateway.dropped:
                return
            await asyncio.sleep(0.1)
        self._ledger.fail("log", "it does not say that lines were dropped while nobody read them")

    async def mlflow_away(self, seconds: float, *, gone: bool) -> None:
        """MLflow takes connections and answers nothing; with `gone`, it is ended after half of the time.

        Meanwhile what comes from it is unloaded, loaded and killed as ever, and has to come back.
        """
        async with self._registry:
            self._mlflow.freeze()
            try:
                await self._without_registry(seconds / 2 if gone else seconds)
                if gone:
                    await asyncio.to_thread(self._mlflow.stop)
                    await self._without_registry(seconds / 2)
            finally:
                self._mlflow.thaw()
            if gone:
                self._mlflow.start()
            await asyncio.to_thread(self._mlflow.wait)

    async def _without_registry(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        for model in ("registered", "aliased"):
            wrong = await self._operator(model, "unload") or await self._operator(model, "load")
            status, body = await self._client.infer(model, 0)
            if not wrong and status != 200:
                wrong = f"{model}: {status} {body[:200]!r}"
            self._ledger.count("load without MLflow", wrong, requests=2)
        await asyncio.sleep(max(deadline - time.monotonic(), 0))


def _rewrite(config: Path, name: str, number: int) -> None:
    """The entry's `uri` ends with another number."""
    content: dict[str, Any] = yaml.safe_load(config.read_text())
    (entry,) = (each for each in content["models"] if each["name"] == name)
    entry["uri"] = entry["uri"][:-1] + str(number)
    beside = config.with_suffix(".new")
    beside.write_text(yaml.safe_dump(content, sort_keys=False))
    beside.replace(config)
