"""The soak, short, with each kind of event; and that its watcher finds what is not so."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from support.http_server import serving
from support.processes import guarded

BENCH = Path(__file__).parents[2] / "bench"
SOURCES = {"/ready of m", "the index", "/metrics", "/status", "the server"}


@pytest.mark.timeout(600)
def test_a_short_soak_holds() -> None:
    command = [sys.executable, str(BENCH / "soak.py"), "--seconds", "40"]
    done = subprocess.run(guarded(command, whole_group=True), capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout[-8000:]}\n{done.stderr[-4000:]}"


class SaysReady(BaseHTTPRequestHandler):
    """Whatever it is asked: the model is ready. It answers no inference before `ended`."""

    ended: threading.Event

    def do_GET(self) -> None:
        row = {"name": "m", "version": "1", "state": "READY"}
        said = {
            "/metrics": 'modelhub_model_ready{model="m",version="1"} 1.0\n',
            "/status": json.dumps({"models": [row]}),
            "/v2/repository/index": json.dumps([row]),
        }
        if self.path.endswith("/infer"):
            self.ended.wait()
        body = said.get(self.path, "{}").encode()
        with suppress(ConnectionError):  # who waited in vain has left
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        """Says nothing."""


def test_the_watcher_finds_everything_that_says_ready_of_a_model_that_answers_nothing() -> None:
    ended = threading.Event()
    with serving(type("Handler", (SaysReady,), {"ended": ended})) as url:
        settings = {"place": {"url": url, "grpc": "127.0.0.1:1", "token": ""}, "bodies": {"m": [1]}, "counted": ["m"]}
        with subprocess.Popen(
            guarded([sys.executable, str(BENCH / "soaking/watch.py")]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as watch:
            assert watch.stdin is not None
            assert watch.stdout is not None
            watch.stdin.write(json.dumps(settings) + "\n")
            watch.stdin.flush()
            found: set[str] = set()
            for line in watch.stdout:
                found |= {each.partition(" says that m is ready")[0] for each in json.loads(line)["violations"]}
                if found >= SOURCES:
                    break
            watch.stdin.close()
            watch.stdout.read()
            ended.set()
    assert found == SOURCES
    assert watch.returncode == 0
