"""`modelhub status` against a real HTTP server that answers as a gateway does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, ClassVar

import pytest

from modelhub.serving.gateway.cli.client import running_gateways
from modelhub.serving.gateway.cli.main import main
from support.http_server import serving

STATUS = {
    "server": {
        "version": "0.1.0",
        "pid": 7,
        "uptime_s": 200.0,
        "ready": False,
        "reasons": {"broken": "no module named [sklearn]"},
        "memory": {"private": 3 << 29},
    },
    "models": [
        {
            "name": "iris",
            "version": "3",
            "state": "READY",
            "phase_s": 61.0,
            "reason": "",
            "uri": "models:/iris/3",
            "environment": "shared",
            "python": "3.11.7",
            "replicas": [
                {"index": 0, "generation": 2, "pid": 4711, "state": "ready", "restarts": 1, "memory_private": 15 << 20},
                {"index": 1, "generation": 0, "pid": None, "state": "starting", "restarts": 0, "memory_private": None},
            ],
            "requests": {"in_flight": 2, "queued": 5, "succeeded": 1234, "failed": 9},
        },
        {"name": "broken", "version": None, "state": "FAILED", "reason": "no module named [sklearn]", "replicas": []},
    ],
}  # fmt: skip


class _Gateway(BaseHTTPRequestHandler):
    answers: ClassVar[dict[str, bytes]] = {"/status": json.dumps(STATUS).encode(), "/text/status": b"hello"}

    def do_GET(self) -> None:
        body = self.answers.get(self.path)
        self.send_response(404 if body is None else 200)
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, *_: Any) -> None:
        """Quiet."""


@pytest.fixture
def url() -> Iterator[str]:
    with serving(_Gateway) as address:
        yield address


def note(state_dir: Path, pid: int, **facts: Any) -> None:
    folder = state_dir / "gateways"
    folder.mkdir(exist_ok=True)
    (folder / f"{pid}.json").write_text(json.dumps({"pid": pid, **facts}))


@pytest.fixture
def dead_pid() -> int:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def test_the_table_shows_every_model(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", url]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("NOT READY  http://127.0.0.1:")
    assert lines[0].endswith("version 0.1.0  pid 7  up 3m20s  memory private 1.5GiB")
    assert lines[1] == "not ready because of broken: no module named [sklearn]"
    iris, broken, reason = lines[-3:]
    assert iris.split() == [
        "iris",
        "3",
        "READY",
        "1m01s",
        "4711",
        "-(starting)",
        "1",
        "15MiB",
        "3.11.7",
        "shared",
        "2",
        "5",
        "1234",
        "9",
    ]
    assert broken.split() == ["broken", "-", "FAILED", "-", "0", "-", "-", "-", "0", "0", "0", "0"]
    assert reason == "broken: no module named [sklearn]"


def test_json_is_the_answer_as_it_is(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--url", f"{url}/status/", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == STATUS


def test_the_newest_living_gateway_is_asked(
    url: str, tmp_path: Path, dead_pid: int, capsys: pytest.CaptureFixture[str]
) -> None:
    note(tmp_path, dead_pid, url="http://127.0.0.1:2", admin_url="http://127.0.0.1:2", started=30.0)
    note(tmp_path, os.getppid(), url="http://127.0.0.1:1", admin_url="", started=10.0)
    note(tmp_path, os.getpid(), url="http://127.0.0.1:1", admin_url=url, started=20.0)
    (tmp_path / "gateways" / "1.json").write_text("{half")
    foreign = {"pid": os.getpid(), "host": "another-pod", "url": "http://127.0.0.1:3", "started": 40.0}
    (tmp_path / "gateways" / f"{os.getpid()}@another-pod.json").write_text(json.dumps(foreign))
    assert [one.pid for one in running_gateways(tmp_path)] == [os.getpid(), os.getppid()]
    assert main(["status", "--server.state_dir", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["server"]["pid"] == 7


def test_a_gateway_that_ended_but_was_not_reaped_is_dead(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # ended, and left as a zombie
    note(tmp_path, child.pid, url="http://127.0.0.1:1", admin_url="", started=1.0)
    assert running_gateways(tmp_path) == []
    child.wait()


def test_none_running_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", f"--server.state_dir={tmp_path}"]) == 1
    told = capsys.readouterr().err
    assert told.startswith("modelhub: no gateway is running here")
    assert "modelhub serve" in told


@pytest.mark.parametrize(
    ("path", "text"),
    [("/elsewhere", "answered 404; /status is on the admin address"), ("/text", "did not answer as a gateway does")],
)
def test_an_address_that_is_no_gateway(url: str, path: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", url + path]) == 1
    assert text in capsys.readouterr().err


def test_an_address_where_nobody_listens(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "127.0.0.1:1"]) == 1
    assert "http://127.0.0.1:1/status does not answer" in capsys.readouterr().err
    assert main(["status", "file:///etc"]) == 1
    assert "is no http address" in capsys.readouterr().err
