"""Measurements to a table on the terminal, a JSON file and a plot."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

Row = dict[str, Any]


def machine() -> dict[str, Any]:
    """Where it was measured, and with what."""
    cpu = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    packages = ("modelhub-serving", "aiohttp", "uvloop", "orjson", "numpy", "mlflow", "scikit-learn")
    return {
        "cores": os.cpu_count(),
        "cpu": cpu[0] if cpu else "?",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
    }


def _lines(path: str) -> list[str]:
    file = Path(path)
    return file.read_text().splitlines() if file.exists() else []


def medians(rows: Iterable[Row], keys: tuple[str, ...], values: tuple[str, ...]) -> list[Row]:
    """One row for each combination of `keys`: the medians of `values` over its rounds, and the spread of the first."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    found = []
    for names, members in groups.items():
        row = dict(zip(keys, names, strict=True))
        for value in values:
            known = [member[value] for member in members if member.get(value) is not None]
            row[value] = statistics.median(known) if known else None
        known = [member[values[0]] for member in members]
        row["spread"] = f"{min(known):.0f}…{max(known):.0f}"
        row["rounds"] = len(members)
        found.append(row)
    return found


def table(title: str, rows: list[Row], columns: dict[str, str]) -> None:
    """`columns`: a row's key to its heading."""
    found = Table(title=title)
    for heading in columns.values():
        found.add_column(heading, justify="right" if heading[:1].islower() else "left")
    for row in rows:
        found.add_row(*(_text(row.get(key)) for key in columns))
    Console(width=None if sys.stdout.isatty() else 160).print(found)


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value)


def save(folder: Path, name: str, rows: list[Row], **more: Any) -> Path:
    """The run as JSON: `folder`/name-time.json."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}.json"
    file.write_text(json.dumps({"machine": machine(), **more, "rows": rows}, indent=1))
    return file


def plot(file: Path, rows: list[Row]) -> Path | None:
    """Requests per second and CPU per request, a bar per server, two panels per case; None without matplotlib."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt
    except ImportError:
        return None
    cases = list(dict.fromkeys((row["case"], row["connections"]) for row in rows))
    names = list(dict.fromkeys(row["server"] for row in rows))
    colours = dict(zip(names, plt.cm.tab10.colors * 3, strict=False))
    figure, axes = plt.subplots(2, len(cases), figsize=(1.9 * len(cases) + 1, 6), squeeze=False)
    for at, case in enumerate(cases):
        mine = [row for row in rows if (row["case"], row["connections"]) == case]
        for line, (value, unit) in enumerate((("rps", "requests / s"), ("cpu_us", "CPU µs / request"))):
            axis = axes[line][at]
            axis.bar(
                [row["server"] for row in mine],
                [row[value] or 0 for row in mine],
                color=[colours[row["server"]] for row in mine],
            )
            axis.tick_params(axis="x", rotation=60, labelsize=7)
            axis.tick_params(axis="y", labelsize=7)
            if line == 0:
                axis.set_title(f"{case[0]}\n{case[1]} connections", fontsize=8)
            if at == 0:
                axis.set_ylabel(unit, fontsize=8)
    figure.tight_layout()
    image = file.with_suffix(".png")
    figure.savefig(image, dpi=130)
    plt.close(figure)
    return image
