"""The servers that are compared: how each is started, when it is ready, what it has cost so far, how it ends."""

from __future__ import annotations

import http.client
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import yaml
from cases import Case, check, request

HERE = Path(__file__).parent


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A process tree with a V2 endpoint at `url`. Ends with the `with` block."""

    def __init__(self, name: str, command: list[str], port: int, folder: Path) -> None:
        self.name = name
        self.url = f"http://127.0.0.1:{port}"
        self._log = folder / f"{name}-{port}.log"
        with self._log.open("wb") as log:
            environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
            self._process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True
            )

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        below = self.tree()
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
        for process in psutil.wait_procs(below, 3)[1]:
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def wait(self, case: Case, timeout: float = 180) -> None:
        """Until the case's request is answered rightly."""
        deadline = time.monotonic() + timeout
        wrong = "no answer"
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            try:
                status, headers, body = ask(self.url, case)
                wrong = check(case, headers, body) if status == 200 else f"status {status}: {body[:300]!r}"
                if not wrong:
                    return
            except (OSError, http.client.HTTPException) as error:
                wrong = repr(error)
            time.sleep(0.1)
        raise RuntimeError(f"{self.name}: {wrong}\n{self._log.read_text(errors='replace')[-2000:]}")

    def cpu(self) -> float:
        """CPU seconds of the whole tree so far, the ended and waited-for among them."""
        total = 0.0
        for process in self.tree():
            with suppress(psutil.Error):
                times = process.cpu_times()
                total += times.user + times.system + times.children_user + times.children_system
        return total

    def memory(self) -> int:
        """Bytes of the whole tree, shared pages once (PSS)."""
        total = 0
        for process in self.tree():
            with suppress(psutil.Error):
                total += process.memory_full_info().pss
        return total

    def tree(self) -> list[psutil.Process]:
        """The server and all below it."""
        try:
            root = psutil.Process(self._process.pid)
            return [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []


def ask(base: str, case: Case) -> tuple[int, dict[str, str], bytes]:
    """One request by the standard library's client: status, headers, body."""
    sent = request(case, base)
    place = urlsplit(sent.url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=60)
    try:
        connection.request("POST", place.path, sent.body, sent.headers)
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def modelhub(folder: Path, content: Mapping[str, Any], name: str = "modelhub") -> Server:
    """Our own server with this configuration (models, groups, defaults)."""
    port = free_port()
    ours = {"host": "127.0.0.1", "port": port, "state_dir": str(folder / "state"), "max_body": "64MiB"}
    ours = {**ours, **content.get("server", {})}
    config = folder / f"{name}-{port}.yaml"
    defaults = {"environment": "shared", **content.get("defaults", {})}
    config.write_text(yaml.safe_dump({**content, "server": ours, "defaults": defaults}, sort_keys=False))
    return Server(name, [str(Path(sys.executable).with_name("modelhub")), "serve", str(config)], port, folder)


def start(name: str, case: Case, models: Path, folder: Path, peers: Mapping[str, str]) -> Server | None:
    """The server of this name, for the case's model; None where it cannot serve that."""
    model = models / case.model
    if name == "modelhub":
        entry: dict[str, Any] = {"name": case.model, "uri": str(model)}
        if not case.batching:
            entry["batching"] = {"enabled": False}
        return modelhub(folder, {"models": [entry]})
    port = free_port()
    if name in ("echo", "pyfunc"):
        if case.model == "batchy" or (name == "echo" and case.model != "identity"):
            return None
        rest = [str(model)] if name == "pyfunc" else []
        return Server(name, [sys.executable, str(HERE / "ceilings.py"), name, str(port), *rest], port, folder)
    command = peers[name].format(port=port, name=case.model, model=model, folder=folder)
    return Server(name, shlex.split(command), port, folder)
