"""What commands ask of a running gateway over HTTP: `modelhub status` and `modelhub reload`.

A running gateway leaves `<state_dir>/gateways/<pid>@<host>.json` with `{"pid", "host", "url", "admin_url", "grpc_url",
"token_file", "started"}`; without a URL the newest one of this host whose process is alive is asked. Its token comes
from the file that the note names, or, for a gateway elsewhere, from the variable MODELHUB_ADMIN_TOKEN.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ...config.addresses import UNIX
from ...config.load import load_server
from ...protocol.errors import ConfigError, NotFound, ServingError
from ..system.processes import alive

#: Seconds. Reloading reads files and asks the registry before it answers.
_STATUS_WITHIN = 10.0
_RELOAD_WITHIN = 60.0
#: The variable with the token of a gateway that has left no note here.
TOKEN_VARIABLE = "MODELHUB_ADMIN_TOKEN"


#: Statuses: the token is missing or wrong; not from here.
_REFUSED = (401, 403)


class Running(NamedTuple):
    """A gateway of this machine, from the file that it keeps while it runs."""

    pid: int
    #: For operators, and everybody's.
    url: str
    main_url: str
    started: float
    #: Where its token is; "" where it wants none.
    token_file: str


class Address(NamedTuple):
    """Where a gateway is asked, and the token that it wants; "" where none is known."""

    url: str
    token: str = ""


def find_gateway(flags: Mapping[str, str], url: str | None = None) -> Address:
    """The address (the admin port's) of the newest gateway that runs here, or `url`, and its token. Raises NotFound.

    A token is sent only where it belongs: to the gateway whose note names it, or where the variable was set.
    """
    state_dir = Path(load_server(flags=flags).state_dir)
    running = running_gateways(state_dir)
    if url is not None:
        wanted = _plain(url)
        running = [one for one in running if wanted in (_plain(one.url), _plain(one.main_url))]
    newest = next(iter(running), None)
    token = os.environ.get(TOKEN_VARIABLE) or (_token_in(newest.token_file) if newest is not None else "")
    if url is not None:
        return Address(url, token)
    if newest is None:
        raise NotFound(
            f"no gateway is running here (none has left its address in {state_dir / 'gateways'}); "
            "start one with 'modelhub serve', or give its URL"
        )
    return Address(newest.url, token)


def _token_in(file: str) -> str:
    try:
        return Path(file).read_text().strip() if file else ""
    except OSError:
        return ""  # another user's gateway: it will say that a token is missing


def running_gateways(state_dir: Path) -> list[Running]:
    """The gateways that run with this state directory, the newest first."""
    found = []
    here = os.uname().nodename
    for path in (state_dir / "gateways").glob("*.json"):
        try:
            said = json.loads(path.read_text())
            url, admin_url = str(said["url"]), str(said.get("admin_url") or said["url"])
            token_file, started = str(said.get("token_file", "")), float(said["started"])
            one = Running(int(said["pid"]), admin_url, url, started, token_file)
        except (OSError, ValueError, KeyError, TypeError):
            continue  # half written, or of another version: its gateway can still be asked by its URL
        if said.get("host", here) == here and alive(one.pid):
            found.append(one)
    return sorted(found, key=lambda one: one.started, reverse=True)


def fetch_status(address: Address) -> dict[str, Any]:
    """The gateway's status (`GET /status`); ServingError names the address and what to do."""
    url = _url(address.url, "/status")
    try:
        status = _ask(url, None, address.token, _STATUS_WITHIN)
    except urllib.error.HTTPError as error:
        if error.code in _REFUSED:
            raise _refused(url, error) from None
        raise ServingError(
            f"{url} answered {error.code}; /status is on the admin address of a gateway (server.admin)"
        ) from None
    if not isinstance(status, dict) or "models" not in status:
        raise ServingError(f"{url} did not answer as a gateway does")
    return status


def reload(address: Address) -> str:
    """Have it read its configuration again (`POST /admin/reload`); what has changed.

    Raises ConfigError, with the gateway's words, when its file is not valid.
    """
    url = _url(address.url, "/admin/reload")
    try:
        answer = _ask(url, b"", address.token, _RELOAD_WITHIN)
    except urllib.error.HTTPError as error:
        if error.code in _REFUSED:
            raise _refused(url, error) from None
        said = _error_of(error)
        if error.code == 400:
            raise ConfigError(f"nothing was changed: {said}") from None
        hint = "; reloading is open on the admin address of a gateway (server.admin)" if error.code != 503 else ""
        raise ServingError(f"{url} answered {error.code}: {said}{hint}") from None
    if not isinstance(answer, dict) or "changes" not in answer:
        raise ServingError(f"{url} did not answer as a gateway does")
    return str(answer["changes"])


def _base(address: str) -> str:
    """The address as a URL without a path of ours; that of a Unix socket as it is."""
    if address.startswith(UNIX):
        return UNIX + os.path.abspath(address.removeprefix(UNIX).removeprefix("//"))
    base = (address if "://" in address else f"http://{address}").rstrip("/")
    for path in ("/status", "/admin/reload"):
        base = base.removesuffix(path)
    return base.rstrip("/")


def _plain(address: str) -> str:
    """Two addresses of one gateway on this machine are the same."""
    base = _base(address)
    for host in ("localhost", "[::1]"):
        base = base.replace(f"://{host}:", "://127.0.0.1:")
    return base


def _url(address: str, path: str) -> str:
    """With the path; a Unix socket's is `unix:/socket` and a blank before it."""
    base = _base(address)
    if base.startswith(UNIX):
        return f"{base} {path}"
    if not base.startswith(("http://", "https://")):
        raise ServingError(f"{address} is no http address")
    return base + path


def _refused(url: str, error: urllib.error.HTTPError) -> ServingError:
    hint = f"; set {TOKEN_VARIABLE} to what the gateway's token file holds" if error.code == _REFUSED[0] else ""
    return ServingError(f"{url} answered {error.code}: {_error_of(error)}{hint}")


def _ask(url: str, body: bytes | None, token: str, within: float) -> Any:
    """The answer's JSON. Raises HTTPError for another status than 200, ServingError where no gateway answers."""
    # Proxies of the environment are not for a gateway that is usually on this machine.
    handlers: list[Any] = [urllib.request.ProxyHandler({}), _NoRedirects]
    asked = url
    if url.startswith(UNIX):
        socket_path, _, path = url.removeprefix(UNIX).rpartition(" ")
        handlers.append(_UnixHandler(socket_path))
        asked = f"http://localhost{path}"
    opener = urllib.request.build_opener(*handlers)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with opener.open(urllib.request.Request(asked, body, headers), timeout=within) as answer:
            return json.load(answer)
    except urllib.error.HTTPError:
        raise
    except urllib.error.URLError as error:
        raise ServingError(f"{url} does not answer ({error.reason}); is the gateway running?") from None
    except TimeoutError:
        raise ServingError(f"{url} did not answer within {within:.0f} s") from None
    except (ValueError, OSError) as error:
        raise ServingError(f"{url} did not answer as a gateway does ({error})") from None


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A gateway sends nobody elsewhere, least of all with its token."""

    def redirect_request(self, *_: Any) -> None:
        return None


class _UnixHandler(urllib.request.HTTPHandler):
    """Every host is behind one Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        path = self._path

        class Connection(http.client.HTTPConnection):
            def connect(self) -> None:
                self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                self.sock.settimeout(self.timeout)
                self.sock.connect(path)

        return self.do_open(Connection, req)


def _error_of(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.load(error)["error"])
    except (ValueError, KeyError, TypeError):
        return str(error.reason)
