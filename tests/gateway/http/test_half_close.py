"""Clients that end their side of the connection once they have sent their request."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from support.gateway_process import Gateway
from support.v2_client import request, tensor

BODY = request(tensor("input-0", "FP32", [1, 1], [1.0]))


def connected(gateway: Gateway) -> socket.socket:
    place = urlsplit(gateway.url)
    return socket.create_connection((place.hostname, place.port), timeout=30)


def head(model: str, version: str = "1.1", size: int | None = None) -> bytes:
    length = len(BODY) if size is None else size
    return f"POST /v2/models/{model}/infer HTTP/{version}\r\nHost: a\r\nContent-Length: {length}\r\n\r\n".encode()


def everything(connection: socket.socket) -> bytes:
    found = b""
    while chunk := connection.recv(65536):
        found += chunk
    return found


@pytest.fixture(scope="module")
def slow(models: Path, module_gateway: Callable[..., Gateway]) -> Gateway:
    entries: list[dict[str, Any]] = [{"name": "slow", "uri": str(models / "slow_predict")}]
    running = module_gateway({"defaults": {"environment": "shared"}, "models": entries})
    running.wait_ready()
    return running


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("at_once", [True, False])
def test_a_client_that_has_sent_all_gets_its_answer(slow: Gateway, version: str, at_once: bool) -> None:
    with connected(slow) as connection:
        if at_once:
            connection.sendall(head("slow", version) + BODY)
        else:
            connection.sendall(head("slow", version))
            connection.sendall(BODY)
        connection.shutdown(socket.SHUT_WR)
        answer = everything(connection)
    *interim, last, body = answer.split(b"\r\n\r\n")
    assert last.startswith((b"HTTP/1.0 200", b"HTTP/1.1 200")), answer
    assert interim in ([], [b"HTTP/1.1 100 Continue"] if version == "1.1" else [])
    assert json.loads(body)["outputs"][0]["data"] == [1.0]


def test_a_client_that_ends_in_the_midst_of_its_request_gets_none(slow: Gateway) -> None:
    for sent in (b"", b"POST /v2/mo", head("slow"), head("slow", size=len(BODY) + 5) + BODY):
        with connected(slow) as connection:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            assert b" 200" not in everything(connection)


def test_a_client_that_is_gone_takes_its_request_along(slow: Gateway) -> None:
    """Its end looks the same, until something is sent to it."""
    long = request(tensor("input-0", "FP32", [1, 1], [5000.0]))
    with connected(slow) as first:
        first.sendall(head("slow", size=len(long)) + long)
        waiting = [connected(slow) for _ in range(5)]
        for connection in waiting:
            connection.sendall(head("slow") + BODY)
        while in_flight(slow) < 6:
            pass
        for connection in waiting:
            connection.close()
        while in_flight(slow) > 2:  # the worker holds the next one already
            pass
        first.settimeout(0.0)
        with pytest.raises(BlockingIOError):  # they have left while the first one runs
            first.recv(1)
        first.settimeout(30.0)
        assert first.recv(65536).startswith(b"HTTP/1.1 200")


def in_flight(gateway: Gateway) -> float:
    """Requests that run or wait."""
    lines = gateway.get("/metrics").body.decode().splitlines()
    names = ("modelhub_in_flight{", "modelhub_queue_length{")
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(names))
