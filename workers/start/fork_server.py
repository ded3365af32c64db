"""The fork server of one environment: imports heavy libraries once, then starts workers on request.

A single-threaded loop over one socket to the gateway. It never runs a user's model or code and never
starts a thread. All its workers are its children; as a sub-reaper it also inherits whatever
they leave behind, so that nothing outlives it. It ends when the gateway's end of the socket closes.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import select
import signal
import socket
import sys
import time
import traceback
from typing import Dict, List, Set

import msgpack

from ...protocol.codec import decode, encode
from ...protocol.limits import MAX_FORK_MESSAGE, TITLE_ROOM
from ...protocol.messages import (
    FORK,
    SPAWN,
    ExitedReply,
    ForkedReply,
    ForkRequest,
    ImportingReply,
    KillRequest,
    LearnRequest,
    Message,
    PingReply,
    PingRequest,
    PreloadRequest,
    StartedReply,
)
from ...protocol.worker_spec import WorkerSpec
from .. import linux
from . import child, priming
from .learned import Learned, identity

OOM_SCORE = 400
_BOOTSTRAP = os.path.join(sys.modules["modelhub.serving.workers"].__path__[0], "bootstrap.py")


class Ended(BaseException):
    """The gateway is gone or asks for the end; not an Exception, so that nothing swallows it."""


class ForkServer:
    def __init__(self, sock: socket.socket) -> None:
        sock.set_inheritable(False)  # a worker that is a fresh interpreter must not get it
        self._socket = sock
        self._parent = os.getppid()
        self._workers: Dict[int, str] = {}  # pid -> token
        self._imported: Set[str] = set()
        self._learned = Learned()
        self._own: Set[int] = set()
        self._wake, wake_end = socket.socketpair()
        self._wake.setblocking(False)
        wake_end.setblocking(False)
        self._wake_end = wake_end
        self._asked_to_end = self._importing = False
        self._folder = ""
        self._kit = sys.argv[3] if len(sys.argv) > 3 else ""

    def run(self) -> int:
        # Without workers at once, even in the midst of an import that does not end; see `_start`.
        linux.die_with_parent(self._parent)
        self._folder = os.getcwd()
        linux.become_subreaper()
        linux.set_oom_score(OOM_SCORE)
        linux.set_title(f"modelhub: fork server (Python {sys.version_info[0]}.{sys.version_info[1]})")
        self._take_signals()
        poller = select.poll()
        poller.register(self._socket, select.POLLIN)
        poller.register(self._wake, select.POLLIN)
        try:
            while not self._asked_to_end:
                for descriptor, _ in poller.poll():
                    if descriptor == self._wake.fileno():
                        self._wake.recv(4096)
                    else:
                        self._receive()
                self._reap()
        except Ended:
            pass
        self._end_all()
        return 0

    def _take_signals(self) -> None:
        signal.signal(signal.SIGTERM, self._on_sigterm)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wake_end.fileno(), warn_on_full_buffer=False)

    def _on_sigterm(self, *_: object) -> None:
        """The loop looks at it, woken by the signal. Raised only where the loop may not come round for long.

        It often comes together with the end of the socket: raised anywhere else it could stop `_end_all` itself.
        """
        self._asked_to_end = True
        if self._importing:
            raise Ended

    # ---- messages -----------------------------------------------------------------------------

    def _receive(self) -> None:
        try:
            data, descriptors = linux.receive_descriptors(self._socket, MAX_FORK_MESSAGE, 4)
        except ConnectionResetError:
            raise Ended from None
        if not data:
            raise Ended
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        try:
            self._handle(data, descriptors)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _handle(self, data: bytes, descriptors: List[int]) -> None:
        for message, _ in decode([data]):
            if isinstance(message, ForkRequest):
                try:
                    self._start(message, descriptors[0])
                except Exception as problem:  # it concerns this worker, not the others
                    traceback.print_exc()
                    self._send(ForkedReply(token=message.token, error=f"{type(problem).__name__}: {problem}"))
            elif isinstance(message, KillRequest):
                self._kill(message)
            elif isinstance(message, PingRequest):
                self._send(PingReply())
            elif isinstance(message, PreloadRequest):
                started = time.monotonic_ns()
                error = self._preload(message.modules)
                self._send(
                    StartedReply(
                        pid=os.getpid(),
                        python=sys.version.split()[0],
                        preload_ns=time.monotonic_ns() - started,
                        tasks=linux.tasks(),
                        error=error,
                        identity=identity(),
                    )
                )
            elif isinstance(message, LearnRequest):
                self._learn(message.modules)

    def _send(self, message: Message) -> None:
        try:
            self._socket.send(bytes(encode([(message, b"")])[0]))
        except (BrokenPipeError, ConnectionResetError):
            raise Ended from None

    def _preload(self, modules: List[str]) -> str:
        """Import what is not imported yet, prime the flavours, freeze. Returns what went wrong."""
        new = [name for name in modules if name not in self._imported]
        if not new:
            return ""
        with contextlib.suppress(OSError):
            os.chdir(self._folder)  # the folder that it stood in may have been removed, and made anew
        problems = []
        self._importing = True
        try:
            for name in new:
                self._imported.add(name)
                try:
                    importlib.import_module(name)
                except Exception as error:
                    problems.append(f"{name}: {type(error).__name__}: {error}")
            problems.extend(priming.prime(new))
        finally:
            self._importing = False
        self._own = linux.children(os.getpid()) - set(self._workers)  # helpers that an import has started
        gc.collect()
        gc.freeze()
        return "; ".join(problems)

    def _learn(self, modules: List[str]) -> None:
        self._importing = True
        try:
            reply = self._learned.take(modules, lambda name: self._send(ImportingReply(module=name)))
        finally:
            self._importing = False
        self._take_signals()  # whatever handlers those have set
        with contextlib.suppress(OSError):
            os.chdir(self._folder)
        gc.collect()
        gc.freeze()
        self._send(reply)

    # ---- workers ------------------------------------------------------------------------------

    def _start(self, request: ForkRequest, log_fd: int) -> None:
        start, why = request.start, ""
        spec = WorkerSpec.from_wire(request.spec)
        refused: List[str] = []
        if start == FORK:
            why, refused = self._learned.conflicts(spec)
            start = SPAWN if why else FORK
        if start == FORK:
            problem = self._preload(request.preload)
            if problem:
                print(f"preloading: {problem}", flush=True)
            count = linux.tasks()
            if count > 1:
                start = SPAWN
                why = f"the fork server has {count} tasks, and forking a process with threads is unsafe"
        if not self._workers:
            linux.die_with_parent(self._parent, signal.SIGTERM)  # there is something to end before the own end
        try:
            pid = self._fork(spec, log_fd) if start == FORK else self._spawn(spec, log_fd)
        except OSError as error:
            self._send(ForkedReply(token=request.token, error=f"no new process could be started: {error}"))
            return
        self._workers[pid] = request.token
        self._send(ForkedReply(token=request.token, pid=pid, start=start, why=why, refused=refused))

    def _fork(self, spec: WorkerSpec, log_fd: int) -> int:
        parent = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        gc.disable()
        pid = -1
        try:
            pid = os.fork()
        finally:
            if pid:
                gc.enable()
        if pid:
            return pid
        code = 70
        try:
            own = [self._socket.detach(), self._wake.detach(), self._wake_end.detach()]
            code = child.main_forked(spec, log_fd, own, parent, self._learned.variables)
        except SystemExit as exit_:
            code = exit_.code if isinstance(exit_.code, int) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            try:
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                os._exit(code)

    def _spawn(self, spec: WorkerSpec, log_fd: int) -> int:
        """A fresh interpreter of the same environment; its spec goes through a pipe that becomes its stdin."""
        data = msgpack.packb({**spec.to_wire(), "parent": os.getpid()})
        reader, writer = os.pipe()
        try:
            pid = os.posix_spawn(
                sys.executable,
                [sys.executable, _BOOTSTRAP, "worker", "0", self._kit, TITLE_ROOM],
                spec.env,
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, reader, 0),
                    (os.POSIX_SPAWN_DUP2, log_fd, 1),
                    (os.POSIX_SPAWN_DUP2, log_fd, 2),
                ],
                setsid=True,
                setsigdef=[signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE],
            )
        except BaseException:
            os.close(writer)
            raise
        finally:
            os.close(reader)  # so that writing to one that has ended already fails, and does not wait for ever
        with contextlib.suppress(BrokenPipeError), open(writer, "wb") as file:
            file.write(data)
        return pid

    def _kill(self, request: KillRequest) -> None:
        for pid, token in self._workers.items():
            if token == request.token:
                linux.send_signal(pid, request.signal)
                if request.signal == signal.SIGKILL:
                    self._end_session(pid)
                return

    def _end_session(self, session: int) -> None:
        """SIGKILL whatever a worker started and did not take along."""
        for pid in linux.session_members(session):
            linux.send_signal(pid, signal.SIGKILL)

    def _end_left(self, worker: int) -> None:
        """What a worker that has ended has left: all of that is a child of this process now, whatever its session."""
        self._end_orphans()

    def _end_orphans(self) -> None:
        """SIGKILL what a dead worker has left, whatever session it is in.

        Each worker is a sub-reaper: what comes here has lost its worker, or is a helper of this process's own.
        """
        for orphan in linux.own_children() - set(self._workers) - self._own:
            for pid in (orphan, *linux.descendants(orphan)):
                linux.send_signal(pid, signal.SIGKILL)

    def _reap(self) -> None:
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            token = self._workers.pop(pid, None)
            if token is None:
                self._other_exited(pid, status)
                continue
            self._end_left(pid)
            self._send(
                ExitedReply(
                    token=token,
                    pid=pid,
                    code=os.WEXITSTATUS(status) if os.WIFEXITED(status) else 0,
                    signal=os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0,
                    max_rss=usage.ru_maxrss * 1024,
                )
            )

    def _other_exited(self, pid: int, status: int) -> None:
        """A child that is no worker: an orphan that one has left. What it has left in turn comes here now."""
        self._end_orphans()

    def _end_all(self) -> None:
        """Nothing below this process survives it: kill until there is no child left."""
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            for pid in linux.descendants(os.getpid()):
                linux.send_signal(pid, signal.SIGKILL)
            try:
                os.waitpid(-1, 0)
            except ChildProcessError:
                return


def main(descriptor: int) -> int:
    """Entry of the role `fork-server`."""
    return ForkServer(socket.socket(fileno=descriptor)).run()
