"""A fork server process of the gateway's own: one per environment, which imports once and forks workers.

This file owns the creation of processes. They are started from the event loop's thread, which is the
process's main thread: their parent-death signal fires when the thread that started them ends.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
import time
from pathlib import Path

from .... import serving
from ...protocol.errors import LoadError
from ...protocol.limits import MAX_FORK_MESSAGE, TITLE_ROOM
from ..environments.environments import Environment
from ..system.processes import cpu_seconds, stopped
from ..system.timeouts import timeout
from .fork_link import ForkServerLink
from .learned import Learned
from .output import OutputReader, output_log
from .place import StarterEnded, WorkerExit

log = logging.getLogger("modelhub.workers")

#: By the package's own path, links not resolved: in a checkout its folders are links.
BOOTSTRAP = Path(os.path.abspath(serving.__file__)).parent / "workers" / "bootstrap.py"
#: Seconds that a process may take to be gone after it has closed its end of the socket.
END_GRACE = 2.0

#: Seconds between two looks whether it is there, and after how many without an answer it is ended: of a process that
#: is stopped (a signal, a frozen terminal), of one that runs, and of one that imports and uses no CPU time meanwhile.
LOOK_EVERY = 1.0
STOPPED_FOR = 3.0
SILENT_FOR = 30.0
STUCK_FOR = 300.0
#: Seconds that it may take to import what workers of its environment did.
LEARN_FOR = 120.0
#: Seconds without a worker after which it ends; the next load starts another.
IDLE_FOR = 600.0


class ForkServer(ForkServerLink):
    """A fork server process of the gateway's own."""

    def __init__(self, environment: Environment, environ: dict[str, str], cwd: Path) -> None:
        super().__init__(environment)
        self._environ = environ
        self._cwd = cwd
        self._why = ""
        self._closing: asyncio.Task[None] | None = None
        self.began = self._loop.time()
        #: Of its environment, by what is installed there.
        self.identity = ""
        #: What is known to be worth importing there; None: nothing is learned.
        self.learned: Learned | None = None
        self._has: set[str] = set()

    async def start(self, modules: list[str]) -> None:
        """Start the process and wait until it has imported `modules`. Raises LoadError. Cancelled, it ends it again."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MAX_FORK_MESSAGE * 2)
        self.output = OutputReader(f"fork server {self.environment.label}", output_log)
        kit = str(self.environment.kit or "")
        try:
            self._process = subprocess.Popen(  # noqa: ASYNC220 - returns at once; the thread must be this one
                [str(self.environment.python), str(BOOTSTRAP), "fork-server", str(theirs.fileno()), kit, TITLE_ROOM],
                stdin=subprocess.DEVNULL,
                stdout=self.output.write_fd,
                stderr=self.output.write_fd,
                pass_fds=(theirs.fileno(),),
                env=self._environ,
                cwd=self._cwd,
                start_new_session=True,
            )
        except OSError as error:
            ours.close()
            self.output.close()
            raise LoadError(f"the Python of environment {self.environment.label} cannot be started: {error}") from None
        finally:
            theirs.close()
        self.output.close_writer()
        self.pid = self._process.pid
        self.attach(ours)
        self._watching = asyncio.create_task(self._watch(), name=f"watch fork server {self.environment.label}")
        started = time.monotonic()
        try:
            reply = await self.preload(modules)
        except asyncio.CancelledError:
            self._process.kill()
            await asyncio.shield(self.ended.wait())
            raise
        self.python, self.identity = reply.python, reply.identity
        self._threaded = reply.tasks > 1
        log.info(
            "fork server of environment %s is up: Python %s, %.1f s",
            self.environment.label,
            reply.python,
            time.monotonic() - started,
        )
        if reply.error:
            log.warning("fork server of environment %s: %s", self.environment.label, reply.error)

    @property
    def lacks(self) -> bool:
        """Whether another one, started now, would import more, or must not import what this one has."""
        known = self.learned
        return known is not None and (set(known.wanted) != self._has) and not self._threaded

    async def import_learned(self, learned: Learned) -> bool:
        """Import what workers of its environment did; false where it is of no use after that, and has to be closed.

        What must not be imported again is noted.
        """
        self.learned, modules = learned, learned.wanted
        if not modules or self._threaded:
            return True
        try:
            async with timeout(LEARN_FOR):
                reply = await self.learn(modules)
        except (StarterEnded, asyncio.TimeoutError) as error:
            why = "takes too long to import" if not isinstance(error, StarterEnded) else "ended the fork server"
            self._end_now()
            self._spoils(self.importing or modules[0], why)
            return False
        learned.refuse({name: why for name, why in reply.refused.items() if name != reply.spoilt})
        if reply.spoilt:
            self._spoils(reply.spoilt, reply.refused.get(reply.spoilt, ""))
            return False
        self._has = set(learned.wanted)
        return True

    def _spoils(self, module: str, why: str) -> None:
        """`module` is in the list that it was to import, or the first of it: what it says may be anything."""
        assert self.learned is not None
        modules = self.learned.wanted
        at = modules.index(module) if module in modules else 0
        log.warning(
            "fork server of environment %s: %s is left to its workers: %s", self.environment.label, modules[at], why
        )
        self.learned.spoils(modules[at], why, modules[:at])

    def leave(self) -> None:
        """Start no worker any more, and end when the last one has."""
        self.leaving = True
        if self.idle and self._closing is None and not self.closed:
            self._closing = asyncio.create_task(self.close(), name=f"close fork server {self.environment.label}")

    async def _watch(self) -> None:
        """End it when it is not there: nobody would hear of a worker's death, and nothing could be started or ended."""
        busy, busy_at = 0.0, self._loop.time()
        while not self.closed:
            if not self.leaving and self.idle and self._loop.time() - self.idle_since > IDLE_FOR:
                log.info("fork server of environment %s ends: it has no worker", self.environment.label)
                self.leaving = True
            if self.leaving:
                self.leave()
            silent = self.ping()
            if silent >= STOPPED_FOR:
                halted, used = await asyncio.to_thread(self._look)
                if used != busy or not self.imports:
                    busy, busy_at = used, self._loop.time()
                if halted:
                    return self._give_up(f"was stopped for {silent:.0f} s, and killed")
                if not self.imports and silent >= SILENT_FOR:
                    return self._give_up(f"did not answer for {silent:.0f} s, and was killed")
                if self._loop.time() - busy_at >= STUCK_FOR:
                    return self._give_up(f"waited for something in an import for {STUCK_FOR:.0f} s, and was killed")
            await asyncio.sleep(LOOK_EVERY)

    def _look(self) -> tuple[bool, float]:
        """Whether it is stopped, and its CPU time."""
        return stopped(self.pid), cpu_seconds(self.pid) or 0.0

    def _give_up(self, why: str) -> None:
        self._why = why
        log.error("the fork server of environment %s %s: its workers start anew", self.environment.label, why)
        self._end_now()

    async def _how_it_ended(self) -> str:
        status = self._process.poll()
        if status is None:  # it is about to be gone
            status = await asyncio.to_thread(_wait_or_kill, self._process)
        self.output.close()
        self._watching.cancel()
        return self._why or str(WorkerExit(max(status, 0), max(-status, 0)))

    def _last_words(self) -> str:
        return self.output.tail[-1] if self.output.tail else "it printed nothing"

    def _end_now(self) -> None:
        self._process.kill()


def _wait_or_kill(started: subprocess.Popen[bytes]) -> int:
    try:
        return started.wait(END_GRACE)
    except subprocess.TimeoutExpired:
        started.kill()
        return started.wait()
