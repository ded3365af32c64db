"""The processes of this machine that start workers: fork servers by environment, or the process of a user's script.

A fork server imports, beside what is known to be safe, what workers of its environment have imported (`learned.py`).
One that runs learns nothing more: another is started beside it, takes over when it is up, and the first one ends with
its last worker. So nothing that an import may do hurts a worker or keeps one waiting.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import socket
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ...protocol.errors import LoadError
from ..environments.environments import Environment
from ..system.container import POD_LIMIT, PodMemory
from .fork_link import ForkServerLink
from .fork_server import ForkServer
from .learned import Learned, write
from .variables import worker_environment

log = logging.getLogger("modelhub.workers")

#: Seconds in which models that are prepared together say what they want imported: one start instead of several stops.
GATHER = 0.05
#: Another one is started when nobody has asked for a worker for so many seconds, or after so many in any case.
QUIET, PATIENCE = 3.0, 60.0
#: Seconds between one that was started so and the next; they double, to the second figure.
REST, MAX_REST = 10.0, 600.0
#: Seconds after its start from which on a load may be one that comes again; before, all models load for the first time.
GROWN = 60.0
_IDENTITY = re.compile(r"[0-9a-f]{8,64}")


class ForkServers:
    """All fork servers, one per environment, started when first needed and again when one has died."""

    def __init__(self, environ: dict[str, str], cwd: Path, learned: Path | None = None) -> None:
        """`learned`: the folder where it is kept what workers have imported; None: nothing is learned."""
        self._environ = environ
        self._cwd = cwd
        self._folder = learned
        self._servers: dict[str, asyncio.Future[ForkServer]] = {}
        self._wanted: dict[str, list[str]] = {}
        self._known: dict[str, Learned] = {}
        self._renewals: dict[str, asyncio.Task[None]] = {}
        self._rests: dict[str, tuple[float, float]] = {}  # environment -> not before when, and the next pause
        self._asked: dict[str, float] = {}
        self._leaving: set[ForkServer] = set()
        self._saves: set[asyncio.Future[None]] = set()

    def want(self, environment: Environment, modules: Sequence[str]) -> None:
        """A model of this environment is about to be loaded: a fork server that starts now imports these as well."""
        wanted = self._wanted.setdefault(environment.key, [])
        wanted.extend(name for name in modules if name not in wanted)

    def learn(self, environment: Environment, modules: Iterable[str], *, again: bool) -> None:
        """A worker of this environment has imported these. `again`: its model comes and goes, so that it soon pays."""
        server = self._current(environment.key)
        if server is None or server.learned is None:
            return
        if server.learned.add(modules):
            self._save(server.learned)
        if again:
            self._renew(environment, server)

    async def get(self, environment: Environment) -> ForkServerLink:
        """The living fork server of an environment; concurrent callers share one start. Raises LoadError."""
        key = environment.key
        self._asked[key] = asyncio.get_running_loop().time()
        task = self._servers.get(key)
        if task is not None and task.done() and (task.cancelled() or task.exception() or _gone(task.result())):
            task = None
        if task is None:
            task = asyncio.ensure_future(self._start(environment))
            self._servers[key] = task
        elif (server := self._current(key)) is not None and self._asked[key] - server.began > GROWN:
            self._renew(environment, server)
        return await asyncio.shield(task)

    async def _start(self, environment: Environment) -> ForkServer:
        """One that has imported what it should: each that an import has spoilt is followed by one without that."""
        await asyncio.sleep(GATHER)
        env = worker_environment(self._environ, shared=environment.key == "shared")
        while True:
            server = ForkServer(environment, env, self._cwd)
            await server.start(self._wanted.get(environment.key, []))
            try:
                learned = await self._learned_by(server)
                if learned is None:
                    return server
                known = learned.content()
                fit = await server.import_learned(learned)
            except BaseException:
                await asyncio.shield(server.close())
                raise
            if learned.content() != known:
                self._save(learned)
            if fit:
                server.on_refused = partial(self._refuse, environment, server)
                return server
            await server.close()

    async def _learned_by(self, server: ForkServer) -> Learned | None:
        folder, identity = self._folder, server.identity
        if folder is None or not _IDENTITY.fullmatch(identity):
            return None
        if identity not in self._known:
            found = await asyncio.to_thread(Learned.read, folder, identity)
            self._known.setdefault(identity, found)
        return self._known[identity]

    def _refuse(self, environment: Environment, server: ForkServer, modules: Sequence[str], why: str) -> None:
        """A worker could not be forked because of these."""
        if server.learned is not None:
            server.learned.refuse(dict.fromkeys(modules, why))
            self._save(server.learned)
            self._renew(environment, server)

    def _save(self, learned: Learned) -> None:
        saving = asyncio.ensure_future(asyncio.to_thread(write, learned.path, learned.content()))
        self._saves.add(saving)
        saving.add_done_callback(self._saves.discard)

    # ---- another one in its place ---------------------------------------------------------------

    def _renew(self, environment: Environment, server: ForkServer) -> None:
        """Have one that knows more take over, unless that is under way."""
        running = self._renewals.get(environment.key)
        if server.lacks and (running is None or running.done()):
            renewal = asyncio.ensure_future(self._keep_up(environment, server))
            self._renewals[environment.key] = renewal

    async def _keep_up(self, environment: Environment, server: ForkServer) -> None:
        """Once more where more was learned while the next one started."""
        current: ForkServer | None = server
        while current is not None and current.lacks:
            current = await self._take_over(environment, current)

    async def _take_over(self, environment: Environment, server: ForkServer) -> ForkServer | None:
        """What takes the place of `server`; None where nothing does now."""
        key, loop = environment.key, asyncio.get_running_loop()
        latest = loop.time() + PATIENCE
        not_before, pause = self._rests.get(key, (0.0, REST))
        while (left := max(not_before, min(self._asked[key] + QUIET, latest)) - loop.time()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(left)  # each worker that is asked for meanwhile makes it longer
        self._rests[key] = loop.time() + pause, min(pause * 2, MAX_REST)
        if not server.lacks or self._current(key) is not server or not await asyncio.to_thread(_room_beside, server):
            return None
        try:
            successor = await self._start(environment)
        except LoadError as error:
            log.warning("environment %s keeps its fork server: %s", environment.label, error)
            return None
        if self._current(key) is not server:  # it has died meanwhile, and has a successor
            await successor.close()
            return None
        self._servers[key] = started = loop.create_future()
        started.set_result(successor)
        log.info(
            "environment %s has a new fork server, which has imported what its models did: %d modules",
            environment.label,
            len(successor.learned.wanted) if successor.learned is not None else 0,
        )
        self._leaving = {each for each in self._leaving if not each.closed} | {server}
        server.leave()
        return successor

    def _current(self, key: str) -> ForkServer | None:
        task = self._servers.get(key)
        if task is None or not task.done() or task.cancelled() or task.exception() or _gone(task.result()):
            return None
        return task.result()

    def running(self) -> list[ForkServer]:
        """Those that are about to leave first."""
        current = [server for key in self._servers if (server := self._current(key)) is not None]
        return [*(server for server in self._leaving if not server.closed), *current]

    def spare(self) -> bool:
        """End one that has no worker; false: each has."""
        idle = [server for server in self.running() if server.idle and not server.leaving]
        for server in idle[:1]:
            log.info("fork server of environment %s ends: the container needs its memory", server.environment.label)
            server.leave()
        return bool(idle)

    async def close(self) -> None:
        both: tuple[asyncio.Future[Any], ...] = (*self._renewals.values(), *self._servers.values())
        starting = [task for task in both if not task.done()]
        for task in starting:
            task.cancel()
        await asyncio.gather(*starting, *self._saves, return_exceptions=True)
        servers = [task.result() for task in self._servers.values() if not task.cancelled() and not task.exception()]
        await asyncio.gather(*(server.close() for server in {*servers, *self._leaving}))


def _room_beside(server: ForkServer) -> bool:
    """Whether the container has room for another one like it, and half as much again. Blocks for a moment."""
    used, limit = PodMemory().used_and_limit()
    return not limit or used + 1.5 * server.read_memory().rss < POD_LIMIT * limit


def _gone(server: ForkServer) -> bool:
    return server.closed or server.leaving


class ScriptServer:
    """The process of a user's script, which forks its own services: it is there already, and is not started anew."""

    def __init__(self, environment: Environment, descriptor: int) -> None:
        """`descriptor`: the inherited SOCK_SEQPACKET socket to it."""
        self._link = ForkServerLink(environment)
        self._link.pid, self._link.python = os.getppid(), environment.python_version
        self._link.attach(socket.socket(fileno=descriptor))

    def want(self, environment: Environment, modules: Sequence[str]) -> None:
        """It has imported what it needs."""

    def learn(self, environment: Environment, modules: Iterable[str], *, again: bool) -> None:
        """It imports what its script says."""

    async def get(self, environment: Environment) -> ForkServerLink:
        """Raises LoadError when it has ended."""
        if self._link.closed:
            raise LoadError("the script that this service belongs to has ended")
        return self._link

    def running(self) -> list[ForkServerLink]:
        """The script's process is no fork server of ours: nobody asks what it uses."""
        return []

    def spare(self) -> bool:
        """Nor is it to end."""
        return False

    async def close(self) -> None:
        await self._link.close()
