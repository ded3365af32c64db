"""Whoever logs waits for no reader: not of a pipe that is full, not of one that is gone, not where there is none."""

from __future__ import annotations

import http.client
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from modelhub.serving.gateway.telemetry.log import configure
from modelhub.serving.gateway.telemetry.stderr import Writer
from support.gateway_process import Gateway

log = logging.getLogger("modelhub.models")
INPUT = [{"name": "input-0", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        try:
            os.close(end)
        except OSError:
            pass  # closed by the test


@pytest.fixture
def logging_to() -> Iterator[Callable[[Writer], None]]:
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    yield lambda writer: configure("info", "json", writer)  # type: ignore[arg-type]
    root.handlers[:], root.level = before
    logging.captureWarnings(False)


def read_until(descriptor: int, end: bytes) -> bytes:
    data = b""
    while not data.endswith(end):
        data += os.read(descriptor, 1 << 16)
    return data


def test_what_finds_no_room_is_counted_and_said(pipe: tuple[int, int], logging_to: Callable[[Writer], None]) -> None:
    reader, descriptor = pipe
    writer = Writer(descriptor, most=100_000)
    logging_to(writer)
    for number in range(5000):  # some 100 bytes each: more than the pipe and the writer hold
        log.info("line %d", number)
    lost = writer.dropped
    assert 1000 < lost < 5000
    kept: list[int] = []
    said: list[int] = []
    with os.fdopen(os.dup(reader)) as lines:
        while len(kept) + sum(said) < 5000:
            line = json.loads(lines.readline())
            if "dropped" in line:
                assert line["level"] == "warning"
                said.append(line["dropped"])
            else:
                kept.append(int(line["message"].removeprefix("line ")))
    assert sum(said) == lost
    assert kept == sorted(set(kept)), "in their order"
    assert kept[:500] == list(range(500)), "the pipe had room for these"
    assert writer.dropped == lost
    writer.end()


def test_lines_come_whole_and_in_order_from_many_threads(pipe: tuple[int, int]) -> None:
    reader, descriptor = pipe
    writer = Writer(descriptor)
    threads = [
        threading.Thread(target=lambda name=name: [writer.write(f"{name}-{n}\n") for n in range(200)])  # type: ignore[misc]
        for name in "abcd"
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    writer.end()
    os.close(descriptor)
    with os.fdopen(os.dup(reader)) as file:
        lines = file.read().splitlines()
    for name in "abcd":
        assert [line for line in lines if line[0] == name] == [f"{name}-{n}" for n in range(200)]


def test_a_reader_that_is_gone_and_one_that_reads_nothing_hold_up_no_end(pipe: tuple[int, int]) -> None:
    reader, descriptor = pipe
    gone = Writer(descriptor)
    os.close(reader)
    for _ in range(2000):
        gone.write("x" * 100 + "\n")
    gone.end()
    gone.write("more\n")
    assert gone.dropped > 0
    unread = os.pipe()
    full = Writer(unread[1])
    for _ in range(2000):
        full.write("x" * 100 + "\n")
    full.end()
    full.write("more\n")
    assert full.dropped == 1
    os.set_blocking(unread[1], True)
    os.close(unread[0])  # wakes the thread
    full._thread.join(10)
    os.close(unread[1])


def asks(url: str, count: int) -> int:
    """How many of so many requests are answered, on one connection."""
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=20)
    body, good = json.dumps({"inputs": INPUT}), 0
    headers = {"Content-Type": "application/json", "X-Request-Id": "i" * 128}  # for lines of some size
    for _ in range(count):
        connection.request("POST", "/v2/models/identity/infer", body, headers)
        answer = connection.getresponse()
        answer.read()
        good += answer.status == 200
    connection.close()
    return good


def test_a_gateway_whose_log_nobody_reads_goes_on(
    gateway: Callable[..., Gateway], models: Path, tmp_path: Path
) -> None:
    fifo = tmp_path / "log"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    config = {
        "server": {"log": {"level": "debug", "format": "json"}},
        "models": [{"name": "identity", "uri": str(models / "identity")}],
    }

    def to_the_fifo(command: list[str]) -> list[str]:
        return ["sh", "-c", 'exec "$@" 2> "$0"', str(fifo), *command]

    running = gateway(config, wrap=to_the_fifo)
    running.wait_ready()
    assert asks(running.url, 4000) == 4000
    assert running.get("/v2/health/live").status == 200
    text = running.get("/metrics").body.decode()
    (line,) = [line for line in text.splitlines() if line.startswith("modelhub_log_lines_dropped_total")]
    assert float(line.split()[1]) > 0
    os.set_blocking(reader, True)
    lines: list[bytes] = []

    def drain() -> None:
        with os.fdopen(reader, "rb") as file:
            lines.extend(file)

    draining = threading.Thread(target=drain)
    draining.start()
    asks(running.url, 1)
    running.stop()
    draining.join(30)
    events = [json.loads(line) for line in lines]
    assert next(event["dropped"] for event in events if "dropped" in event) > 0
    assert "stopping" in events[-2]["message"] or "stopped" in events[-1]["message"]


def test_every_line_is_json_whoever_prints_it(
    gateway: Callable[..., Gateway], models: Path, mlflow_server: str
) -> None:
    config = {
        "server": {"grpc_port": 0, "readiness": "any"},
        "models": [
            {"name": "identity", "uri": str(models / "identity"), "start": "spawn"},
            {"name": "absent", "uri": "models:/absent/1"},
        ],
    }
    running = gateway(config, env={"MLFLOW_TRACKING_URI": mlflow_server})
    running.wait_ready("identity")
    running.wait_log("absent")
    running.stop()
    assert [json.loads(line) for line in running.log().splitlines()]


@pytest.mark.parametrize("closed", ["2>&-", "<&- >&- 2>&-"])
def test_it_starts_without_standard_error(gateway: Callable[..., Gateway], models: Path, closed: str) -> None:
    config = {"models": [{"name": "identity", "uri": str(models / "identity")}]}
    running = gateway(config, wrap=lambda command: ["sh", "-c", f'exec "$0" "$@" {closed}', *command])
    running.wait_ready()
    assert asks(running.url, 3) == 3
    for number in (0, 1, 2):
        place = os.readlink(f"/proc/{running.pid}/fd/{number}")
        assert place.startswith(("/dev/null", "pipe:", "/")), place
    running.stop()


def test_what_it_says_at_its_end_is_where_it_was_said_before(tmp_path: Path) -> None:
    file = tmp_path / "models.yaml"
    file.write_text("server: {state_dir: /proc/none}\nmodels: [{name: a, uri: /nowhere}]\n")
    command = [str(Path(sys.executable).with_name("modelhub")), "serve", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert "state_dir" in done.stderr.splitlines()[-1]
