"""What the soak starts, each ended by its process id: the gateway, whose log it reads; MLflow; its own programs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from clients import Place

HERE = Path(__file__).parent
MODELHUB = Path(sys.executable).with_name("modelhub")
QUIET = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}


def tree(pid: int) -> list[psutil.Process]:
    """The process and all below it that still run."""
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def end(processes: list[psutil.Process], seconds: float = 10) -> list[psutil.Process]:
    """Kill those that do not end by themselves within so many seconds; they are returned."""
    left: list[psutil.Process] = psutil.wait_procs(processes, seconds)[1]
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, 5)
    return left


class Gateway:
    """`modelhub serve FILE`, its standard error a pipe; `reading` cleared, nobody reads it."""

    def __init__(self, config: Path, state: Path, log: Path, tracking_uri: str) -> None:
        self.config = config
        self.reading = threading.Event()
        self.reading.set()
        self.lines = 0
        #: Whether it has said that lines were dropped.
        self.dropped = False
        #: What it logged as an error.
        self.errors: list[str] = []
        self._ended = False
        self._process = subprocess.Popen(
            [str(MODELHUB), "serve", str(config)],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, "MLFLOW_TRACKING_URI": tracking_uri, "MLFLOW_DISABLE_TELEMETRY": "true"},
        )
        self.pid = self._process.pid
        self._note = state / "gateways" / f"{self.pid}@{os.uname().nodename}.json"
        self._reader = threading.Thread(target=self._read, args=(log,), daemon=True)
        self._reader.start()

    def _read(self, log: Path) -> None:
        assert self._process.stderr is not None
        begun = b""
        with log.open("wb") as file:
            while self.reading.wait() and (piece := os.read(self._process.stderr.fileno(), 1 << 16)):
                file.write(piece)
                file.flush()
                *lines, begun = (begun + piece).split(b"\n")
                self.lines += len(lines)
                self.dropped = self.dropped or any(b'"dropped":' in line for line in lines)
                self.errors += [line.decode(errors="replace") for line in lines if b'"level":"error"' in line]

    def place(self, timeout: float = 60) -> Place:
        """Where it listens, once it does."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline and self.running:
            with contextlib.suppress(OSError, ValueError, KeyError):
                return Place.of(self._note)
            time.sleep(0.05)
        raise RuntimeError("the gateway does not listen; its log says why")

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def hang_up(self) -> None:
        """SIGHUP: it reads its configuration again."""
        self._process.send_signal(signal.SIGHUP)

    def stop(self) -> list[str]:
        """SIGTERM; what was wrong with its end."""
        if self._ended:
            return []
        self._ended = True
        below = tree(self.pid)
        self.reading.set()
        if self.running:
            self._process.send_signal(signal.SIGTERM)
        wrong = []
        try:
            code = self._process.wait(60)
            if code:
                wrong.append(f"the gateway ended with code {code}")
        except subprocess.TimeoutExpired:
            wrong.append("the gateway did not end within 60 s of SIGTERM")
            self._process.kill()
            self._process.wait()
        names = [f"{process.pid}" for process in end([each for each in below if each.pid != self.pid])]
        if names:
            wrong.append(f"processes were left behind: {', '.join(names)}")
        self._reader.join(5)
        return wrong


class Mlflow:
    """`mlflow server` on one port of loopback, which `stop` frees and `start` takes again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._folder.mkdir()
        self._processes: list[psutil.Process] = []
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self._port = probe.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self._port)]
        command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{self._folder / 'mlflow.db'}"]
        command += ["--serve-artifacts", "--artifacts-destination", str(self._folder / "artifacts")]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **QUIET},
                cwd=self._folder,
            )

    @property
    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def wait(self, timeout: float = 120) -> None:
        deadline = time.monotonic() + timeout
        while not self.answers:
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError(f"mlflow server does not answer: {self._folder / 'log'} says why")
            time.sleep(0.1)

    def freeze(self) -> None:
        """It takes connections and answers nothing."""
        self._processes = tree(self._process.pid)
        for process in self._processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()

    def thaw(self) -> None:
        for process in self._processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()
        self._processes = []

    def stop(self) -> None:
        """Its port refuses connections."""
        self.thaw()
        below = tree(self._process.pid)
        if self._process.poll() is None:
            self._process.terminate()
        end(below)
        self._process.wait()

    def point(self, version: int) -> None:
        """The alias `champion` of `soak` means this version from now on."""
        facts = {"name": "soak", "alias": "champion", "version": str(version)}
        url, headers = f"{self.uri}/api/2.0/mlflow/registered-models/alias", {"Content-Type": "application/json"}
        request = urllib.request.Request(url, json.dumps(facts).encode(), headers, method="POST")
        urllib.request.urlopen(request, timeout=20).close()


class Program:
    """One of the soak's own: told what to do by a line of JSON, ended by the end of its stdin."""

    def __init__(self, name: str, settings: dict[str, Any], said: Callable[[dict[str, Any]], None]) -> None:
        self._name = name
        self._settings = settings
        self._said = said

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(HERE / f"{self._name}.py"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=1 << 24,
        )
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(self._settings).encode() + b"\n")
        self._listening = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self._said(json.loads(line))

    async def stop(self) -> str:
        """What was wrong with it; "": nothing."""
        assert self._process.stdin is not None
        early = self._process.returncode is not None
        self._process.stdin.close()
        try:
            code = await asyncio.wait_for(self._process.wait(), 60)
        except TimeoutError:
            self._process.kill()
            code = await self._process.wait()
        await self._listening
        return f"{self._name}.py ended with code {code}" if code or early else ""
