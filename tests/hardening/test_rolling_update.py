"""Two gateways, one of which ends: clients of a load balancer, and of gRPC channels over both, do not notice."""

from __future__ import annotations

import http.client
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from modelhub.serving.gateway.grpc.generated import open_inference_pb2 as pb
from support.doors import SERVICE
from support.gateway_process import Gateway
from support.processes import guarded, until

Start = Callable[..., Gateway]
#: Asks once: what was wrong, "": nothing; and what ends it.
Asking = tuple[Callable[[], str], Callable[[], None]]
HAPROXY = shutil.which("haproxy", path="/usr/sbin:/usr/bin:/usr/local/sbin")
CONFIG = """
global
    maxconn 1000
defaults
    mode http
    timeout connect 1s
    timeout client 30s
    timeout server 30s
    option httpchk GET /v2/health/ready
    http-reuse safe
    retries 3
frontend front
    bind 127.0.0.1:{port}
    default_backend gateways
backend gateways
    balance roundrobin
{servers}
"""
BODY = b'{"inputs":[{"name":"input-0","datatype":"FP32","shape":[1,1],"data":[7]}]}'
LONG = b'{"inputs":[{"name":"input-0","datatype":"FP32","shape":[1,1],"data":[4000]}]}'


def two(models: Path, gateway: Start, **server: Any) -> list[Gateway]:
    entries = [
        {"name": name, "uri": str(models / name), "environment": "shared"} for name in ("identity", "slow_predict")
    ]
    config = {"server": {"grpc_port": 0, **server}, "models": entries}
    found = [gateway(config) for _ in range(2)]
    for each in found:
        each.wait_ready()
    return found


class Clients:
    """Threads that ask, one request after the other, until `stop`; what was no success."""

    def __init__(self, ask: Callable[[], Asking], count: int = 4) -> None:
        self.failures: list[str] = []
        self.answered = 0
        self._ask = ask
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        ask, close = self._ask()
        while not self._ending.is_set():
            failure = ask()
            self.answered += 1
            if failure:
                self.failures.append(failure)
        close()

    def more(self, count: int) -> None:
        wanted = self.answered + count
        until(lambda: self.answered >= wanted, 60)

    def stop(self) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join()


def long_request(gateway: Gateway, answers: list[int]) -> threading.Thread:
    """Seconds of work that are under way when this returns."""
    thread = threading.Thread(
        target=lambda: answers.append(gateway.post("/v2/models/slow_predict/infer", LONG, JSON).status)
    )
    thread.start()
    until(lambda: gateway.get("/status").json()["models"][1]["requests"]["in_flight"] == 1, 20)
    return thread


JSON = {"Content-Type": "application/json"}


@contextmanager
def haproxy(gateways: list[Gateway], folder: Path) -> Iterator[int]:
    assert HAPROXY is not None
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    lines = [
        f"    server g{number} {each.url.removeprefix('http://')} check inter 100ms fall 1 rise 1"
        for number, each in enumerate(gateways)
    ]
    (folder / "haproxy.cfg").write_text(CONFIG.format(port=port, servers="\n".join(lines)))
    process = subprocess.Popen(guarded([HAPROXY, "-db", "-f", str(folder / "haproxy.cfg")]), stderr=subprocess.DEVNULL)
    try:
        until(lambda: _listens(port), 20)
        yield port
    finally:
        process.kill()
        process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.skipif(HAPROXY is None, reason="haproxy is not installed: apt-get install haproxy")
def nobody_notices(gateway: Gateway, ask: Callable[[], Asking]) -> None:
    """The clients that `ask` makes, and a long request, while this gateway of two is told to end."""
    clients = Clients(ask)
    try:
        clients.more(200)
        answers: list[int] = []
        running = long_request(gateway, answers)
        gateway.signal(signal.SIGTERM)
        running.join()
        clients.more(200)
    finally:
        clients.stop()
    assert (clients.failures[:5], answers) == ([], [200])


def test_clients_of_haproxy_do_not_notice(models: Path, gateway: Start, tmp_path: Path) -> None:
    gateways = two(models, gateway, drain_delay="1s")
    with haproxy(gateways, tmp_path) as port:

        def ask() -> Asking:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

            def once() -> str:
                try:
                    connection.request("POST", "/v2/models/identity/infer", BODY, JSON)
                    answer = connection.getresponse()
                    content = answer.read()
                    return "" if answer.status == 200 else f"{answer.status} {content[:200]!r}"
                except (OSError, http.client.HTTPException) as error:
                    return repr(error)

            return once, connection.close

        nobody_notices(gateways[0], ask)


def test_clients_of_grpc_do_not_notice(models: Path, gateway: Start) -> None:
    gateways = two(models, gateway, drain_delay="1s")
    request = pb.ModelInferRequest(model_name="identity")
    request.inputs.add(name="input-0", datatype="FP32", shape=[1, 1]).contents.fp32_contents.append(7)
    message = request.SerializeToString()
    addresses = ",".join(each.grpc_url for each in gateways)
    options = [
        (
            "grpc.service_config",
            '{"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": ""}}',
        )
    ]

    def ask() -> Asking:
        channel = grpc.insecure_channel(f"ipv4:{addresses}", options=options)
        infer = channel.unary_unary(f"{SERVICE}/ModelInfer")

        def once() -> str:
            try:
                infer(message, timeout=30)
                return ""
            except grpc.RpcError as error:
                return f"{error.code()} {error.details()}"

        return once, channel.close

    nobody_notices(gateways[0], ask)


def test_open_connections_are_served_to_the_end_and_told_to_close(models: Path, gateway: Start) -> None:
    (running, _) = two(models, gateway)
    place = running.url.removeprefix("http://")
    open_ones = [http.client.HTTPConnection(place, timeout=30) for _ in range(8)]
    for connection in open_ones:
        connection.request("GET", "/v2/health/ready")
        assert connection.getresponse().read() == b'{"ready":true,"live":true}'
    answers: list[int] = []
    work = long_request(running, answers)
    ending = threading.Thread(target=running.signal, args=(signal.SIGTERM,))
    ending.start()
    running.wait_log("stopping: requests in flight have 30 s to end")
    until(lambda: not _listens(int(place.rpartition(":")[2])), 10)
    probe, *others = open_ones
    probe.request("GET", "/v2/health/ready")
    answer = probe.getresponse()
    assert (answer.status, answer.headers["Connection"]) == (503, "close")
    for connection in others:
        connection.request("POST", "/v2/models/identity/infer", BODY, JSON)
        answer = connection.getresponse()
        assert (answer.status, answer.headers["Connection"]) == (200, "close")
        assert b'"data":[7.0]' in answer.read()
    work.join()
    ending.join()
    assert answers == [200]
