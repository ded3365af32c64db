"""The processes of this machine that start workers: fork servers by environment, or the process of a user's script."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence
from pathlib import Path

from ...protocol.errors import LoadError
from ..environments.environments import Environment
from .fork_link import ForkServerLink
from .fork_server import ForkServer
from .variables import worker_environment

#: Seconds in which models that are prepared together say what they want imported: one start instead of several stops.
GATHER = 0.05


class ForkServers:
    """All fork servers, one per environment, started when first needed and again when one has died."""

    def __init__(self, environ: dict[str, str], cwd: Path) -> None:
        self._environ = environ
        self._cwd = cwd
        self._servers: dict[str, asyncio.Task[ForkServer]] = {}
        self._wanted: dict[str, list[str]] = {}

    def want(self, environment: Environment, modules: Sequence[str]) -> None:
        """A model of this environment is about to be loaded: a fork server that starts now imports these as well."""
        wanted = self._wanted.setdefault(environment.key, [])
        wanted.extend(name for name in modules if name not in wanted)

    async def get(self, environment: Environment) -> ForkServerLink:
        """The living fork server of an environment; concurrent callers share one start. Raises LoadError."""
        task = self._servers.get(environment.key)
        if task is not None and task.done() and (task.cancelled() or task.exception() or task.result().closed):
            task = None
        if task is None:
            task = asyncio.ensure_future(self._start(environment))
            self._servers[environment.key] = task
        return await asyncio.shield(task)

    async def _start(self, environment: Environment) -> ForkServer:
        await asyncio.sleep(GATHER)
        env = worker_environment(self._environ, shared=environment.key == "shared")
        server = ForkServer(environment, env, self._cwd)
        await server.start(self._wanted.get(environment.key, []))
        return server

    def running(self) -> list[ForkServer]:
        done = [
            task for task in self._servers.values() if task.done() and not task.cancelled() and not task.exception()
        ]
        return [task.result() for task in done if not task.result().closed]

    async def close(self) -> None:
        starting = [task for task in self._servers.values() if not task.done()]
        for task in starting:
            task.cancel()
        await asyncio.gather(*starting, return_exceptions=True)
        servers = [task.result() for task in self._servers.values() if not task.cancelled() and not task.exception()]
        await asyncio.gather(*(server.close() for server in servers))


class ScriptServer:
    """The process of a user's script, which forks its own services: it is there already, and is not started anew."""

    def __init__(self, environment: Environment, descriptor: int) -> None:
        """`descriptor`: the inherited SOCK_SEQPACKET socket to it."""
        self._link = ForkServerLink(environment)
        self._link.pid, self._link.python = os.getppid(), environment.python_version
        self._link.attach(socket.socket(fileno=descriptor))

    def want(self, environment: Environment, modules: Sequence[str]) -> None:
        """It has imported what it needs."""

    async def get(self, environment: Environment) -> ForkServerLink:
        """Raises LoadError when it has ended."""
        if self._link.closed:
            raise LoadError("the script that this service belongs to has ended")
        return self._link

    def running(self) -> list[ForkServerLink]:
        """The script's process is no fork server of ours: nobody asks what it uses."""
        return []

    async def close(self) -> None:
        await self._link.close()
