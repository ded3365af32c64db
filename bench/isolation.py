"""Isolation in figures: warm loads, memory per model, and what a killed worker costs its clients and neighbours.

    python bench/isolation.py loads   [--models 10]     load to first prediction, private bytes per model
    python bench/isolation.py memory  [--models 20]     forked against fresh interpreters, PSS of all workers
    python bench/isolation.py kill    [--pairs 5]       16 clients on A, A killed ten times, B and C beside it

Ratios of what is measured in one run are the figures to quote; the machine is shared and noisy.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import psutil

MODELHUB = Path(sys.executable).with_name("modelhub")
CLIENTS = 16
KILLS = 10
ANSWERS_BETWEEN_KILLS = 100


# ---- a gateway with copies of one sklearn model ---------------------------------------------------


def make_model(folder: Path) -> Path:
    """A logistic regression on iris with a tensor signature, saved with MLflow as it comes."""
    path = folder / "iris"
    code = f"""
import mlflow.sklearn, numpy as np
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
x, y = load_iris(return_X_y=True)
model = LogisticRegression(max_iter=500).fit(x, y)
signature = ModelSignature(Schema([TensorSpec(np.dtype("float64"), (-1, 4))]))
mlflow.sklearn.save_model(model, {str(path)!r}, signature=signature, pip_requirements=["mlflow", "scikit-learn"])
"""
    subprocess.run([sys.executable, "-c", code], check=True, stderr=subprocess.DEVNULL)
    return path


BODY = json.dumps(
    {"inputs": [{"name": "input-0", "shape": [1, 4], "datatype": "FP64", "data": [5.1, 3.5, 1.4, 0.2]}]}
).encode()


JSON = {"Content-Type": "application/json"}


class Served:
    """A running gateway; all times in seconds, sizes in bytes."""

    def __init__(self, config: dict[str, Any], folder: Path) -> None:
        config["server"] = {
            "host": "127.0.0.1",
            "port": 0,
            "admin": "same",
            "state_dir": str(folder / "state"),
            "log": {"level": "error"},
        }
        file = folder / "bench.yaml"
        file.write_text(json.dumps(config))
        self.process = subprocess.Popen([str(MODELHUB), "serve", str(file)], stderr=subprocess.DEVNULL)
        note = folder / "state" / "gateways" / f"{self.process.pid}@{os.uname().nodename}.json"
        wait_for(note.exists, 30)
        said = json.loads(note.read_text())
        self.url = said["url"]
        self.token = Path(said["token_file"]).read_text().strip()

    def get(self, path: str) -> Any:
        headers = {"Authorization": f"Bearer {self.token}"}
        with urllib.request.urlopen(urllib.request.Request(self.url + path, headers=headers), timeout=60) as answer:
            return json.load(answer)

    def post(self, path: str, body: bytes = b"") -> None:
        with urllib.request.urlopen(urllib.request.Request(self.url + path, body, JSON), timeout=120) as answer:
            answer.read()

    def infer(self, model: str) -> None:
        self.post(f"/v2/models/{model}/infer", BODY)

    def workers(self) -> list[psutil.Process]:
        return [
            process
            for process in psutil.Process(self.process.pid).children(recursive=True)
            if "worker" in " ".join(process.cmdline()[:1])
        ]

    def worker_pid(self, model: str) -> int:
        (found,) = [each for each in self.get("/status")["models"] if each["name"] == model]
        return int(found["replicas"][0]["pid"])

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


def wait_for(condition: Any, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("the gateway did not come up")
        time.sleep(0.02)


@contextlib.contextmanager
def served(model: Path, count: int, *, lazy: bool = False, start: str = "fork") -> Iterator[Served]:
    entries = [{"name": f"m{number}", "uri": str(model)} for number in range(count)]
    config: dict[str, Any] = {"defaults": {"environment": "shared", "start": start}}
    if lazy:
        config["groups"] = [{"name": "all", "load": "lazy", "models": entries}]
    else:
        config["models"] = entries
    with tempfile.TemporaryDirectory() as folder:
        running = Served(config, Path(folder))
        try:
            yield running
        finally:
            running.stop()


def private(process: psutil.Process) -> int:
    full = process.memory_full_info()
    return int(full.uss)


# ---- the measurements -----------------------------------------------------------------------------


def loads(model: Path, count: int) -> None:
    """The first request of each model of a lazy group: load, predict, answer. One more model warms the fork server."""
    with served(model, count + 1, lazy=True) as running:
        running.infer(f"m{count}")
        times = []
        for number in range(count):
            started = time.perf_counter()
            running.infer(f"m{number}")
            times.append((time.perf_counter() - started) * 1000)
        sizes = [private(process) / 2**20 for process in running.workers()]
    print(f"load to first prediction, {count} models: p50 {statistics.median(times):.0f} ms, max {max(times):.0f} ms")
    print(f"private memory per worker: median {statistics.median(sizes):.1f} MiB, max {max(sizes):.1f} MiB")


def memory(model: Path, count: int) -> None:
    """PSS of all workers and of what they were forked from, forked and as fresh interpreters."""
    totals = {}
    for start in ("fork", "spawn"):
        began = time.perf_counter()
        with served(model, count, start=start) as running:
            wait_for(lambda: all(each["state"] == "READY" for each in running.get("/status")["models"]), 600)
            for number in range(count):
                running.infer(f"m{number}")
            seconds = time.perf_counter() - began
            below = psutil.Process(running.process.pid).children(recursive=True)
            totals[start] = sum(process.memory_full_info().pss for process in below) / 2**20
        print(f"{count} models, {start}: {totals[start]:.0f} MiB PSS below the gateway, ready after {seconds:.1f} s")
    print(f"forked / fresh: {totals['fork'] / totals['spawn']:.2f}")


class Clients:
    """Closed-loop clients of one model."""

    def __init__(self, session: aiohttp.ClientSession, url: str, model: str, count: int, pause: float = 0.0) -> None:
        self.latencies: list[float] = []
        self.failed = 0
        self._session, self._pause = session, pause
        self._url = f"{url}/v2/models/{model}/infer"
        self._tasks = [asyncio.create_task(self._ask()) for _ in range(count)]

    async def _ask(self) -> None:
        while True:
            started = time.perf_counter()
            try:
                async with self._session.post(self._url, data=BODY, headers=JSON) as answer:
                    await answer.read()
                    self.failed += answer.status != 200
            except aiohttp.ClientError:
                self.failed += 1
            self.latencies.append(time.perf_counter() - started)
            if self._pause:
                await asyncio.sleep(self._pause)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def clients(session: aiohttp.ClientSession, url: str) -> AsyncIterator[dict[str, Clients]]:
    """16 clients on A with a pause between their requests, so that the generator stays below half a core; B and C."""
    found = {
        "m0": Clients(session, url, "m0", CLIENTS, 0.05),
        "m1": Clients(session, url, "m1", 2, 0.02),
        "m2": Clients(session, url, "m2", 2, 0.02),
    }
    try:
        yield found
    finally:
        await asyncio.gather(*(each.stop() for each in found.values()))


def p99(latencies: list[float]) -> float:
    return statistics.quantiles(latencies, n=100)[98] * 1000


async def kill_round(
    running: Served, kills: int, seconds: float
) -> tuple[int, int, list[float], dict[str, float], float]:
    """(answers of A, failures of A, times until A is back, p99 of B and C in ms, cores of this generator)."""
    back: list[float] = []
    cpu, wall = time.process_time(), time.monotonic()
    async with aiohttp.ClientSession() as session, clients(session, running.url) as found:
        a = found["m0"]
        for _ in range(kills):
            target = len(a.latencies) + ANSWERS_BETWEEN_KILLS
            while len(a.latencies) < target:  # noqa: ASYNC110 - a generator that watches itself
                await asyncio.sleep(0.005)
            pid = await asyncio.to_thread(running.worker_pid, "m0")
            killed = time.perf_counter()
            os.kill(pid, signal.SIGKILL)
            async with session.post(f"{running.url}/v2/models/m0/infer", data=BODY, headers=JSON) as answer:
                await answer.read()
            back.append(time.perf_counter() - killed)
        left = seconds - (time.monotonic() - wall)
        if left > 0:
            await asyncio.sleep(left)
        cores = (time.process_time() - cpu) / (time.monotonic() - wall)
        return len(a.latencies), a.failed, back, {name: p99(found[name].latencies) for name in ("m1", "m2")}, cores


async def kill(model: Path, pairs: int) -> None:
    with served(model, 3) as running:
        wait_for(lambda: all(each["state"] == "READY" for each in running.get("/status")["models"]), 120)
        ratios: dict[str, list[float]] = {"m1": [], "m2": []}
        every_back: list[float] = []
        answers = failures = 0
        for number in range(pairs):
            calm = await kill_round(running, 0, 8)
            stormy = await kill_round(running, KILLS, 8)
            answers += stormy[0]
            failures += stormy[1]
            every_back += stormy[2]
            for name in ratios:
                ratios[name].append(stormy[3][name] / calm[3][name])
            shown = ", ".join(f"{name} {calm[3][name]:.1f} -> {stormy[3][name]:.1f} ms" for name in ratios)
            print(f"pair {number + 1}: p99 without -> with kills: {shown}; generator {stormy[4]:.2f} cores", flush=True)
    print(f"A: {failures} of {answers} requests failed in {pairs * KILLS} kills")
    print(
        f"A answers again after: p50 {statistics.median(every_back) * 1000:.0f} ms, max {max(every_back) * 1000:.0f} ms"
    )
    for name, found in ratios.items():
        spread = f"{min(found):.2f} to {max(found):.2f}"
        print(f"p99 of {name} with kills / without: median {statistics.median(found):.2f}, {spread}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=["loads", "memory", "kill", "all"])
    parser.add_argument("--models", type=int, help="how many models (default: 10 for loads, 20 for memory)")
    parser.add_argument("--pairs", type=int, default=5, help="paired runs with and without kills (default: 5)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = make_model(Path(folder))
        if options.what in ("loads", "all"):
            loads(model, options.models or 10)
        if options.what in ("memory", "all"):
            memory(model, options.models or 20)
        if options.what in ("kill", "all"):
            asyncio.run(kill(model, options.pairs))


if __name__ == "__main__":
    main()
