"""Where workers are started: what a place is told, and what it answers. Nothing above knows a kind of place.

This machine's fork servers are one (`local.py`), the process of a user's script another. Whatever belongs to one
machine stays below this file: process ids as anything but a number for people, journals, pipes, working directories,
/proc, local paths.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from ...protocol.errors import LoadError
from ...protocol.worker_spec import WorkerSpec
from ..artifacts.store import Artifact
from ..environments.environments import Environment
from ..system.processes import Memory


class StarterEnded(LoadError):
    """What was to start a worker went away before it had; another one may do better."""


@dataclass(frozen=True)
class WorkerExit:
    """How a worker process ended."""

    code: int = 0
    signal: int = 0
    max_rss: int = 0  # bytes
    why: str = ""  # said by us, where the kernel's word would mislead
    memory: str = ""  # "it used …", where the kernel may have killed it for that
    cause: str = ""  # a short word for metrics: memory, timeout, fork_server; "": exit or signal

    @property
    def kind(self) -> str:
        """One of a few values, for a metric's label."""
        return self.cause or (f"signal_{self.signal}" if self.signal else f"exit_{self.code}")

    def __str__(self) -> str:
        if self.why:
            return self.why
        if self.signal:
            try:
                name = signal.Signals(self.signal).name
            except ValueError:
                name = "unknown"
            hint = ", perhaps out of memory" if self.signal == signal.SIGKILL else ""
            if hint and self.memory:
                hint += f": {self.memory}"
            return f"was killed by signal {self.signal} ({name}{hint})"
        return f"exited with code {self.code}"


@dataclass(frozen=True)
class WorkerOrder:
    """A worker that is to be started."""

    #: Of `spec` a place fills in what is its own: endpoint, model_path, journal, cwd and env.
    spec: WorkerSpec
    #: The model's files, held by whoever orders; None for a service that loads by itself.
    files: Artifact | None
    environment: Environment
    #: fork | spawn; and what is imported before a fork.
    start: str
    modules: Sequence[str] = ()
    #: Of numeric libraries; 0: all CPUs.
    threads: int = 1
    #: Names of variables that the worker gets beside the usual ones.
    env_names: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()

    def numbered(self, token: str, replica: int, generation: int) -> WorkerOrder:
        """The same, for one start of one replica."""
        return replace(self, spec=replace(self.spec, token=token, replica=replica, generation=generation))


class StartedWorker(Protocol):
    """A worker process. `release` it when it has ended and `begun` was asked."""

    host: str
    pid: int
    #: How it was really started, and why where that is not what was asked.
    start: str
    why: str
    #: Resolved once, when the process is gone.
    exited: asyncio.Future[WorkerExit]
    #: As measured last.
    memory: Memory

    def signal(self, number: int) -> None:
        """Signal the worker; SIGKILL ends everything that it has started too."""

    def begun(self, held: Iterable[int]) -> Mapping[int, float]:
        """The requests that it has begun, the last thousand or so: their numbers, and how many seconds ago that was.

        Where that cannot be told, all that it holds (`held`).
        """

    def cpu_seconds(self) -> float | None:
        """CPU time, user and system; None when it is gone. May block: for a thread."""

    async def release(self) -> None:
        """Nothing of it stays."""


class Starter(Protocol):
    """A process of a place that starts workers and stays."""

    environment: Environment

    def read_memory(self) -> Memory:
        """May block: for a thread."""

    def cpu_seconds(self) -> float | None:
        """May block: for a thread."""


class Place(Protocol):
    """Where workers can be started."""

    def want(self, environment: Environment, modules: Sequence[str]) -> None:
        """A model of this environment is about to be loaded, and would like these imported."""

    def learn(self, environment: Environment, modules: Sequence[str], *, again: bool) -> None:
        """A worker of this environment has imported these, which lie in it; `again`: its model comes and goes."""

    async def start(self, order: WorkerOrder) -> StartedWorker:
        """Start a worker. Raises LoadError where no process can be started, StarterEnded where another try may do."""

    async def measure(self, workers: Sequence[StartedWorker], *, exact: bool = False) -> None:
        """Bring their `memory` up to date; `exact`: also where nothing seems to have changed."""

    def starters(self) -> Sequence[Starter]:
        """Those that run now."""

    def spare(self) -> bool:
        """End one of them that has no worker, for the memory that it holds; false: there is none."""

    async def close(self) -> None:
        """End everything that was started here."""
