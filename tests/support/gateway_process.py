"""The real gateway as a process of its own, and a plain HTTP client for it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import psutil
import yaml

from .processes import descendants, describe, guarded, survivors

MODELHUB = Path(sys.executable).with_name("modelhub")
#: How the paths begin that want the gateway's token.
FOR_OPERATORS = ("/status", "/admin/reload", "/v2/repository/models/")


class Answer(NamedTuple):
    """What a server answered; header names are lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Gateway:
    """One `modelhub serve FILE`. The constructor starts it, `wait_live` waits until it listens, `stop` ends it.

    `config` is the file's content (a mapping), a file, or anything else that `modelhub serve` takes. A mapping gets
    127.0.0.1, a free port, operators' routes on it and a state directory below `folder` unless it says otherwise.
    Requests for operators bring the gateway's token unless they bring an Authorization of their own. `wrap` makes the
    command line that is started of the gateway's own; by default one that ends with its parent.
    """

    def __init__(
        self,
        config: Mapping[str, Any] | Path | str,
        folder: Path,
        *,
        env: Mapping[str, str] | None = None,
        args: Sequence[str] = (),
        wrap: Callable[[list[str]], list[str]] = guarded,
    ) -> None:
        self.state_dir = folder / "state"
        self._log = folder / "gateway.log"
        if isinstance(config, Mapping):
            ours = {"host": "127.0.0.1", "port": 0, "admin": "same", "state_dir": str(self.state_dir)}
            content = {**config, "server": {**ours, **config.get("server", {})}}
            self.state_dir = Path(content["server"]["state_dir"])
            config = folder / "models.yaml"
            config.write_text(yaml.safe_dump(content, sort_keys=False))
        else:
            place = ("--server.host=127.0.0.1", "--server.port=0", "--server.admin=same")
            args = (*place, f"--server.state_dir={self.state_dir}", *args)
        self.config = config
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                wrap([str(MODELHUB), "serve", str(config), *args]),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", **(env or {})},
                cwd=folder,
            )
        self.pid = self._process.pid
        self.url = self.admin_url = self.grpc_url = ""
        #: What operators show; "" where the gateway wants none.
        self.token = ""

    # ---- waiting ---------------------------------------------------------------------------------

    def wait_live(self, timeout: float = 30) -> None:
        deadline = time.monotonic() + timeout
        notes = self.state_dir / "gateways"
        names = [f"{pid}@{os.uname().nodename}.json" for pid in (self.pid, 1)]
        while not (place := _read(notes / names[0]) or _read(notes / names[1])):
            self._pause(deadline, f"{names[0]} does not appear in {notes}")
        self.url, self.admin_url, self.grpc_url = place["url"], place["admin_url"], place["grpc_url"]
        self.token = token_of(place)
        while self._status("/v2/health/live") != 200:
            self._pause(deadline, "the gateway is not live")

    def wait_ready(self, model: str = "", timeout: float = 60, *, version: str = "") -> None:
        """Until the model (default: the whole gateway) says that it is ready."""
        path = f"/v2/models/{model}{f'/versions/{version}' if version else ''}/ready" if model else "/v2/health/ready"
        deadline = time.monotonic() + timeout
        while self._status(path) != 200:
            self._pause(deadline, f"{model or 'the gateway'} is not ready")

    def wait_log(self, text: str, timeout: float = 30) -> None:
        """Until the log holds `text`."""
        deadline = time.monotonic() + timeout
        while text not in self.log():
            self._pause(deadline, f"{text!r} is not in the log")

    def _status(self, path: str) -> int:
        try:
            return self.get(path).status
        except (OSError, http.client.HTTPException):
            return 0

    def _pause(self, deadline: float, what: str) -> None:
        """A short wait that ends at once when the gateway does."""
        try:
            code = self._process.wait(timeout=0.03)
        except subprocess.TimeoutExpired:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what}\n{self.log()[-4000:]}") from None
        else:
            raise RuntimeError(f"the gateway ended with code {code}\n{self.log()[-4000:]}")

    # ---- asking ----------------------------------------------------------------------------------

    def get(self, path: str, headers: Mapping[str, str] | None = None, *, timeout: float = 60) -> Answer:
        return self.request("GET", path, None, headers, timeout=timeout)

    def post(
        self, path: str, body: Any = b"", headers: Mapping[str, str] | None = None, *, timeout: float = 60
    ) -> Answer:
        """Bytes are sent as they are, anything else as JSON with its content type."""
        return self.request("POST", path, body, headers, timeout=timeout)

    def request(
        self, method: str, path: str, body: Any, headers: Mapping[str, str] | None = None, *, timeout: float = 60
    ) -> Answer:
        """`path` may be a whole URL (of the admin port, say)."""
        unix = self.url.removeprefix("unix:") if self.url.startswith("unix:") and "://" not in path else ""
        place = urlsplit(path if "://" in path or unix else self.url + path)
        headers = dict(headers or {})
        if self.token and place.path.startswith(FOR_OPERATORS):
            headers.setdefault("Authorization", f"Bearer {self.token}")
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            headers.setdefault("Content-Type", "application/json")
        connection = UnixConnection(unix) if unix else http.client.HTTPConnection(place.hostname or "", place.port)
        connection.timeout = timeout
        try:
            connection.request(method, place.path + (f"?{place.query}" if place.query else ""), body, headers)
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def infer(self, model: str, inputs: list[dict[str, Any]], *, timeout: float = 60, **more: Any) -> Answer:
        """A V2 JSON request; `more` are members beside `inputs` (id, parameters, outputs)."""
        return self.post(f"/v2/models/{model}/infer", {"inputs": inputs, **more}, timeout=timeout)

    # ---- looking ---------------------------------------------------------------------------------

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def processes(self) -> list[psutil.Process]:
        """Everything that runs below the gateway."""
        return descendants(self.pid)

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    # ---- ending ----------------------------------------------------------------------------------

    def stop(self, timeout: float = 30) -> None:
        """SIGTERM; the gateway must exit with code 0 and leave no process behind."""
        below = self.processes()
        code = self.signal(signal.SIGTERM, timeout)
        left = survivors(below, 5)
        assert code == 0, f"the gateway ended with code {code}\n{self.log()[-4000:]}"
        assert not left, f"left behind: {[describe(process) for process in left]}"

    def signal(self, number: int, timeout: float = 30) -> int:
        """Sends the signal and waits for the end; the exit code."""
        if self.running:
            self._process.send_signal(number)
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the gateway did not end within {timeout:g} s\n{self.log()[-4000:]}") from None

    def kill(self) -> None:
        """The end for a test that failed: the gateway and all below it, without asking."""
        below = self.processes()
        if self.running:
            self._process.kill()
        self._process.wait(10)
        for process in survivors(below, 2):
            process.kill()


class UnixConnection(http.client.HTTPConnection):
    """To a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def token_of(note: Mapping[str, str]) -> str:
    """The token of the gateway that left this note, "" where it wants none."""
    return Path(note["token_file"]).read_text().strip() if note["token_file"] else ""


def _read(note: Path) -> dict[str, str]:
    """What the gateway noted about itself; empty while the file is not there or not whole."""
    try:
        return dict(json.loads(note.read_bytes()))
    except (FileNotFoundError, ValueError):
        return {}
