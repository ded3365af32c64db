"""What commands ask of a running gateway over HTTP: `modelhub status` and `modelhub reload`.

A running gateway leaves `<state_dir>/gateways/<pid>@<host>.json` with `{"pid", "host", "url", "admin_url", "started"}`;
without a URL the newest one of this host whose process is alive is asked.
"""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ...config.load import load_server
from ...protocol.errors import ConfigError, NotFound, ServingError
from ..system.processes import alive

#: Seconds. Reloading reads files and asks the registry before it answers.
_STATUS_WITHIN = 10.0
_RELOAD_WITHIN = 60.0


class Running(NamedTuple):
    """A gateway of this machine, from the file that it keeps while it runs."""

    pid: int
    url: str
    started: float


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
    """The gateway's status (`GET /status`); ServingError names the address and what to do."""
    url = _url(address, "/status")
    try:
        status = _ask(url, None, _STATUS_WITHIN)
    except urllib.error.HTTPError as error:
        raise ServingError(
            f"{url} answered {error.code}; /status is on the admin address of a gateway (server.admin)"
        ) from None
    if not isinstance(status, dict) or "models" not in status:
        raise ServingError(f"{url} did not answer as a gateway does")
    return status


def reload(address: str) -> str:
    """Have it read its configuration again (`POST /admin/reload`); what has changed.

    Raises ConfigError, with the gateway's words, when its file is not valid.
    """
    url = _url(address, "/admin/reload")
    try:
        answer = _ask(url, b"", _RELOAD_WITHIN)
    except urllib.error.HTTPError as error:
        said = _error_of(error)
        if error.code == 400:
            raise ConfigError(f"nothing was changed: {said}") from None
        hint = "; reloading is open on the admin address of a gateway (server.admin)" if error.code != 503 else ""
        raise ServingError(f"{url} answered {error.code}: {said}{hint}") from None
    if not isinstance(answer, dict) or "changes" not in answer:
        raise ServingError(f"{url} did not answer as a gateway does")
    return str(answer["changes"])


def _url(address: str, path: str) -> str:
    base = address if "://" in address else f"http://{address}"
    if not base.startswith(("http://", "https://")):
        raise ServingError(f"{address} is no http address")
    return base.rstrip("/").removesuffix(path) + path


def _ask(url: str, body: bytes | None, within: float) -> Any:
    """The answer's JSON. Raises HTTPError for another status than 200, ServingError where no gateway answers."""
    # Proxies of the environment are not for a gateway that is usually on this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(urllib.request.Request(url, body), timeout=within) as answer:
            return json.load(answer)
    except urllib.error.HTTPError:
        raise
    except urllib.error.URLError as error:
        raise ServingError(f"{url} does not answer ({error.reason}); is the gateway running?") from None
    except TimeoutError:
        raise ServingError(f"{url} did not answer within {within:.0f} s") from None
    except (ValueError, OSError) as error:
        raise ServingError(f"{url} did not answer as a gateway does ({error})") from None


def _error_of(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.load(error)["error"])
    except (ValueError, KeyError, TypeError):
        return str(error.reason)
