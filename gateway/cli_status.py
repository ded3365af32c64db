"""`modelhub status`: asks a running gateway for `GET /status` and shows the answer as a table.

A running gateway leaves `<state_dir>/gateways/<pid>@<host>.json` with `{"pid", "host", "url", "admin_url", "started"}`;
without a URL the newest one of this host whose process is alive is asked.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..config.load import load_server
from ..config.quantities import format_duration, format_size
from ..protocol.errors import NotFound, ServingError
from .processes import alive

_ANSWER_WITHIN = 10.0
_FILE_WIDTH = 1000
_STYLES = {"READY": "green", "FAILED": "red", "UNLOADED": "dim"}


class Running(NamedTuple):
    """A gateway of this machine, from the file that it keeps while it runs."""

    pid: int
    url: str
    started: float


def show(address: str | None, flags: Mapping[str, str], *, as_json: bool) -> int:
    """Print the status of the gateway at the address, or of the newest one that runs here; 0."""
    if address is None:
        address = find_gateway(flags)
    status = fetch_status(address)
    if as_json:
        print(json.dumps(status, indent=2))
    else:
        Console(width=None if sys.stdout.isatty() else _FILE_WIDTH).print(render(status, address))
    return 0


def find_gateway(flags: Mapping[str, str]) -> str:
    """The address (the admin port's) of the newest gateway that runs here. Raises NotFound."""
    state_dir = Path(load_server(flags=flags).state_dir)
    newest = next(iter(running_gateways(state_dir)), None)
    if newest is None:
        raise NotFound(
            f"no gateway is running here (none has left its address in {state_dir / 'gateways'}); "
            "start one with 'modelhub serve', or give its URL"
        )
    return newest.url


def running_gateways(state_dir: Path) -> list[Running]:
    """The gateways that run with this state directory, the newest first."""
    found = []
    here = os.uname().nodename
    for path in (state_dir / "gateways").glob("*.json"):
        try:
            said = json.loads(path.read_text())
            one = Running(int(said["pid"]), str(said.get("admin_url") or said["url"]), float(said["started"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue  # half written, or of another version: its gateway can still be asked by its URL
        if said.get("host", here) == here and alive(one.pid):
            found.append(one)
    return sorted(found, key=lambda one: one.started, reverse=True)


def fetch_status(address: str) -> dict[str, Any]:
    """The gateway's status; ServingError names the address and what to do."""
    url = address if "://" in address else f"http://{address}"
    url = url.rstrip("/").removesuffix("/status") + "/status"
    if not url.startswith(("http://", "https://")):
        raise ServingError(f"{address} is no http address")
    # Proxies of the environment are not for a gateway that is usually on this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=_ANSWER_WITHIN) as answer:
            status = json.load(answer)
    except urllib.error.HTTPError as error:
        raise ServingError(
            f"{url} answered {error.code}; /status is on the admin address of a gateway (server.admin)"
        ) from None
    except urllib.error.URLError as error:
        raise ServingError(f"{url} does not answer ({error.reason}); is the gateway running?") from None
    except TimeoutError:
        raise ServingError(f"{url} did not answer within {_ANSWER_WITHIN:.0f} s") from None
    except (ValueError, OSError) as error:
        raise ServingError(f"{url} did not answer as a gateway does ({error})") from None
    if not isinstance(status, dict) or "models" not in status:
        raise ServingError(f"{url} did not answer as a gateway does")
    return status


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
