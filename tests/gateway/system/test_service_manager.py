"""A gateway that systemd starts: what it tells, when, and the sockets that it is given."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from support import activate
from support.gateway_process import MODELHUB, Gateway
from support.processes import guarded, until
from support.script_process import ScriptProcess

Start = Callable[..., Gateway]
OF_SYSTEMD = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")
SCRIPT = """
from modelhub.serving import ModelhubModelService, ModelServer

class Service(ModelhubModelService):
    def load(self):
        pass

    def predict_text(self, request, headers=None):
        return "hello"

if __name__ == "__main__":
    ModelServer().start([Service("greeter", "")])
"""


class Manager:
    """What was told: lines, as they came."""

    def __init__(self, ours: socket.socket, address: str) -> None:
        self._socket = ours
        self.address = address
        self._told: list[str] = []

    def told(self) -> list[str]:
        try:
            while True:
                self._told += self._socket.recv(65536).decode().split("\n")
        except BlockingIOError:
            return self._told

    def wait_for(self, line: str) -> None:
        until(lambda: line in self.told(), 60, f"{line} in {self._told}")


@contextmanager
def manager_at(address: str) -> Iterator[Manager]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ours:
        ours.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        ours.setblocking(False)
        yield Manager(ours, address)


def activated(*given: str) -> Callable[[Sequence[str]], list[str]]:
    """How to start it with these sockets."""
    return lambda command: guarded([sys.executable, str(activate.__file__), *given, "--", *command])


def config_of(models: Path, *names: str, **server: Any) -> dict[str, Any]:
    return {"server": server, "models": [{"name": name, "uri": str(models / name)} for name in names]}


def answers(running: Gateway, path: str = "/v2/health/live", **headers: str) -> int:
    return running.get(path, headers).status


@pytest.mark.parametrize("kind", ["a path", "a name"])
def test_ready_is_told_when_the_server_is_and_the_end_when_it_begins(
    gateway: Start, models: Path, tmp_path: Path, kind: str
) -> None:
    address = str(tmp_path / "notify") if kind == "a path" else f"@modelhub-test-{os.getpid()}"
    with manager_at(address) as manager:
        running = gateway(config_of(models, "slow_load", "identity"), env={"NOTIFY_SOCKET": address})
        assert answers(running, "/v2/health/ready") == 503
        assert "READY=1" not in manager.told()
        manager.wait_for("READY=1")
        assert answers(running, "/v2/health/ready") == 200
        assert any(line.startswith("STATUS=not ready: ") and "slow_load/1" in line for line in manager.told())
        assert "STOPPING=1" not in manager.told()
        running.stop()
        manager.wait_for("STOPPING=1")


def test_a_server_that_is_not_ready_never_says_so(gateway: Start, models: Path, tmp_path: Path) -> None:
    with manager_at(str(tmp_path / "notify")) as manager:
        running = gateway(config_of(models, "raises_on_load"), env={"NOTIFY_SOCKET": manager.address})
        manager.wait_for("STATUS=not ready: raises_on_load/1 is FAILED")
        running.stop()
        manager.wait_for("STOPPING=1")
        assert "READY=1" not in manager.told()


def test_signs_of_life_come_as_often_as_they_are_wanted(gateway: Start, models: Path, tmp_path: Path) -> None:
    with manager_at(str(tmp_path / "notify")) as manager:
        environ = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "200000"}
        gateway(config_of(models, "identity"), env=environ)
        until(lambda: manager.told().count("WATCHDOG=1") > 4)
        gateway(config_of(models, "identity"), env={**environ, "WATCHDOG_PID": "1", "NOTIFY_SOCKET": "/nowhere"})


def test_sockets_that_were_passed_are_served_and_operators_have_theirs(
    gateway: Start, models: Path, tmp_path: Path
) -> None:
    main, operators = tmp_path / "main.sock", tmp_path / "admin.sock"
    wrap = activated(f"unknown=unix:{main}", "modelhub.socket=127.0.0.1:0", f"admin=unix:{operators}")
    running = gateway(config_of(models, "identity", admin=0, port=1), wrap=wrap)
    running.wait_ready()
    assert running.url.startswith("http://127.0.0.1:")
    assert running.url != "http://127.0.0.1:1"
    assert running.admin_url == f"unix:{operators}"
    row = {"name": "input-0", "shape": [1, 1], "datatype": "FP32", "data": [1]}
    assert running.infer("identity", [row]).status == 200
    assert answers(running, "/status") == 404
    http, running.url = running.url, f"unix:{main}"
    assert running.infer("identity", [row]).status == 200
    running.url = running.admin_url
    assert answers(running, "/status") == 200
    assert answers(running, "/status", Authorization="Bearer no") == 401
    running.url = http
    command = [str(MODELHUB), "status", f"--server.state_dir={running.state_dir}"]
    assert "READY" in subprocess.run(command, capture_output=True, text=True, check=True).stdout
    running.stop()
    assert main.exists()  # it is systemd's, which listens on it still


def test_nothing_of_it_reaches_who_is_started(gateway: Start, models: Path, tmp_path: Path) -> None:
    with manager_at(str(tmp_path / "notify")) as manager:
        environ = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "1000000"}
        config = config_of(models, "identity")
        config["models"] += [{**config["models"][0], "name": "fresh", "start": "spawn", "env": list(OF_SYSTEMD)}]
        running = gateway(config, env=environ, wrap=activated("http=127.0.0.1:0"))
        running.wait_ready()
        listened_on = os.readlink(f"/proc/{running.pid}/fd/3")
        below = running.processes()
        assert len(below) > 2
        for process in below:
            assert not set(OF_SYSTEMD) & process.environ().keys()
            assert listened_on not in links(process)


def links(process: psutil.Process) -> set[str]:
    folder = Path("/proc", str(process.pid), "fd")
    return {os.readlink(each) for each in folder.iterdir()}


def test_sockets_for_another_process_are_not_taken(gateway: Start, models: Path, tmp_path: Path) -> None:
    wrap = activated("--pid", "1", f"http=unix:{tmp_path / 's'}")
    running = gateway(config_of(models, "identity"), wrap=wrap)
    assert running.url.startswith("http://127.0.0.1:")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("http=datagram:{}/s", "needs ListenStream="),
        ("admin=unix:{}/s", "server.admin is same: leave one out"),
        ("grpc=unix:{}/s", "gRPC opens its own"),
    ],
)
def test_sockets_that_cannot_be_used_are_named(given: str, says: str, models: Path, tmp_path: Path) -> None:
    command = [str(MODELHUB), "serve", str(models / "identity"), "--server.admin=same", "--server.port=0"]
    said = subprocess.run(
        activated(given.format(tmp_path))([*command, f"--server.state_dir={tmp_path / 'state'}"]),
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 2
    assert says in said.stderr


def test_a_scripts_gateway_gets_what_its_script_was_given(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(SCRIPT)
    path = tmp_path / "http.sock"
    with manager_at(str(tmp_path / "notify")) as manager:
        command = activated(f"http=unix:{path}")([sys.executable, "app.py"])
        running = ScriptProcess(command, tmp_path, env={"NOTIFY_SOCKET": manager.address})
        try:
            running.wait_live()
            running.wait_ready()
            assert running.url == f"unix:{path}"
            manager.wait_for("READY=1")
            listened_on = {link for process in running.processes() for link in links(process)}
            ours = [link for link in links(psutil.Process(running.pid)) if link.startswith("socket:")]
            workers = [process for process in running.processes() if "worker" in " ".join(process.cmdline())]
            assert workers
            assert listened_on
            gateway = next(process for process in running.processes() if "gateway" in " ".join(process.cmdline()))
            theirs = os.readlink(f"/proc/{gateway.pid}/fd/3")
            assert theirs not in ours
            assert all(theirs not in links(worker) for worker in workers)
            assert running.signal(signal.SIGTERM) == 0
            manager.wait_for("STOPPING=1")
        finally:
            running.kill()


@pytest.mark.skipif(shutil.which("systemd-socket-activate") is None, reason="no systemd-socket-activate here")
def test_systemds_own_activation(gateway: Start, models: Path, tmp_path: Path) -> None:
    path = tmp_path / "http.sock"
    folder = tmp_path / "state"
    options = [
        "-l",
        str(path),
        "--fdname=http",
        *(f"-E{name}" for name in ("PATH", "HOME", "TMPDIR") if name in os.environ),
    ]
    command = [str(MODELHUB), "serve", str(models / "identity"), f"--server.state_dir={folder}", "--server.admin=off"]
    running = subprocess.Popen(guarded(["systemd-socket-activate", *options, *command]), stderr=subprocess.PIPE)
    try:
        until(path.exists)
        with socket.socket(socket.AF_UNIX) as client:  # whose connection starts it
            client.connect(str(path))
            client.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            client.settimeout(60)
            assert client.recv(100).startswith(b"HTTP/1.1 200")
    finally:
        running.terminate()
        running.communicate(timeout=30)
