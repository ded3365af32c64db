"""A command that serves, run as a user would in a folder of its own: a script with ModelServer, or a module."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from .gateway_process import Gateway, token_of
from .processes import guarded


class ScriptProcess(Gateway):
    """The constructor starts `command` (a shell's line, or a list) in `folder`; the rest is Gateway's.

    It listens on a free port of 127.0.0.1. `python` in the command is this interpreter.
    """

    def __init__(self, command: str | Sequence[str], folder: Path, *, env: Mapping[str, str] | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.state_dir = folder / "state"
        self._log = folder / "script.log"
        ours = {
            "MODELHUB_SERVER_HOST": "127.0.0.1",
            "MODELHUB_SERVER_ADMIN": "same",
            "MODELHUB_SERVER_STATE_DIR": str(self.state_dir),
            "PORT": "0",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
        line = ["bash", "-c", command] if isinstance(command, str) else list(command)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                guarded(line),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **ours, **(env or {})},
                cwd=folder,
            )
        self.pid = self._process.pid
        self.url = self.admin_url = self.token = ""

    def wait_live(self, timeout: float = 60) -> None:
        deadline = time.monotonic() + timeout
        while not self.url:
            for note in (self.state_dir / "gateways").glob("*.json"):
                try:
                    place = json.loads(note.read_text())
                except ValueError:
                    continue  # half written
                self.url, self.admin_url, self.token = place["url"], place["admin_url"], token_of(place)
            if not self.url:
                self._pause(deadline, f"no gateway notes itself in {self.state_dir}")
        while self._status("/v2/health/live") != 200:
            self._pause(deadline, "the gateway is not live")

    def code(self, timeout: float = 60) -> int:
        """Waits until it ends by itself; its exit code."""
        return self._process.wait(timeout)
