"""The fork server inside a user's script: its services are loaded here, and each worker is a fork of it.

`ModelServer.start` runs it in the script's main thread. It starts the gateway as a fresh child and then
serves that child's requests for workers; signals are passed on to the gateway, whose end is this one's.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import Any, Dict, Optional

from ...protocol.errors import ConfigError, ServingError
from ...protocol.limits import MAX_FORK_MESSAGE
from ...protocol.messages import FORK, SPAWN, ForkedReply, ForkRequest
from ...protocol.worker_spec import WorkerSpec
from .. import linux
from ..services import handover
from ..services.base import ModelhubModelService
from ..start.fork_server import Ended, ForkServer

#: The gateway's code; the working directory must not shadow any module of it.
_GATEWAY = (
    "import sys; sys.path[:] = [entry for entry in sys.path if entry]; "
    "from modelhub.serving.gateway.script import main; sys.exit(main(sys.argv[1:]))"
)
#: What systemd says to a service, for its gateway alone (gateway/system/service_manager.py, gateway/system/sockets.py).
_OF_SYSTEMD = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")
#: Seconds that a gateway may take to end after it has closed its end of the socket.
_END_TIMEOUT = 60.0


def _passed_by_systemd() -> range:
    """Descriptors of the sockets that the script was started with, for its gateway."""
    count = os.environ.get("LISTEN_FDS", "")
    ours = os.environ.get("LISTEN_PID") == str(os.getpid())
    return range(3, 3 + int(count)) if ours and count.isdecimal() else range(0)


def why_not_fork() -> str:
    """The reason why this process must not be forked now; "" if it may be."""
    count = linux.tasks()
    if count > 1:
        names = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
        listed = f" ({', '.join(names[:5])})" if names else f" of a library{_import_order()}"
        return f"the script's process has {count - 1} more threads{listed}"
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    if cuda is not None and cuda.is_initialized():
        return "CUDA is initialised in the script's process"
    return ""


def _import_order() -> str:
    """What to do about a numeric library's pool; "" where this is not the reason."""
    if not {"numpy", "torch"} & sys.modules.keys() or os.environ.get("OMP_NUM_THREADS") == "1":
        return ""
    return ": import modelhub.serving before numpy, pandas and other libraries, and they start none"


class ScriptServer(ForkServer):
    """Serves until the gateway ends; `run` returns the gateway's exit code."""

    def __init__(self, services: Dict[str, ModelhubModelService], why: str) -> None:
        """`why`: the reason why workers are started afresh instead of forked; "" if they are forked."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MAX_FORK_MESSAGE * 2)
        super().__init__(ours)
        self._kit = ""
        self._theirs = theirs
        self._services = services
        self._why = why
        self._gateway = 0
        self._status: Optional[int] = None

    def start_gateway(self, config: Dict[str, Any]) -> None:
        """Start the gateway on this configuration: see `gateway/script.py` for its keys."""
        command = [sys.executable, "-c", _GATEWAY, str(self._theirs.fileno()), str(os.getpid()), "-" * 100]
        passed = _passed_by_systemd()
        gateway = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            pass_fds=(self._theirs.fileno(), *passed),
            start_new_session=True,  # Ctrl-C reaches it once, from here
        )
        self._theirs.close()
        for descriptor in passed:
            os.close(descriptor)
        for name in _OF_SYSTEMD:  # the gateway speaks for this service: no worker does
            os.environ.pop(name, None)
        assert gateway.stdin is not None
        with gateway.stdin as pipe:
            pipe.write(json.dumps(config).encode())
        self._gateway = gateway.pid
        gateway.returncode = 0  # reaped here, not there

    def run(self) -> int:
        linux.become_subreaper()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._forward)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wake_end.fileno(), warn_on_full_buffer=False)
        gc.collect()
        gc.freeze()
        poller = select.poll()
        poller.register(self._socket, select.POLLIN)
        poller.register(self._wake, select.POLLIN)
        try:
            self._reap()
            while self._status is None:
                for descriptor, _ in poller.poll():
                    if descriptor == self._wake.fileno():
                        self._wake.recv(4096)
                    else:
                        self._receive()
                self._reap()
        except Ended:
            pass
        self._socket.close()
        self._end_workers()
        return self._exit_code()

    def _forward(self, number: int, _: object) -> None:
        if self._status is None:
            linux.send_signal(self._gateway, number)

    # ---- workers ------------------------------------------------------------------------------

    def _start(self, request: ForkRequest, log_fd: int) -> None:
        spec = WorkerSpec.from_wire(request.spec)
        spec.cwd = os.getcwd()  # relative paths in services mean what they mean in the script
        start, why = request.start, ""
        if start == FORK:
            why = self._why or why_not_fork()
            start = SPAWN if why else FORK
        try:
            if start == FORK:
                pid = self._fork(spec, log_fd)
            else:
                spec.script = handover.handover(self._services[spec.service_object])
                pid = self._spawn(spec, log_fd)
        except (OSError, ServingError) as error:
            message = error.message if isinstance(error, ServingError) else f"no new process could be started: {error}"
            self._send(ForkedReply(token=request.token, error=message))
            return
        self._workers[pid] = request.token
        self._send(ForkedReply(token=request.token, pid=pid, start=start, why=why))

    def _end_left(self, worker: int) -> None:
        self._end_session(worker)

    def _end_orphans(self) -> None:
        """Whose children these are cannot be told: the script may have started them."""

    def _other_exited(self, pid: int, status: int) -> None:
        if pid == self._gateway:
            self._status = status

    # ---- the end ------------------------------------------------------------------------------

    def _end_workers(self) -> None:
        """Workers end with the gateway; children that the script itself started are its own business."""
        for pid in self._workers:
            linux.send_signal(pid, signal.SIGKILL)
            self._end_session(pid)

    def _exit_code(self) -> int:
        deadline = time.monotonic() + _END_TIMEOUT
        while self._status is None:
            left = deadline - time.monotonic()
            if left < 0:
                linux.send_signal(self._gateway, signal.SIGKILL)
                left = 5.0
            select.select([self._wake], [], [], min(left, 1.0))
            try:
                pid, status = os.waitpid(self._gateway, os.WNOHANG)
            except ChildProcessError:
                return 1
            if pid:
                self._status = status
        if os.WIFSIGNALED(self._status):
            return 128 + os.WTERMSIG(self._status)
        return os.WEXITSTATUS(self._status)


def check_main_thread() -> None:
    """Workers must be children of the thread that lives as long as the process."""
    if threading.current_thread() is not threading.main_thread():
        raise ConfigError("ModelServer.start() must be called in the script's main thread")
