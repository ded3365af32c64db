"""Ten minutes of everything at once, against one real gateway.

    python bench/soak.py [--seconds 600] [--seed N] [--out FOLDER]

A base load of two models, each answer's value checked, has to see no failed request beside killed, stopped and poisoned
workers, rolls, loads and unloads, bodies of tens of megabytes, aborted requests, streams, gRPC, models that print, and
incidents: nobody reads the log for ten seconds, MLflow is away for two minutes, clients do not read their answers, web
pages try the control routes. A watcher checks once a second that nothing says ready of a model that answered nothing
for five seconds; memory, files, threads and processes have to stay flat (in runs of three minutes and more).

Exit code 1 if something failed. `--seed` repeats the order of events, not their timing to the millisecond.
`--out` keeps the gateway's log and the samples. What each part does: bench/soaking/__init__.py.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import csv
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "soaking"))

import uvloop
import yaml
from clients import Client
from disturb import Disturbance
from ledger import Ledger
from report import Progress, show, verdict
from samples import Sample, Samples
from servers import HERE, Gateway, Mlflow, Program
from traffic import WRITE_TIMEOUT, Traffic

Event = Callable[[], Awaitable[None]]
#: Requests a second of each model of the base load.
RATE = 20
#: What each model is asked by the prober.
PROBES: dict[str, list[float]] = {
    **{name: [1, 2] for name in ("identity", "first", "second", "slow", "stuck", "poison", "coming", "words", "large")},
    "iris": [5.1, 3.5, 1.4, 0.2],
    **{name: [0, 0] for name in ("sleepy", "printer", "registered", "aliased", "rolled")},
}
#: Unloaded by operators: the server is ready without it.
NOT_COUNTED = "coming"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600, help="of load and events; 30 at the least (default 600)")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of what happens when (printed)")
    parser.add_argument("--out", type=Path, help="a folder for the gateway's log and the samples")
    options = parser.parse_args()
    options.seconds = max(options.seconds, 30)
    print(f"seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        folder = Path(name)
        try:
            code: int = uvloop.run(soak(folder, options.seconds, options.seed, options.out))
            return code
        except (KeyboardInterrupt, asyncio.CancelledError):
            return 130
        finally:
            if options.out is not None:
                options.out.mkdir(parents=True, exist_ok=True)
                for log in ("gateway.log", "mlflow/log"):
                    with contextlib.suppress(OSError):
                        shutil.copy(folder / log, options.out / log.replace("/", "."))


def configuration(folder: Path) -> Path:
    """The gateway's file: models of one environment, strict readiness, operators on the main ports."""

    def entry(name: str, kind: str = "echo", **keys: Any) -> dict[str, Any]:
        return {"name": name, "uri": str(folder / kind), **keys}

    models = [
        entry("identity", replicas=2),
        entry("iris", "iris", replicas=2),
        *(entry(name) for name in ("first", "second", "coming")),
        entry("slow", "slow"),
        entry("stuck", timeout="1s"),
        *(entry(name, name) for name in ("poison", "sleepy", "printer", "large")),
        entry("words", "words", limits={"concurrency": 4}),
        entry("rolled", "numbered_1"),
        {"name": "registered", "uri": "models:/soak/1"},
        {"name": "aliased", "uri": "models:/soak@champion", "follow": "5s"},
    ]
    server = {
        "host": "127.0.0.1",
        "port": 0,
        "grpc_port": 0,
        "admin": "same",
        "state_dir": str(folder / "state"),
        "readiness": [each["name"] for each in models if each["name"] != NOT_COUNTED],
        "readiness_strict": True,
        "write_timeout": f"{WRITE_TIMEOUT}s",
        "log": {"level": "info", "format": "json"},
    }
    config = folder / "soak.yaml"
    content = {"server": server, "defaults": {"environment": "shared"}, "models": models}
    config.write_text(yaml.safe_dump(content, sort_keys=False))
    return config


async def soak(folder: Path, seconds: float, seed: int, out: Path | None) -> int:
    """Start everything, let it run, end everything; the exit code."""
    ending = asyncio.current_task()
    assert ending is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ending.cancel)
    ledger = Ledger()
    mlflow = Mlflow(folder / "mlflow")
    async with contextlib.AsyncExitStack() as stack:
        print("MLflow, the models and the gateway start (a minute)", flush=True)
        mlflow.start()
        stack.push_async_callback(asyncio.to_thread, mlflow.stop)
        await asyncio.to_thread(mlflow.wait)
        command = [sys.executable, str(HERE / "fixtures.py"), str(folder), mlflow.uri]
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        await asyncio.to_thread(subprocess.run, command, check=True, **quiet)
        gateway = Gateway(configuration(folder), folder / "state", folder / "gateway.log", mlflow.uri)
        stack.push_async_callback(asyncio.to_thread, gateway.stop)
        client = Client(await asyncio.to_thread(gateway.place))
        stack.push_async_callback(client.close)
        await all_answer(client, 120)
        samples = Samples(gateway.pid)
        await under_way(folder, client, gateway, mlflow, ledger, samples, seconds, seed)
        for each in await all_answer(client, 90, raises=False):
            ledger.fail("the soak itself", f"after the end: {each}")
        for each in await asyncio.to_thread(gateway.stop):
            ledger.fail("the soak itself", each)
        ledger.count("log", requests=gateway.lines)
        for each in gateway.errors:
            ledger.fail("log", each)
    warm_up = min(120.0, seconds / 4)
    show(ledger, samples, warm_up, seconds)
    if out is not None:
        write(out, samples)
    wrong = verdict(ledger, samples, warm_up, seconds)
    print(*(f"FAILED: {each}" for each in wrong), f"seed {seed}", sep="\n", flush=True)
    return 1 if wrong else 0


async def all_answer(client: Client, timeout: float, *, raises: bool = True) -> list[str]:
    """Until each model answers its probe and the server is ready; what does not, within so many seconds."""
    deadline = time.monotonic() + timeout
    missing = ["?"]
    while missing and time.monotonic() < deadline:
        found = {model: await client.infer(model, *row, timeout=5) for model, row in PROBES.items()}
        missing = [f"{model}: {status} {body[:200]!r}" for model, (status, body) in found.items() if status != 200]
        status, body = await client.ask("GET", "/v2/health/ready")
        missing += [] if status == 200 else [f"the server: {status} {body[:300]!r}"]
        await asyncio.sleep(0.2)
    if missing and raises:
        raise RuntimeError(f"not ready within {timeout:g} s: {'; '.join(missing)}")
    return missing


async def under_way(
    folder: Path,
    client: Client,
    gateway: Gateway,
    mlflow: Mlflow,
    ledger: Ledger,
    samples: Samples,
    seconds: float,
    seed: int,
) -> None:
    """The load, the watcher and all events, for so many seconds."""
    rng = random.Random(seed)
    disturbance = Disturbance(client, ledger, rng, gateway, mlflow)
    pairs = json.loads((folder / "answers.json").read_text())
    programs = [
        Program("steady", {"url": client.place.url, "rate": RATE, "pairs": pairs}, ledger.steady),
        Program("watch", watching(client), ledger.watched),
    ]
    with Progress(ledger, samples, seconds, seed) as progress:
        for program in programs:
            await program.start()
        traffic = Traffic(client, ledger, rng)  # gRPC wants no process started beside it
        begin = time.monotonic()
        lanes = Lanes(ledger, progress)
        for kind, (event, gap) in events(traffic, disturbance).items():
            lanes.add(kind, event, gap, random.Random(f"{seed} {kind}"), seconds)
        for kind, at, incident in incidents(disturbance, seconds):
            lanes.once(kind, at, incident)
        sampling = asyncio.create_task(samples.run())
        try:
            while time.monotonic() < begin + seconds:
                await asyncio.sleep(0.5)
                progress.tick()
                if not gateway.running:
                    ledger.fail("the soak itself", "the gateway ended")
                    break
        finally:
            sampling.cancel()
            await lanes.finish()
            for wrong in [await program.stop() for program in programs]:
                if wrong:
                    ledger.fail("the soak itself", wrong)
            await traffic.close()


def watching(client: Client) -> dict[str, Any]:
    place = client.place
    return {
        "place": {"url": place.url, "grpc": place.grpc, "token": place.token},
        "bodies": PROBES,
        "counted": [model for model in PROBES if model != NOT_COUNTED],
    }


def events(traffic: Traffic, disturbance: Disturbance) -> dict[str, tuple[Event, float]]:
    """Each kind of event, and the seconds between two of them in the mean."""
    return {
        "kill": (disturbance.kill, 3),
        "hang": (disturbance.hang, 30),
        "poison": (disturbance.poison, 12),
        "roll": (disturbance.roll, 10),
        "load": (disturbance.repository, 8),
        "alias": (disturbance.alias, 30),
        "big": (traffic.big, 8),
        "print": (traffic.printed, 6),
        "abort": (traffic.abort, 2),
        "stream": (traffic.stream, 3),
        "gRPC": (traffic.unary, 0.5),
        "gRPC stream": (traffic.grpc_stream, 4),
        "attack": (traffic.attack, 10),
        "unread": (traffic.unread, 45),
        "held": (traffic.held, 45),
    }


def incidents(disturbance: Disturbance, seconds: float) -> list[tuple[str, float, Event]]:
    """What happens once: its name, when, and how."""
    away = min(120.0, seconds / 5)
    return [
        ("log unread", seconds * 0.25, lambda: disturbance.log_unread(min(10.0, seconds / 6))),
        ("MLflow away", seconds * 0.4, lambda: disturbance.mlflow_away(away, gone=seconds >= 120)),
    ]


class Lanes:
    """Each kind of event has one: the next begins at a random time after the last has ended."""

    def __init__(self, ledger: Ledger, progress: Progress) -> None:
        self._ledger = ledger
        self._progress = progress
        self._tasks: list[asyncio.Task[None]] = []
        self._ending = asyncio.Event()

    def add(self, kind: str, event: Event, gap: float, rng: random.Random, seconds: float) -> None:
        """The first one comes soon, so that a short soak has each kind too."""
        self._tasks.append(asyncio.create_task(self._lane(kind, event, gap, rng, min(gap, seconds / 3))))

    def once(self, kind: str, at: float, incident: Event) -> None:
        self._tasks.append(asyncio.create_task(self._once(kind, at, incident)))

    async def _lane(self, kind: str, event: Event, gap: float, rng: random.Random, soon: float) -> None:
        await self._pause(rng.uniform(0, soon))
        while not self._ending.is_set():
            await self._run(kind, event)
            await self._pause(rng.expovariate(1 / gap))

    async def _once(self, kind: str, at: float, incident: Event) -> None:
        await self._pause(at)
        self._progress.doing = kind
        await self._run(kind, incident)
        self._progress.doing = ""

    async def _run(self, kind: str, event: Event) -> None:
        if kind != "kill":  # counts itself, by model
            self._ledger.events[kind] += 1
        try:
            await event()
        except Exception as error:
            self._ledger.fail("the soak itself", f"{kind}: {error!r}")

    async def _pause(self, seconds: float) -> None:
        """So long, or until the end."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ending.wait(), seconds)

    async def finish(self, timeout: float = 90) -> None:
        """What is under way may end; what waits for its next turn does not begin."""
        self._ending.set()
        _, left = await asyncio.wait(self._tasks, timeout=timeout)
        for task in left:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def write(out: Path, samples: Samples) -> None:
    out.mkdir(parents=True, exist_ok=True)
    with (out / "samples.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(each.name for each in fields(Sample))
        table.writerows(astuple(sample) for sample in samples.all)


if __name__ == "__main__":
    sys.exit(main())
