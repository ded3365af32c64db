"""Real MLflow model servers on free ports of 127.0.0.1, to compare answers with."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from .processes import guarded, until


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


#: `mlflow models serve` runs this application of MLflow's with uvicorn; here one import serves several models.
_FORKS = """
import os, sys
import mlflow.pyfunc.scoring_server as scoring, uvicorn
for model, port in zip(sys.argv[1::2], sys.argv[2::2]):
    if os.fork() == 0:
        os.environ[scoring._SERVER_MODEL_PATH] = model
        uvicorn.run("mlflow.pyfunc.scoring_server.app:app", host="127.0.0.1", port=int(port))
        os._exit(0)
for _ in sys.argv[1::2]:
    os.wait()
"""


@contextmanager
def scoring_servers(command_line: Path, *others: Path, folder: Path) -> Iterator[dict[str, ScoringServer]]:
    """Servers by the names of their models, once they answer (about ten seconds).

    The first is started by `mlflow models serve`; the others are its application without the command.
    """
    ports = {model: _free_port() for model in (command_line, *others)}
    serve = [sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local", "--host", "127.0.0.1"]
    serve += ["--model-uri", str(command_line), "--port", str(ports[command_line]), "--workers", "1"]
    fork = [sys.executable, "-c", _FORKS, *(str(part) for model in others for part in (model, ports[model]))]
    servers = {model.name: ScoringServer(port) for model, port in ports.items()}
    with ExitStack() as stack:
        logs = [
            stack.enter_context(_running(command, folder / f"scoring-{at}.log"))
            for at, command in enumerate((serve, fork))
        ]

        def ready() -> bool:
            for process, log in logs:
                if process.poll() is not None:
                    raise RuntimeError(f"MLflow's server ended with code {process.returncode}:\n{log.read_text()}")
            return all(server.answers() for server in servers.values())

        until(ready, 90, "MLflow's servers answer")
        yield servers


@contextmanager
def _running(command: list[str], log: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    with log.open("wb") as output:
        process = subprocess.Popen(
            guarded(command, whole_group=True),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PATH": path, "MLFLOW_DISABLE_TELEMETRY": "true"},
            cwd=log.parent,
        )
    try:
        yield process, log
    finally:
        process.terminate()
        process.wait(timeout=20)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
