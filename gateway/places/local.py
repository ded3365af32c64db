"""This machine as a place for workers: a fork server forks each, or starts a fresh interpreter for it.

A worker has a working directory, a journal page and a pipe for its output here, made before it starts and removed when
it is released.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from ...protocol.journal import Journal
from ...protocol.messages import FORK
from ...protocol.worker_spec import WorkerSpec
from ...workers.linux import cpus
from ..environments.environments import Environment
from ..system.processes import Memory, cpu_seconds, read_memory, read_rss
from .fork_link import ForkServerLink, WorkerProcess
from .output import OutputReader, output_log
from .place import StartedWorker, Starter, WorkerExit, WorkerOrder
from .script import KEY as SCRIPT
from .variables import worker_environment

REFRESH = 30.0  # seconds after which the exact sizes are read again even if nothing seems to have changed
MOVED = 0.02  # a resident size that changed by this part is read exactly


class Servers(Protocol):
    """Who starts the processes: `ForkServers`, or a `ScriptServer`."""

    def want(self, environment: Environment, modules: Sequence[str]) -> None: ...
    def learn(self, environment: Environment, modules: Iterable[str], *, again: bool) -> None: ...
    async def get(self, environment: Environment) -> ForkServerLink: ...
    def running(self) -> Sequence[ForkServerLink]: ...
    def spare(self) -> bool: ...
    async def close(self) -> None: ...


class LocalWorker:
    """A worker of this machine (`place.StartedWorker`)."""

    host = os.uname().nodename

    def __init__(self, runtime_dir: Path, order: WorkerOrder) -> None:
        token, spec = order.spec.token, order.spec
        self.memory = Memory()
        self.cwd = runtime_dir / "work" / token[:12]
        self.journal_path = runtime_dir / f"{token[:12]}.journal"
        self._process: WorkerProcess | None = None
        self._output: OutputReader | None = None
        self._journal: Journal | None = None
        self.cwd.mkdir(parents=True)
        try:
            self._journal = Journal(str(self.journal_path), create=True)
            label = f"{spec.name}/{spec.version}" + (f"#{spec.replica}" if spec.replica else "")
            self._output = OutputReader(label, output_log, {"model": spec.name, "version": spec.version})
        except BaseException:
            self._close()
            shutil.rmtree(self.cwd, ignore_errors=True)
            raise

    async def run(self, server: ForkServerLink, order: WorkerOrder) -> None:
        """Have it started. Raises LoadError and StarterEnded."""
        assert self._output is not None
        modules = list(order.modules) if order.start == FORK else []
        process = await server.fork(order.spec, self._output.write_fd, order.start, modules)
        self._process = process
        self._output.close_writer()
        self.pid, self.start, self.why, self.exited = process.pid, process.start, process.why, process.exited

    pid: int
    start: str
    why: str
    exited: asyncio.Future[WorkerExit]

    def signal(self, number: int) -> None:
        if self._process is not None:
            self._process.kill(number)

    def begun(self, held: Iterable[int]) -> Mapping[int, float]:
        if self._journal is None:
            return {}
        if not self._journal.whole:
            return dict.fromkeys(held, 0.0)
        now = time.monotonic()
        return {number: now - at for number, at in self._journal.begun().items()}

    def cpu_seconds(self) -> float | None:
        return cpu_seconds(self.pid)

    async def release(self) -> None:
        self._close()
        await asyncio.to_thread(shutil.rmtree, self.cwd, ignore_errors=True)

    def _close(self) -> None:
        if self._output is not None:
            self._output.close()
            self._output = None
        if self._journal is not None:
            self._journal.close()
            self._journal = None
        self.journal_path.unlink(missing_ok=True)


class LocalPlace:
    """Workers of one kind of servers (`place.Place`)."""

    def __init__(
        self, runtime_dir: Path, endpoint: Callable[[], str], environ: Mapping[str, str], servers: Servers
    ) -> None:
        """`endpoint`: sees to it that the directory is there, and says where workers reach the gateway.

        `environ`: what variables for them are taken from.
        """
        self._runtime_dir = runtime_dir
        self._endpoint = endpoint
        self._environ = environ
        self._servers = servers

    def want(self, environment: Environment, modules: Sequence[str]) -> None:
        self._servers.want(environment, modules)

    def learn(self, environment: Environment, modules: Sequence[str], *, again: bool) -> None:
        self._servers.learn(environment, modules, again=again)

    async def start(self, order: WorkerOrder) -> StartedWorker:
        self._endpoint()
        worker = LocalWorker(self._runtime_dir, order)
        try:
            server = await self._servers.get(order.environment)
            await worker.run(server, replace(order, spec=self._spec(order, worker)))
        except BaseException:
            await asyncio.shield(worker.release())
            raise
        return worker

    def _spec(self, order: WorkerOrder, worker: LocalWorker) -> WorkerSpec:
        return replace(
            order.spec,
            endpoint=self._endpoint(),
            model_path=str(order.files.path) if order.files is not None else "",
            journal=str(worker.journal_path),
            cwd=str(worker.cwd),
            env=worker_environment(
                self._environ,
                threads=order.threads or cpus(),
                names=order.env_names,
                shared=order.environment.key in ("shared", SCRIPT),
                devices=order.devices or None,
            ),
        )

    async def measure(self, workers: Sequence[StartedWorker], *, exact: bool = False) -> None:
        if workers:
            await asyncio.to_thread(_measure, workers, exact)

    def starters(self) -> Sequence[Starter]:
        return self._servers.running()

    def spare(self) -> bool:
        return self._servers.spare()

    async def close(self) -> None:
        await self._servers.close()


def _measure(workers: Sequence[StartedWorker], exact: bool) -> None:
    """The resident size is cheap to read; the exact sizes, a walk over page tables, only where it has moved."""
    now = time.monotonic()
    for worker in workers:
        known, rss = worker.memory, read_rss(worker.pid)
        same = known.rss and abs(rss - known.rss) < MOVED * known.rss and now - known.read_at < REFRESH
        if exact or not same:
            worker.memory = read_memory(worker.pid)
