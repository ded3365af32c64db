"""A real Prometheus as a process of its own, and questions to it."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Prometheus:
    """A running server."""

    def __init__(self, url: str, process: subprocess.Popen[bytes]) -> None:
        self.url = url
        self.process = process

    def get(self, path: str) -> Any:
        """The data of an answer of its API."""
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}", timeout=10) as answer:
            return json.loads(answer.read())["data"]

    def query(self, text: str) -> list[dict[str, Any]]:
        return list(self.get(f"query?{urllib.parse.urlencode({'query': text})}")["result"])

    def wait_for(self, text: str, seconds: float = 30) -> list[dict[str, Any]]:
        """What the query returns as soon as it returns something."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                found = self.query(text)
            except OSError:
                found = []
            if found:
                return found
            assert time.monotonic() < deadline, f"{text} returns nothing"
            try:
                self.process.wait(0.2)
            except subprocess.TimeoutExpired:
                continue
            raise AssertionError("Prometheus has ended")


def scraping(url: str, rules: Path) -> dict[str, Any]:
    """A configuration that scrapes one gateway each second."""
    return {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(rules)],
        "scrape_configs": [
            {"job_name": "modelhub", "static_configs": [{"targets": [url.removeprefix("http://")]}]},
        ],
    }


@contextmanager
def prometheus(binaries: Path, folder: Path, config: Path | dict[str, Any]) -> Iterator[Prometheus]:
    """Runs with this configuration, a file or its content; what it writes lies below `folder`."""
    if not isinstance(config, Path):
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
        config = folder / "prometheus.yaml"
    port = free_port()
    command = [
        str(binaries / "prometheus"),
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
    try:
        yield Prometheus(f"http://127.0.0.1:{port}", process)
    finally:
        process.terminate()
        process.wait(20)
