"""Five hundred models behind a budget for forty: what lazy loading and eviction cost, and whether the budget holds.

    python bench/lazy.py [--seconds 120] [--rate 30] [--models 500] [--room 40] [--out FOLDER]

Requests come at random times, in an open loop, to models drawn by Zipf's law (s = 1.1) with a fixed seed; each
has 30 s. Without --rate the rate is sought at which 60 % of the machine's cores are busy. Two runs: in the first the
sizes of the models are not known, in the second they are (memory.json of the first). Memory is read from /proc,
beside what the gateway believes. --out gets a plot and the samples of each run.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import csv
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import uvloop

MODELHUB = Path(sys.executable).with_name("modelhub")
SEED, EXPONENT = 20_240, 1.1
DEADLINE = 30
TARGET = 0.6  # of the cores
MIB = 1 << 20

KINDS = """
import mlflow, numpy as np, sys
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec
from sklearn.datasets import load_digits, load_iris
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC
iris, digits = load_iris(return_X_y=True), load_digits(return_X_y=True)
for name, model, (x, y) in (
    ("logistic", LogisticRegression(max_iter=500), iris),
    ("boosting", HistGradientBoostingClassifier(max_iter=40), iris),
    ("vectors", SVC(), digits),
    ("neighbours", KNeighborsClassifier(), digits),
    ("forest", RandomForestClassifier(100, random_state=0), digits),
):
    mlflow.sklearn.save_model(
        model.fit(x, y), sys.argv[1] + "/" + name, input_example=x[:2], serialization_format="cloudpickle",
        signature=ModelSignature(Schema([TensorSpec(np.dtype("float64"), (-1, x.shape[1]))])),
        pip_requirements=["mlflow", "scikit-learn"],
    )
"""
COLUMNS = {"logistic": 4, "boosting": 4, "vectors": 64, "neighbours": 64, "forest": 64}


def make_models(folder: Path, count: int) -> list[Path]:
    """Copies of five kinds of scikit-learn models, each in a folder of its own."""
    kinds = folder / "kinds"
    kinds.mkdir()
    subprocess.run([sys.executable, "-c", KINDS, str(kinds)], check=True, stderr=subprocess.DEVNULL)
    names = list(COLUMNS)
    copies = []
    for number in range(count):
        copies.append(folder / "models" / f"m{number:03d}")
        shutil.copytree(kinds / names[number % len(names)], copies[-1])
    return copies


def body_of(number: int) -> bytes:
    columns = COLUMNS[list(COLUMNS)[number % len(COLUMNS)]]
    data = {"name": "input-0", "shape": [1, columns], "datatype": "FP64", "data": [1.0] * columns}
    return json.dumps({"inputs": [data]}).encode()


# ---- the gateway and its processes ----------------------------------------------------------------


class Served:
    """A gateway of its own with one lazy group."""

    def __init__(self, models: list[Path], folder: Path, budget: int | None) -> None:
        entries = [{"name": path.name, "uri": str(path)} for path in models]
        group: dict[str, Any] = {"name": "all", "load": "lazy", "models": entries}
        if budget:
            group["memory_budget"] = budget
        server = {"host": "127.0.0.1", "port": 0, "state_dir": str(folder / "state"), "log": {"level": "warning"}}
        config = folder / "lazy.yaml"
        content = {"server": server, "defaults": {"environment": "shared"}, "groups": [group]}
        config.write_text(json.dumps(content))
        began = time.monotonic()
        self.log = folder / "log"
        with self.log.open("a") as log:
            self._process = subprocess.Popen([str(MODELHUB), "serve", str(config)], stderr=log)
        self.pid = self._process.pid
        self.process = psutil.Process(self.pid)
        note = folder / "state" / "gateways" / f"{self.pid}@{os.uname().nodename}.json"
        while not note.exists() and self._process.poll() is None and time.monotonic() < began + 60:
            time.sleep(0.01)
        self.url = json.loads(note.read_text())["url"]
        self.ready_after = time.monotonic() - began
        cpu = self.process.cpu_times()
        self.ready_cpu, self.ready_rss = cpu.user + cpu.system, self.process.memory_info().rss

    def workers(self) -> list[psutil.Process]:
        found = []
        for process in self.process.children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if "worker" in " ".join(process.cmdline()[:1]):
                    found.append(process)
        return found

    def memory(self) -> tuple[int, int, int]:
        """Private bytes of all workers and of the largest one, and how many there are."""
        sizes = [private(process.pid) for process in self.workers()]
        return sum(sizes), max(sizes, default=0), len(sizes)

    def cpu(self) -> float:
        """Seconds of CPU of the gateway and all below it, those that have ended included."""
        total = 0.0
        for process in [self.process, *self.process.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                total += times.user + times.system + times.children_user + times.children_system
        return total

    async def counters(self, session: aiohttp.ClientSession) -> Counter[str]:
        """Sums over the models of the counters that matter here."""
        found: Counter[str] = Counter()
        async with session.get(self.url + "/metrics") as answer:
            for line in (await answer.text()).splitlines():
                name, _, value = line.rpartition(" ")
                if name.startswith("modelhub_group_"):
                    found[name.partition("{")[0]] = float(value)  # type: ignore[assignment]
                elif name.startswith("modelhub_state_changes_total") and 'state="LOADING"' in name:
                    found["loads"] += int(float(value))
        return found

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(60)


def private(pid: int) -> int:
    """Private bytes of a process; 0 when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Private_"))


@contextlib.contextmanager
def served(models: list[Path], folder: Path, budget: int | None) -> Iterator[Served]:
    folder.mkdir(exist_ok=True)
    running = Served(models, folder, budget)
    try:
        yield running
    finally:
        running.stop()


# ---- load -----------------------------------------------------------------------------------------


@dataclass
class Sample:
    """One look at everything, seconds since the begin."""

    at: float
    memory: int
    largest: int
    workers: int
    believed: float = 0
    loads: int = 0


@dataclass
class Run:
    """What one run has seen."""

    seconds: float = 0.0
    cpu: float = 0.0  # of the server and this generator, of all cores
    machine: float = 0.0  # of everything on this machine
    latencies: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    counted: Counter[str] = field(default_factory=Counter)


def schedule(models: int, rate: float, seconds: float, seed: int) -> list[tuple[float, int]]:
    """(when, which): exponential gaps, and Zipf's law over a shuffled order of the models."""
    chance = random.Random(seed)
    order = list(range(models))
    chance.shuffle(order)
    weights = [(rank + 1) ** -EXPONENT for rank in range(models)]
    at, times = 0.0, []
    while (at := at + chance.expovariate(rate)) < seconds:
        times.append(at)
    return list(zip(times, chance.choices(order, weights, k=len(times)), strict=True))


async def drive(running: Served, plan: list[tuple[float, int]], *, sampled: bool = True) -> Run:
    """Send what is planned when it is due, whatever comes back."""
    run = Run()
    bodies = [body_of(number) for number in range(len(COLUMNS))]
    headers = {"Content-Type": "application/json", "X-Request-Timeout": f"{DEADLINE}s"}
    connector = aiohttp.TCPConnector(limit=0)
    own = time.process_time()
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(DEADLINE + 5)) as session:
        before, cpu, began = await running.counters(session), running.cpu(), time.monotonic()
        psutil.cpu_percent()

        async def ask(due: float, number: int) -> None:
            url = f"{running.url}/v2/models/m{number:03d}/infer"
            try:
                async with session.post(url, data=bodies[number % len(bodies)], headers=headers) as answer:
                    text = await answer.text()
                    status = str(answer.status)
                    if answer.status != 200:
                        run.errors.append(f"m{number:03d} {status}: {text[:300]}")
            except (aiohttp.ClientError, asyncio.TimeoutError) as error:
                status = type(error).__name__
                run.errors.append(f"m{number:03d} {status}: {error}")
            run.statuses[status] += 1
            run.latencies.append(time.monotonic() - began - due)

        async def watch() -> None:
            while True:
                memory, largest, workers = await asyncio.to_thread(running.memory)
                found = await running.counters(session)
                at = time.monotonic() - began
                believed = found["modelhub_group_memory_used_bytes"]
                run.samples.append(Sample(at, memory, largest, workers, believed, found["loads"] - before["loads"]))
                await asyncio.sleep(1)

        watcher = asyncio.create_task(watch()) if sampled else None
        tasks = []
        for due, number in plan:
            await asyncio.sleep(max(began + due - time.monotonic(), 0))
            tasks.append(asyncio.create_task(ask(due, number)))
        await asyncio.gather(*tasks)
        if watcher is not None:
            watcher.cancel()
        run.seconds = time.monotonic() - began
        run.machine = psutil.cpu_percent() / 100
        run.cpu = (running.cpu() - cpu + time.process_time() - own) / run.seconds / (psutil.cpu_count() or 1)
        run.counted = await running.counters(session)
        run.counted.subtract(before)
    return run


async def mean_size(models: list[Path], folder: Path) -> int:
    """Private bytes of a loaded model that has answered some requests, the mean of ten."""
    with served(models, folder, None) as running:
        await drive(running, [(0.0, number) for number in range(10) for _ in range(10)], sampled=False)
        memory, _, workers = running.memory()
    return memory // workers


async def find_rate(models: list[Path], folder: Path, budget: int) -> float:
    """Requests a second at which the cores are busy for TARGET of the time; others on the machine count too."""
    rate = 15.0
    with served(models, folder, budget) as running:
        await drive(running, schedule(len(models), rate, 10, SEED - 1), sampled=False)
        for seed in (1, 2, 3):
            run = await drive(running, schedule(len(models), rate, 10, SEED + seed))
            print(f"  {rate:.0f} requests/s: {run.machine:.0%} of the cores busy, {run.cpu:.0%} with this", flush=True)
            rate = max(rate * min(max(TARGET / run.machine, 0.5), 2.0), 10.0)
    return rate


# ---- what is said of it ---------------------------------------------------------------------------


def report(title: str, run: Run, budget: int) -> bool:
    """Print a run; whether the budget held and nothing failed."""
    asked, loads = len(run.latencies), run.counted["loads"]
    ordered = sorted(run.latencies)
    highest = max(run.samples, key=lambda sample: sample.memory)
    over = highest.memory - budget
    failed = asked - run.statuses["200"]
    print(f"{title}: {asked} requests in {run.seconds:.0f} s, {asked / run.seconds:.1f}/s, ", end="")
    print(f"{run.cpu:.0%} of the cores ({run.machine:.0%} busy)")
    print(f"  hit rate {1 - loads / asked:.1%}, {loads / run.seconds:.1f} loads/s, ", end="")
    print(f"{run.counted['modelhub_group_evictions_total']:.0f} evictions")
    print(f"  latency p50 {statistics.median(ordered) * 1000:.0f} ms, ", end="")
    print(f"p99 {ordered[int(asked * 0.99)] * 1000:.0f} ms, max {ordered[-1] * 1000:.0f} ms")
    print(f"  memory at most {highest.memory / MIB:.0f} MiB of {budget / MIB:.0f} ({over / MIB:+.1f} MiB), ", end="")
    mean = statistics.mean(sample.workers for sample in run.samples)
    print(f"largest model {highest.largest / MIB:.0f} MiB, {mean:.0f} models loaded")
    print(f"  {failed} failed {dict(run.statuses)}", *run.errors[:3], sep="\n    ", flush=True)
    return not failed


def write(out: Path, runs: dict[str, Run], budget: int) -> None:
    """The samples as CSV, and a plot of them where matplotlib is installed."""
    out.mkdir(parents=True, exist_ok=True)
    for name, run in runs.items():
        with (out / f"lazy-{name}.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["seconds", "private_bytes", "believed_bytes", "workers", "loads"])
            table.writerows([round(s.at, 2), s.memory, int(s.believed), s.workers, s.loads] for s in run.samples)
    try:
        import matplotlib
    except ImportError:
        print("no plot: matplotlib is not installed")
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, rows = pyplot.subplots(2, len(runs), figsize=(5.5 * len(runs), 5), sharex=True, sharey="row", squeeze=False)
    for column, (name, run) in enumerate(runs.items()):
        at = [sample.at for sample in run.samples]
        upper, lower = rows[0][column], rows[1][column]
        upper.axhline(budget / MIB, color="firebrick", linestyle="--", label="budget")
        upper.plot(at, [sample.memory / MIB for sample in run.samples], label="measured")
        upper.plot(at, [sample.believed / MIB for sample in run.samples], label="reserved", alpha=0.6)
        upper.set(title=f"sizes {name}", ylabel="MiB, private" if not column else "", ylim=(0, None))
        upper.legend(loc="lower right")
        loads = [b.loads - a.loads for a, b in zip(run.samples, run.samples[1:], strict=False)]
        gaps = [b.at - a.at for a, b in zip(run.samples, run.samples[1:], strict=False)]
        lower.plot(at[1:], [count / gap for count, gap in zip(loads, gaps, strict=True)])
        lower.set(xlabel="seconds", ylabel="loads per second" if not column else "", ylim=(0, None))
    figure.tight_layout()
    figure.savefig(out / "lazy.svg")
    print(f"plot: {out / 'lazy.svg'}")


async def run_all(options: argparse.Namespace, folder: Path) -> int:
    models = make_models(folder, options.models)
    with served(models, folder / "start", None) as running:
        print(
            f"{options.models} models: listening after {running.ready_after:.2f} s and {running.ready_cpu:.2f} s of "
            f"CPU, {running.ready_rss / MIB:.0f} MiB resident"
        )
    size = await mean_size(models, folder / "size")
    budget = size * options.room
    print(f"a model takes {size / MIB:.1f} MiB: the budget for {options.room} is {budget / MIB:.0f} MiB", flush=True)
    rate = options.rate or await find_rate(models, folder / "rate", budget)
    plan = schedule(options.models, rate, options.seconds, SEED)
    runs: dict[str, Run] = {}
    good = True
    for name in ("unknown", "known"):
        with served(models, folder / "run", budget) as running:
            await drive(running, [(0.0, plan[0][1])], sampled=False)  # the fork server's start is not the question here
            runs[name] = await drive(running, plan)
        good = report(f"sizes {name}", runs[name], budget) and good
    for line in (folder / "run" / "log").read_text().splitlines()[:5]:
        print("  log:", line[:300])
    if options.out:
        write(options.out, runs, budget)
    return 0 if good else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=120, help="of each run (default: 120)")
    parser.add_argument("--rate", type=float, help="requests per second (default: sought)")
    parser.add_argument("--models", type=int, default=500)
    parser.add_argument("--room", type=int, default=40, help="models that the budget has room for (default: 40)")
    parser.add_argument("--out", type=Path, help="a folder for the plot and the samples")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        return uvloop.run(run_all(options, Path(folder)))


if __name__ == "__main__":
    sys.exit(main())
