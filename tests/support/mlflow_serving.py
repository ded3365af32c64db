"""A real `mlflow models serve` of one model on a free port of 127.0.0.1, to compare answers with."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from processes import guarded, until


class ScoringServer:
    """Asked by `post`."""

    def __init__(self, port: int) -> None:
        self._port = port

    def post(self, body: bytes, content_type: str) -> tuple[int, bytes]:
        return self._ask("POST", "/invocations", body, {"Content-Type": content_type})

    def get(self, path: str) -> tuple[int, bytes]:
        return self._ask("GET", path, None, {})

    def answers(self) -> bool:
        try:
            return self.get("/ping")[0] == 200
        except OSError:
            return False

    def _ask(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


@contextmanager
def scoring_server(model: Path, folder: Path) -> Iterator[ScoringServer]:
    """The server, once it answers (about ten seconds)."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local", "--model-uri", str(model)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    log = folder / f"scoring-{model.name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            guarded(command, whole_group=True),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PATH": path, "MLFLOW_DISABLE_TELEMETRY": "true"},
            cwd=folder,
        )
    server = ScoringServer(port)

    def ready() -> bool:
        if process.poll() is not None:
            raise RuntimeError(f"mlflow models serve ended with code {process.returncode}:\n{log.read_text()}")
        return server.answers()

    try:
        until(ready, 90, "mlflow models serve answers")
        yield server
    finally:
        process.terminate()
        process.wait(timeout=20)
