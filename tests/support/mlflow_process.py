"""A real `mlflow server` on a free port of 127.0.0.1, with sqlite and local artifacts."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

from .processes import guarded, until

#: Two processes instead of ten, and no calls to the outside.
QUIET = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}


class MlflowProcess:
    """Started by the constructor; `uri()` waits until it answers (about 15 s); `stop` ends it and all it started."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self._uri = f"http://127.0.0.1:{port}"
        self._log = folder / "mlflow-server.log"
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
        command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
        command += ["--serve-artifacts", "--artifacts-destination", str(folder / "artifacts")]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                guarded(command, whole_group=True),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **QUIET},
                cwd=folder,
            )

    def uri(self, timeout: float = 90) -> str:
        until(self._answers, timeout, "mlflow server answers")
        return self._uri

    def _answers(self) -> bool:
        if self._process.poll() is not None:
            raise RuntimeError(f"mlflow server ended with code {self._process.returncode}:\n{self._log.read_text()}")
        try:
            with urllib.request.urlopen(f"{self._uri}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(timeout=20)
