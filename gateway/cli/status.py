"""`modelhub status`: the state of a running gateway as a table."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from ...config.quantities import format_duration, format_size

_FILE_WIDTH = 1000
_STYLES = {"READY": "green", "FAILED": "red", "UNLOADED": "dim"}


def show(status: Mapping[str, Any], address: str) -> None:
    """Print what the gateway at this address has answered."""
    Console(width=None if sys.stdout.isatty() else _FILE_WIDTH).print(render(status, address))


def render(status: Mapping[str, Any], address: str) -> RenderableType:
    """The status for a terminal: a line on the server, what keeps it from being ready, a row per model version."""
    server = status.get("server") or {}
    return Group(*_server_lines(server, address), Text(""), _models(status["models"]), *_reasons(status["models"]))


def _server_lines(server: Mapping[str, Any], address: str) -> Iterator[Text]:
    ready = bool(server.get("ready"))
    head = Text.assemble(
        ("ready" if ready else "NOT READY", "bold green" if ready else "bold red"),
        f"  {address}  version {server.get('version', '?')}  pid {server.get('pid', '?')}",
        f"  up {format_duration(server.get('uptime_s') or 0)}",
    )
    memory = server.get("memory") or {}
    sizes = [f"{name} {format_size(size)}" for name, size in memory.items() if isinstance(size, (int, float))]
    if sizes:
        head.append("  memory " + ", ".join(sizes))
    yield head
    for name, reason in (server.get("reasons") or {}).items():
        yield Text(f"not ready because of {name}: {reason}", style="red")


def _models(models: Iterable[Mapping[str, Any]]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("model", "version", "state", "workers", "restarts", "memory", "python", "environment"):
        table.add_column(title, overflow="fold", justify="right" if title in ("restarts", "memory") else "left")
    for title in ("in flight", "queued", "done", "failed"):
        table.add_column(title, justify="right")
    for model in models:
        replicas = model.get("replicas") or []
        requests = model.get("requests") or {}
        memory = sum(one.get("memory_private") or 0 for one in replicas)
        table.add_row(
            Text(str(model.get("name"))),
            Text(str(model.get("version") or "-")),
            _state(model),
            Text(" ".join(_worker(one) for one in replicas) or "-"),
            str(sum(one.get("restarts") or 0 for one in replicas)),
            format_size(memory) if memory else "-",
            Text(str(model.get("python") or "-")),
            Text(str(model.get("environment") or "-")),
            *(str(requests.get(key, 0)) for key in ("in_flight", "queued", "succeeded", "failed")),
        )
    return table


def _reasons(models: Iterable[Mapping[str, Any]]) -> Iterator[Text]:
    """A line per model version that has something to say; too long for a column."""
    for model in models:
        if model.get("reason"):
            name = f"{model.get('name')}/{model['version']}" if model.get("version") else str(model.get("name"))
            yield Text(f"{name}: {model['reason']}", style=_STYLES.get(str(model.get("state")), "yellow"))


def _state(model: Mapping[str, Any]) -> Text:
    state = str(model.get("state"))
    elapsed = model.get("phase_s")
    shown = f"{state} {format_duration(elapsed)}" if isinstance(elapsed, (int, float)) else state
    return Text(shown, style=_STYLES.get(state, "yellow"))


def _worker(replica: Mapping[str, Any]) -> str:
    """The worker's process id, with its state where that is not the usual one."""
    pid, state = replica.get("pid"), replica.get("state")
    return str(pid or "-") if state in ("ready", None) else f"{pid or '-'}({state})"
