"""Fork servers by themselves, real processes: what they inherit, how they end, what is said to whoever waits."""

from __future__ import annotations

import asyncio
import os
import platform
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from modelhub.serving.gateway.environments.environments import Environment
from modelhub.serving.gateway.places.fork_link import WorkerProcess
from modelhub.serving.gateway.places.fork_server import ForkServer
from modelhub.serving.gateway.places.fork_servers import ForkServers
from modelhub.serving.gateway.places.place import StarterEnded
from modelhub.serving.gateway.places.variables import worker_environment
from modelhub.serving.protocol.codec import encode
from modelhub.serving.protocol.errors import LoadError
from modelhub.serving.protocol.messages import KillRequest, StartedReply
from modelhub.serving.protocol.worker_spec import WorkerSpec
from support.processes import survivors, until

pytestmark = pytest.mark.allow_blocking  # Popen, as the gateway itself does

SHARED = Environment("shared", Path(sys.executable), platform.python_version(), None, "shared")
#: Imports that do not end, and that no Python code interrupts.
STUCK = "import signal, time\nsignal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])\ntime.sleep(1000)\n"


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "stuck.py").write_text(STUCK)
    (tmp_path / "deadly.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    return {**os.environ, "PYTHONPATH": str(tmp_path)}


@pytest.fixture
async def servers(environ: dict[str, str], tmp_path: Path) -> AsyncIterator[ForkServers]:
    found = ForkServers(environ, tmp_path)
    yield found
    await asyncio.wait_for(found.close(), 20)


def spec(tmp_path: Path) -> WorkerSpec:
    """A worker that never gets far: nobody listens where it connects."""
    token = secrets.token_hex(16)
    env = worker_environment(os.environ, shared=True)
    return WorkerSpec("m", "1", 0, 1, token, "ipc://nowhere", "", "", str(tmp_path), env, script={"no": "script"})


async def start(server: ForkServer, tmp_path: Path, how: str) -> WorkerProcess:
    reader, writer = os.pipe()
    try:
        return await server.fork(spec(tmp_path), writer, how, [])
    finally:
        os.close(reader)
        os.close(writer)


async def one(servers: ForkServers) -> ForkServer:
    server = await servers.get(SHARED)
    assert isinstance(server, ForkServer)
    return server


@pytest.mark.parametrize("how", ["fork", "spawn"])
async def test_a_worker_does_not_get_the_socket_of_its_fork_server(
    servers: ForkServers, tmp_path: Path, how: str
) -> None:
    server = await one(servers)
    sockets = {link for link in links(server.pid) if link.startswith("socket:")}
    assert sockets
    worker = await start(server, tmp_path, how)
    running = psutil.Process(worker.pid)
    until(lambda: "worker m/1" in " ".join(running.cmdline()), 10)  # it has made itself at home
    worker.kill(signal.SIGSTOP)
    until(lambda: running.status() == psutil.STATUS_STOPPED, 10)  # the fork server sends it
    assert not sockets & links(worker.pid)
    if how == "spawn":  # its output is its output, and nothing else
        pipes = {link for link in links(worker.pid, over=2) if link.startswith("pipe:")}
        assert pipes <= {os.readlink(f"/proc/{worker.pid}/fd/2")}
    worker.kill(signal.SIGKILL)
    assert (await asyncio.wait_for(worker.exited, 10)).signal == signal.SIGKILL


def links(pid: int, *, over: int = -1) -> set[str]:
    folder = f"/proc/{pid}/fd"
    return {os.readlink(f"{folder}/{number}") for number in os.listdir(folder) if int(number) > over}


async def test_a_home_of_the_gateways_python_is_no_other_pythons(tmp_path: Path) -> None:
    other = Environment("other", Path(sys.executable), platform.python_version(), None, "another Python")
    for key, environment in (("shared", SHARED), ("other", other)):
        servers = ForkServers({**os.environ, "PYTHONHOME": "/nowhere"}, tmp_path)
        try:
            if key == "other":
                assert (await servers.get(environment)).python == platform.python_version()
            else:
                with pytest.raises(LoadError):
                    await servers.get(environment)
        finally:
            await asyncio.wait_for(servers.close(), 20)
    environ = {"PYTHONHOME": "/opt/python", "PATH": "/bin"}
    assert worker_environment(environ, shared=True)["PYTHONHOME"] == "/opt/python"
    assert "PYTHONHOME" not in worker_environment(environ, names=["PYTHONHOME"])


async def test_strange_messages_disturb_neither_side(servers: ForkServers, tmp_path: Path) -> None:
    server = await one(servers)
    server.send(KillRequest(token="unknown", signal=9))
    server._take_all(bytes(encode([(StartedReply(pid=1, python="3.0"), b"")])[0]))  # nobody asked
    server._take_all(b"no message of ours")
    worker = await start(server, tmp_path, "fork")
    worker.kill(signal.SIGKILL)
    await asyncio.wait_for(worker.exited, 10)


async def test_a_worker_that_cannot_be_told_so_much_is_refused(servers: ForkServers, tmp_path: Path) -> None:
    server = await one(servers)
    told = spec(tmp_path)
    told.env["LONG"] = "x" * (1 << 19)
    with pytest.raises(LoadError, match="fewer or shorter environment variables"):
        await server.fork(told, 0, "fork", [])


async def test_a_worker_that_ends_before_it_was_told_all_does_not_hold_up_its_fork_server(
    servers: ForkServers, tmp_path: Path
) -> None:
    """It is told more than a pipe holds, and its interpreter does not start."""
    server = await one(servers)
    told = spec(tmp_path)
    told.env.update(PYTHONHOME="/nowhere", LONG="x" * 100_000)
    log = os.open(os.devnull, os.O_WRONLY)
    worker = await asyncio.wait_for(server.fork(told, log, "spawn", []), 10)
    os.close(log)
    assert (await asyncio.wait_for(worker.exited, 10)).code == 1


async def test_the_end_of_a_fork_server_is_told_to_all_who_wait_and_another_is_started(
    servers: ForkServers, tmp_path: Path
) -> None:
    server = await one(servers)
    worker = await start(server, tmp_path, "fork")
    psutil.Process(server.pid).suspend()
    waiting = asyncio.ensure_future(start(server, tmp_path, "fork"))
    await asyncio.sleep(0)
    os.kill(server.pid, signal.SIGKILL)
    with pytest.raises(StarterEnded, match="SIGKILL"):
        await asyncio.wait_for(waiting, 10)
    exit_ = await asyncio.wait_for(worker.exited, 10)
    assert (exit_.kind, "ended with its fork server" in str(exit_)) == ("fork_server", True)
    with pytest.raises(StarterEnded):
        await start(server, tmp_path, "fork")
    again = await one(servers)
    assert again.pid != server.pid
    assert not survivors([psutil.Process(worker.pid)] if psutil.pid_exists(worker.pid) else [], 2)


async def test_a_fork_server_that_dies_while_it_starts_is_started_anew_for_the_next(servers: ForkServers) -> None:
    before = set(psutil.Process().children())
    servers.want(SHARED, ["deadly"])
    for _ in range(2):
        with pytest.raises(StarterEnded, match="SIGKILL"):
            await asyncio.wait_for(servers.get(SHARED), 20)
    assert set(psutil.Process().children()) <= before


async def test_one_that_is_stuck_in_an_import_is_ended_by_close(servers: ForkServers) -> None:
    before = set(psutil.Process().children())
    servers.want(SHARED, ["stuck"])
    waiting = asyncio.ensure_future(servers.get(SHARED))
    children = await asyncio.to_thread(until, lambda: set(psutil.Process().children()) - before, 10)
    await asyncio.wait_for(servers.close(), 20)
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not survivors(children, 1)


def test_one_that_is_stuck_in_an_import_ends_with_the_gateway(environ: dict[str, str], tmp_path: Path) -> None:
    """The one that it was started by, here a process in between, is killed."""
    code = (
        "import asyncio, sys; from pathlib import Path\n"
        "from modelhub.serving.gateway.environments.environments import Environment\n"
        "from modelhub.serving.gateway.places.fork_server import ForkServer\n"
        "async def main():\n"
        "    import os\n"
        "    shared = Environment('shared', Path(sys.executable), '3', None, 'shared')\n"
        f"    await ForkServer(shared, dict(os.environ), Path({str(tmp_path)!r})).start(['stuck'])\n"
        "asyncio.run(main())\n"
    )
    gateway = subprocess.Popen([sys.executable, "-c", code], env=environ, stdin=subprocess.DEVNULL)
    children = until(psutil.Process(gateway.pid).children, 10)
    until(lambda: _blocks_sigterm(children[0].pid), 10)
    gateway.kill()
    gateway.wait()
    assert not survivors(children, 2)


def _blocks_sigterm(pid: int) -> bool:
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return bool(int(status["SigBlk"].strip(), 16) & (1 << (signal.SIGTERM - 1)))


SLOW_TO_END = """
import socket, subprocess, sys
from modelhub.serving.workers.start.fork_server import ForkServer

class SlowToEnd(ForkServer):
    def _end_all(self):
        print("ending", flush=True)
        sys.stdin.readline()
        super()._end_all()

print(subprocess.Popen(["sleep", "1000"]).pid, flush=True)
sys.exit(SlowToEnd(socket.socket(fileno=int(sys.argv[1]))).run())
"""


def test_a_signal_during_its_end_does_not_keep_it_from_ending_all_below_it() -> None:
    """When a gateway is killed its fork server sees the end of the socket and gets a signal, almost at once."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, "-c", SLOW_TO_END, str(theirs.fileno())]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, pass_fds=[theirs.fileno()], text=True, **pipes) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        below = psutil.Process(int(server.stdout.readline()))
        theirs.close()
        ours.close()
        assert server.stdout.readline() == "ending\n"
        server.send_signal(signal.SIGTERM)
        server.stdin.write("go on\n")
        server.stdin.flush()
        assert server.wait(10) == 0
    assert not survivors([below], 1)
