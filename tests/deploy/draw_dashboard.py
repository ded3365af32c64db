"""Draws what the dashboard shows into docs/dashboard.png, from a real Prometheus that scrapes a real gateway.

    CHECK_DEPLOY=1 python tests/deploy/draw_dashboard.py        (after `make check-deploy`; takes a minute and a half)

Ten models are asked for a minute; one is killed, one is rolled, the lazy ones evict each other. The queries are the
dashboard's own; Grafana is not needed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "deploy")]

import matplotlib as mpl  # noqa: E402

mpl.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402
from observed import LAZY, ask, configuration, kill, tensor  # noqa: E402
from prometheus_server import prometheus, scraping  # noqa: E402
from test_observability import roll  # noqa: E402

from support.gateway_process import Gateway  # noqa: E402
from support.model_store import fixture_models  # noqa: E402

SECONDS = 60
PANELS = (
    "Requests by model",
    "Errors by model and status",
    "Latency p99",
    "Where the time goes (mean)",
    "Waiting in the gateway",
    "Versions by state",
    "Private memory of workers",
    "Evictions, and loads soon after",
    "Workers that ended by themselves",
)
UNITS = {"s": ("ms", 1e3), "bytes": ("MB", 1e-6), "reqps": ("per second", 1.0)}


def load(gateway: Gateway, models: Path, until: float) -> None:
    """A minute's traffic with its accidents."""
    stop = threading.Event()

    def steady(model: str, pause: float, value: float) -> None:
        while not stop.wait(pause):
            ask(gateway, model, tensor([[value, value]]))

    threads = [threading.Thread(target=steady, args=("slow", 0.01, 60.0), daemon=True) for _ in range(5)]
    steadies = (("identity", 0.02, 1.0), ("counting", 0.03, 1.0), ("faulty", 0.5, 1.0), ("fragile", 0.05, 1.0))
    threads += [threading.Thread(target=steady, args=each, daemon=True) for each in steadies]
    for thread in threads:
        thread.start()
    began = time.monotonic()
    killed = rolled = False
    while time.monotonic() < until:
        for name in LAZY:
            ask(gateway, name)
            stop.wait(1.5)
        if not killed and time.monotonic() - began > SECONDS / 3:
            kill(gateway)
            killed = True
        if not rolled and time.monotonic() - began > SECONDS / 2:
            roll(gateway, "identity", models / "echo")
            rolled = True
    stop.set()
    for thread in threads:
        thread.join()


def series(url: str, text: str, begin: float, end: float) -> list[dict[str, Any]]:
    asked = urllib.parse.urlencode({"query": text, "start": begin, "end": end, "step": 1})
    with urllib.request.urlopen(f"{url}/api/v1/query_range?{asked}", timeout=30) as answer:
        return list(json.loads(answer.read())["data"]["result"])


def draw(url: str, begin: float, end: float, target: Path) -> None:
    files = ROOT / "deploy" / "helm" / "modelhub-serving" / "files"
    panels = {panel["title"]: panel for panel in json.loads((files / "dashboard.json").read_text())["panels"]}
    figure, axes = plt.subplots(3, 3, figsize=(16, 10))
    for axis, title in zip(axes.flat, PANELS, strict=True):
        panel = panels[title]
        unit, factor = UNITS.get(panel["fieldConfig"]["defaults"]["unit"], ("", 1.0))
        stacked = "stacking" in panel["fieldConfig"]["defaults"]["custom"]
        lines: dict[str, dict[float, float]] = {}
        for query in panel["targets"]:
            text = query["expr"].replace("$__rate_interval", "5s").replace("$model", ".*")
            for each in series(url, text, begin, end):
                name = query["legendFormat"]
                for label, value in each["metric"].items():
                    name = name.replace("{{" + label + "}}", value)
                lines[name] = {at - begin: float(value) * factor for at, value in each["values"] if value != "NaN"}
        moments = sorted({at for line in lines.values() for at in line})
        if stacked:
            values = [[line.get(at, 0.0) for at in moments] for line in lines.values()]
            axis.stackplot(moments, values, labels=list(lines), alpha=0.8)
        else:
            for name, line in lines.items():
                axis.plot(list(line), list(line.values()), label=name, linewidth=1.2)
        axis.set_title(f"{title}{f' ({unit})' if unit else ''}", fontsize=10, loc="left")
        axis.set_ylim(bottom=0)
        axis.set_xlim(0, SECONDS)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=6, ncols=2, loc="upper left")
        axis.tick_params(labelsize=7)
    figure.supxlabel("seconds", fontsize=8)
    figure.tight_layout()
    figure.savefig(target, dpi=80)


def main() -> None:
    models = fixture_models(ROOT / ".pytest_cache" / "d" / "models")
    command = [str(ROOT / "tests" / "deploy" / "get-prometheus"), str(ROOT / ".venvs" / "prometheus")]
    binaries = Path(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())
    rules = ROOT / "deploy" / "helm" / "modelhub-serving" / "files" / "alerts.yaml"
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        gateway = Gateway(configuration(models, folder), folder)
        try:
            gateway.wait_live()
            gateway.wait_ready()
            with prometheus(binaries, folder, scraping(gateway.url, rules)) as server:
                server.wait_for("count(modelhub_model_ready == 1) == 10")
                begin = time.time()
                load(gateway, models, time.monotonic() + SECONDS)
                draw(server.url, begin, time.time(), ROOT / "docs" / "dashboard.png")
            gateway.stop()
        finally:
            gateway.kill()


if __name__ == "__main__":
    main()
