"""The gateway's end of the fork servers: one process per environment, asked to start and end workers.

This file owns the creation of processes. They are started from the event loop's thread, which is the
process's main thread: their parent-death signal fires when the thread that started them ends.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import subprocess
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from ... import serving
from ..protocol.codec import decode, encode
from ..protocol.errors import LoadError
from ..protocol.messages import (
    ExitedReply,
    ForkedReply,
    ForkRequest,
    KillRequest,
    Message,
    PreloadRequest,
    StartedReply,
)
from ..protocol.worker_spec import WorkerSpec
from ..workers import process
from .environments import Environment
from .timeouts import timeout
from .worker_env import worker_environment
from .worker_output import OutputReader

log = logging.getLogger("modelhub.workers")
output_log = logging.getLogger("modelhub.output")

#: By the package's own path, links not resolved: in a checkout its folders are links.
BOOTSTRAP = Path(os.path.abspath(serving.__file__)).parent / "workers" / "bootstrap.py"
#: Seconds in which models that are prepared together say what they want imported: one start instead of several stops.
GATHER = 0.05
MAX_MESSAGE = 1 << 18  # as in workers/fork_server.py
#: Seconds that a process may take to be gone after it has closed its end of the socket.
END_GRACE = 2.0
_TITLE_ROOM = "-" * 200


class ForkServerEnded(LoadError):
    """The fork server went away before a worker was started; another one may do better."""


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


class WorkerProcess:
    """A started worker. `exited` is resolved once, when the process is gone."""

    def __init__(self, token: str, server: ForkServerLink) -> None:
        self.token = token
        self.pid = 0
        self.start = ""
        self.why = ""
        self.started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.exited: asyncio.Future[WorkerExit] = asyncio.get_running_loop().create_future()
        self._server = server

    def kill(self, number: int) -> None:
        """Signal the worker; SIGKILL ends everything in its session too."""
        if not self.exited.done():
            self._server.send(KillRequest(token=self.token, signal=number))


class ForkServerLink:
    """The socket to a process that starts workers, and the workers it has started."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.python = ""
        self.pid = 0
        self.ended = asyncio.Event()
        #: The socket is closed: nothing can be asked of it any more, though how it ended may not be known yet.
        self.closed = False
        self._ending: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._workers: dict[str, WorkerProcess] = {}
        self._unsent: deque[tuple[bytes, list[int]]] = deque()
        self._preloaded: deque[asyncio.Future[StartedReply]] = deque()

    def attach(self, ours: socket.socket) -> None:
        """Begin to speak over this socket."""
        ours.setblocking(False)
        self._socket = ours
        self._loop.add_reader(ours.fileno(), self._receive)

    async def preload(self, modules: list[str]) -> StartedReply:
        """Import modules in the fork server. Raises ForkServerEnded when it ends meanwhile."""
        self._check_open()
        future: asyncio.Future[StartedReply] = self._loop.create_future()
        self._preloaded.append(future)
        self.send(PreloadRequest(modules=modules))
        return await future

    async def fork(self, spec: WorkerSpec, log_fd: int, start: str, preload: list[str]) -> WorkerProcess:
        """Start a worker. Raises LoadError when no process could be started, ForkServerEnded when another may do it."""
        self._check_open()
        request = ForkRequest(token=spec.token, spec=spec.to_wire(), start=start, preload=preload)
        size = len(_packed(request))
        if size > MAX_MESSAGE:
            raise LoadError(
                f"what the worker is to be told takes {size} bytes, more than {MAX_MESSAGE}: pass it fewer or "
                "shorter environment variables"
            )
        worker = WorkerProcess(spec.token, self)
        self._workers[spec.token] = worker
        self.send(request, log_fd)
        try:
            await asyncio.shield(worker.started)
        except asyncio.CancelledError:
            worker.started.add_done_callback(
                lambda done: None if done.cancelled() or done.exception() else worker.kill(signal.SIGKILL)
            )
            raise
        return worker

    def send(self, message: Message, descriptor: int | None = None) -> None:
        """Send now, or when the socket has room. A descriptor is duplicated until it has gone."""
        descriptors = [os.dup(descriptor)] if descriptor is not None else []
        self._unsent.append((_packed(message), descriptors))
        if len(self._unsent) == 1:
            self._send_unsent()

    def _send_unsent(self) -> None:
        while self._unsent:
            data, descriptors = self._unsent[0]
            try:
                socket.send_fds(self._socket, [data], descriptors)
            except BlockingIOError:
                self._loop.add_writer(self._socket.fileno(), self._send_unsent)
                return
            except OSError:
                self._drop_unsent()
                return  # it has ended: `_receive` sees the end of the socket
            for number in descriptors:
                os.close(number)
            self._unsent.popleft()
        self._loop.remove_writer(self._socket.fileno())

    def _drop_unsent(self) -> None:
        for _, descriptors in self._unsent:
            for number in descriptors:
                os.close(number)
        self._unsent.clear()

    def _receive(self) -> None:
        while True:
            try:
                data = self._socket.recv(MAX_MESSAGE)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._on_end()
                return
            self._take_all(data)

    def _take_all(self, data: bytes) -> None:
        """One message that makes no sense must not keep back those behind it."""
        try:
            for message, _ in decode([data]):
                self._take(message)
        except Exception:
            log.exception("a message of the fork server of environment %s was dropped", self.environment.label)

    def _take(self, message: Message) -> None:
        if isinstance(message, ForkedReply):
            worker = self._workers[message.token]
            if message.error:
                del self._workers[message.token]
                worker.started.set_exception(LoadError(message.error))
                return
            worker.pid, worker.start, worker.why = message.pid, message.start, message.why
            worker.started.set_result(None)
        elif isinstance(message, ExitedReply):
            worker = self._workers.pop(message.token)
            worker.exited.set_result(WorkerExit(message.code, message.signal, message.max_rss))
        elif isinstance(message, StartedReply):
            future = self._preloaded.popleft()
            if not future.done():
                future.set_result(message)

    def _on_end(self) -> None:
        """The other end is closed: the process is gone or about to be, and by the kernel's hand its workers with it."""
        if self.closed:
            return
        self.closed = True
        self._loop.remove_reader(self._socket.fileno())
        self._loop.remove_writer(self._socket.fileno())
        self._socket.close()
        self._drop_unsent()
        self._ending = self._loop.create_task(self._bury())

    async def _bury(self) -> None:
        """Tell everyone who waits for it or for one of its workers."""
        workers, self._workers = list(self._workers.values()), {}
        how = "ended"
        try:
            how = await self._how_it_ended()
            await asyncio.to_thread(_end_sessions, [worker.pid for worker in workers if worker.pid])
        except Exception:
            log.exception(
                "the end of the fork server of environment %s could not be looked into", self.environment.label
            )
        why = f"ended with its fork server, which {how}"
        lost = f"could not be started: the fork server of environment {self.environment.label} {how}: "
        for worker in workers:
            if not worker.started.done():
                worker.started.set_exception(ForkServerEnded(lost + self._last_words()))
            if not worker.exited.done():
                worker.exited.set_result(WorkerExit(why=why, cause="fork_server"))
        for future in self._preloaded:
            if not future.done():
                future.set_exception(ForkServerEnded(lost + self._last_words()))
        self._preloaded.clear()
        self.ended.set()

    def _check_open(self) -> None:
        if self.closed:
            raise ForkServerEnded(f"could not be started: the fork server of {self.environment.label} has just ended")

    async def _how_it_ended(self) -> str:
        return "closed its end of the socket"

    def _last_words(self) -> str:
        return "its own output says more"

    async def close(self) -> None:
        """Say that no worker is needed any more, and wait a little for the other end to close."""
        if not self.closed:
            try:
                self._socket.shutdown(socket.SHUT_WR)
            except OSError:
                self._on_end()
        try:
            async with timeout(5):
                await self.ended.wait()
        except asyncio.TimeoutError:
            self._end_now()
            await self.ended.wait()

    def _end_now(self) -> None:
        self._on_end()


class ForkServer(ForkServerLink):
    """A fork server process of the gateway's own."""

    def __init__(self, environment: Environment, environ: dict[str, str], cwd: Path) -> None:
        super().__init__(environment)
        self._environ = environ
        self._cwd = cwd

    async def start(self, modules: list[str]) -> None:
        """Start the process and wait until it has imported `modules`. Raises LoadError. Cancelled, it ends it again."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MAX_MESSAGE * 2)
        self.output = OutputReader(f"fork server {self.environment.label}", output_log)
        kit = str(self.environment.kit or "")
        try:
            self._process = subprocess.Popen(  # noqa: ASYNC220 - returns at once; the thread must be this one
                [str(self.environment.python), str(BOOTSTRAP), "fork-server", str(theirs.fileno()), kit, _TITLE_ROOM],
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
        started = time.monotonic()
        try:
            reply = await self.preload(modules)
        except asyncio.CancelledError:
            self._process.kill()
            await asyncio.shield(self.ended.wait())
            raise
        self.python = reply.python
        log.info(
            "fork server of environment %s is up: Python %s, %.1f s",
            self.environment.label,
            reply.python,
            time.monotonic() - started,
        )
        if reply.error:
            log.warning("fork server of environment %s: %s", self.environment.label, reply.error)

    async def _how_it_ended(self) -> str:
        status = self._process.poll()
        if status is None:  # it is about to be gone
            status = await asyncio.to_thread(_wait_or_kill, self._process)
        self.output.close()
        return str(WorkerExit(max(status, 0), max(-status, 0)))

    def _last_words(self) -> str:
        return self.output.tail[-1] if self.output.tail else "it printed nothing"

    def _end_now(self) -> None:
        self._process.kill()


def _packed(message: Message) -> bytes:
    return bytes(encode([(message, b"")])[0])


def _wait_or_kill(started: subprocess.Popen[bytes]) -> int:
    try:
        return started.wait(END_GRACE)
    except subprocess.TimeoutExpired:
        started.kill()
        return started.wait()


def _end_sessions(pids: list[int]) -> None:
    """Kill what dead workers have started: each of them led a session of its own."""
    for pid in pids:
        for member in process.session_members(pid):
            process.send_signal(member, signal.SIGKILL)


class ForkServers:
    """All fork servers, one per environment, started when first needed and again when one has died."""

    def __init__(self, environ: dict[str, str], cwd: Path) -> None:
        self._environ = environ
        self._cwd = cwd
        self._servers: dict[str, asyncio.Task[ForkServer]] = {}
        self._adopted: dict[str, ForkServerLink] = {}
        self._wanted: dict[str, list[str]] = {}

    def want(self, environment: Environment, modules: list[str]) -> None:
        """A model of this environment is about to be loaded: a fork server that starts now imports these as well."""
        wanted = self._wanted.setdefault(environment.key, [])
        wanted.extend(name for name in modules if name not in wanted)

    def adopt(self, environment: Environment, descriptor: int) -> None:
        """Use a fork server that is there already, at the other end of this inherited SOCK_SEQPACKET socket."""
        link = ForkServerLink(environment)
        link.pid, link.python = os.getppid(), environment.python_version
        link.attach(socket.socket(fileno=descriptor))
        self._adopted[environment.key] = link

    async def get(self, environment: Environment) -> ForkServerLink:
        """The living fork server of an environment; concurrent callers share one start. Raises LoadError."""
        adopted = self._adopted.get(environment.key)
        if adopted is not None:
            if adopted.closed:
                raise LoadError("the script that this service belongs to has ended")
            return adopted
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
        await asyncio.gather(*(server.close() for server in [*servers, *self._adopted.values()]))
