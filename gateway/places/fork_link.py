"""The gateway's end of one fork server's socket: what is asked of it, and the workers that it has started."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections import deque
from collections.abc import Callable

from ...protocol.codec import decode, encode
from ...protocol.errors import LoadError
from ...protocol.limits import MAX_FORK_MESSAGE
from ...protocol.messages import (
    ExitedReply,
    ForkedReply,
    ForkRequest,
    ImportingReply,
    KillRequest,
    LearnedReply,
    LearnRequest,
    Message,
    PingRequest,
    PreloadRequest,
    StartedReply,
)
from ...protocol.worker_spec import WorkerSpec
from ...workers import linux
from ..environments.environments import Environment
from ..system.processes import Memory, cpu_seconds, read_memory
from ..system.timeouts import timeout
from .place import StarterEnded, WorkerExit

log = logging.getLogger("modelhub.workers")


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
        self._learns: asyncio.Future[LearnedReply] | None = None
        #: The module of a LearnRequest that it imports, or has imported last.
        self.importing = ""
        #: No worker is started by it any more: it ends when its last one has.
        self.leaving = False
        #: When its last worker ended, or it began; of the event loop's clock.
        self.idle_since = self._loop.time()
        #: Told of modules that keep a worker from being forked, and why.
        self.on_refused: Callable[[list[str], str], None] = lambda modules, why: None
        #: When it was asked whether it is there, and has not answered anything since; None: it has.
        self._asked: float | None = None

    def attach(self, ours: socket.socket) -> None:
        """Begin to speak over this socket."""
        ours.setblocking(False)
        self._socket = ours
        self._loop.add_reader(ours.fileno(), self._receive)

    def ping(self) -> float:
        """Ask it for a sign of life, unless it owes one: seconds that it has owed it."""
        now = self._loop.time()
        if self._asked is not None:
            return now - self._asked
        self._asked = now
        self.send(PingRequest())
        return 0.0

    @property
    def imports(self) -> bool:
        """It was asked for something that may take it long: to import, or to start a worker."""
        starting = any(not worker.started.done() for worker in self._workers.values())
        return starting or self._learns is not None or any(not each.done() for each in self._preloaded)

    @property
    def idle(self) -> bool:
        """It has no worker, and starts none."""
        return not self._workers and not self.imports

    async def preload(self, modules: list[str]) -> StartedReply:
        """Import modules in the fork server. Raises StarterEnded when it ends meanwhile."""
        self._check_open()
        future: asyncio.Future[StartedReply] = self._loop.create_future()
        self._preloaded.append(future)
        self.send(PreloadRequest(modules=modules))
        return await future

    async def learn(self, modules: list[str]) -> LearnedReply:
        """Import modules in the fork server, one by one: `importing` says which. Raises StarterEnded."""
        self._check_open()
        future: asyncio.Future[LearnedReply] = self._loop.create_future()
        self._learns = future
        self.send(LearnRequest(modules=modules))
        try:
            return await future
        finally:
            self._learns = None

    async def fork(self, spec: WorkerSpec, log_fd: int, start: str, preload: list[str]) -> WorkerProcess:
        """Start a worker. Raises LoadError when no process could be started, StarterEnded when another may do it."""
        self._check_open()
        request = ForkRequest(token=spec.token, spec=spec.to_wire(), start=start, preload=preload)
        size = len(_packed(request))
        if size > MAX_FORK_MESSAGE:
            raise LoadError(
                f"what the worker is to be told takes {size} bytes, more than {MAX_FORK_MESSAGE}: pass it fewer or "
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
                data = self._socket.recv(MAX_FORK_MESSAGE)
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
        self._asked = None
        try:
            for message, _ in decode([data], strict=True):
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
            if message.refused:
                self.on_refused(message.refused, message.why)
        elif isinstance(message, ExitedReply):
            worker = self._workers.pop(message.token)
            self.idle_since = self._loop.time()
            worker.exited.set_result(WorkerExit(message.code, message.signal, message.max_rss))
        elif isinstance(message, StartedReply):
            future = self._preloaded.popleft()
            if not future.done():
                future.set_result(message)
        elif isinstance(message, ImportingReply):
            self.importing = message.module
        elif isinstance(message, LearnedReply) and self._learns is not None and not self._learns.done():
            self._learns.set_result(message)

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
                worker.started.set_exception(StarterEnded(lost + self._last_words()))
            if not worker.exited.done():
                worker.exited.set_result(WorkerExit(why=why, cause="fork_server"))
        for future in self._preloaded:
            if not future.done():
                future.set_exception(StarterEnded(lost + self._last_words()))
        self._preloaded.clear()
        if self._learns is not None and not self._learns.done():
            self._learns.set_exception(StarterEnded(lost + self._last_words()))
        self.ended.set()

    def read_memory(self) -> Memory:
        """Blocks for a moment: for a thread."""
        return read_memory(self.pid)

    def cpu_seconds(self) -> float | None:
        """CPU time, user and system; None when it is gone. Blocks for a moment: for a thread."""
        return cpu_seconds(self.pid)

    def _check_open(self) -> None:
        if self.closed or self.leaving:
            raise StarterEnded(f"could not be started: the fork server of {self.environment.label} has just ended")

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


def _packed(message: Message) -> bytes:
    return bytes(encode([(message, b"")])[0])


def _end_sessions(pids: list[int]) -> None:
    """Kill what dead workers have started: each of them led a session of its own."""
    for pid in pids:
        for member in linux.session_members(pid):
            linux.send_signal(member, signal.SIGKILL)
