"""Where a gateway listens: addresses of both kinds, Unix sockets; and that it is found there by who should find it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
import pytest

from support.gateway_process import MODELHUB, Gateway

Start = Callable[..., Gateway]
HEALTHY = Path(__file__).parents[2] / "deploy/healthy"

needs_ipv6 = pytest.mark.skipif(not Path("/proc/net/if_inet6").exists(), reason="no IPv6 here")


def config_of(models: Path, **server: Any) -> dict[str, Any]:
    entries = [{"name": name, "uri": str(models / name)} for name in ("identity", "iris")]
    return {"server": server, "models": entries}


def status_of(running: Gateway, *arguments: str) -> str:
    """What `modelhub status` prints."""
    command = [str(MODELHUB), "status", f"--server.state_dir={running.state_dir}", *arguments]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    return said.stdout


def is_healthy(running: Gateway) -> bool:
    """By the probe of the image."""
    environ = {**os.environ, "MODELHUB_SERVER_STATE_DIR": str(running.state_dir)}
    return subprocess.run([HEALTHY], env=environ, check=False).returncode == 0


def answers_grpc(address: str) -> bool:
    with grpc.insecure_channel(address) as channel:
        grpc.channel_ready_future(channel).result(timeout=10)
    return True


@needs_ipv6
def test_every_address_is_every_address_of_both_kinds(gateway: Start, models: Path) -> None:
    running = gateway(config_of(models, host="::", grpc_port=0))
    running.wait_ready()
    port, grpc_port = urlsplit(running.url).port, running.grpc_url.rpartition(":")[2]
    for host in ("127.0.0.1", "[::1]", "localhost"):
        assert running.get(f"http://{host}:{port}/v2/health/live").status == 200
        assert running.get(f"http://{host}:{port}/status").status == 200
        assert answers_grpc(f"{host}:{grpc_port}")
    assert "READY" in status_of(running)
    assert "READY" in status_of(running, f"[::1]:{port}")
    assert is_healthy(running)
    assert f"try it: curl -s {running.url}/v2/models/iris/infer" in running.log()


@needs_ipv6
@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_an_address_of_the_newer_kind_stands_in_brackets_where_it_is_told(
    gateway: Start, models: Path, host: str
) -> None:
    running = gateway(config_of(models, host=host, grpc_port=0))
    assert running.url.startswith("http://[::1]:")
    assert running.grpc_url.startswith("[::1]:")
    assert running.get("/status").status == 200
    assert answers_grpc(running.grpc_url)
    assert status_of(running).split()[1:3] == ["READY", running.url] or running.url in status_of(running)
    assert is_healthy(running)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", urlsplit(running.url).port or 0))


def test_a_name_with_several_addresses_has_one_port(gateway: Start, models: Path) -> None:
    running = gateway(config_of(models, host="localhost"))
    port = urlsplit(running.url).port
    found = {str(address[0]) for *_, address in socket.getaddrinfo("localhost", port, type=socket.SOCK_STREAM)}
    here = [host for host in found if ":" not in host or Path("/proc/net/if_inet6").exists()]
    assert here
    for host in here:
        assert running.get(f"http://{f'[{host}]' if ':' in host else host}:{port}/v2/health/live").status == 200


# ---- Unix sockets ----------------------------------------------------------------------------------


def test_a_unix_socket_is_a_place_like_any_other(gateway: Start, models: Path, tmp_path: Path) -> None:
    path, more = tmp_path / "http.sock", tmp_path / "grpc.sock"
    running = gateway(config_of(models, host=f"unix:{path}", grpc_port=f"unix:{more}", socket_mode="660"))
    running.wait_ready()
    assert (running.url, running.grpc_url) == (f"unix:{path}", f"unix:{more}")
    assert [each.stat().st_mode & 0o777 for each in (path, more)] == [0o660, 0o660]
    row = {"name": "input-0", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}
    assert running.infer("identity", [row]).json()["outputs"][0]["data"] == [1, 2]
    assert running.get("/status").status == 200
    assert running.get("/status", {"Authorization": "Bearer no"}).status == 401
    assert answers_grpc(running.grpc_url)
    assert "READY" in status_of(running)
    assert "READY" in status_of(running, f"unix:{path}")
    assert is_healthy(running)
    assert f"--unix-socket {path} http://localhost/v2/models/iris/infer" in running.log()
    assert "is open to the network" not in running.log()
    running.stop()
    assert not path.exists()
    assert not more.exists()


def test_a_socket_that_nobody_listens_on_is_replaced_and_one_that_is_used_is_not(
    gateway: Start, models: Path, tmp_path: Path
) -> None:
    path = tmp_path / "http.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    running = gateway(config_of(models, host=f"unix:{path}"))
    assert running.get("/v2/health/live").status == 200
    assert path.stat().st_mode & 0o777 == 0o600
    command = [str(MODELHUB), "serve", str(models / "identity"), f"--server.host=unix:{path}"]
    second = subprocess.run(
        [*command, f"--server.state_dir={tmp_path / 's'}"], capture_output=True, text=True, check=False
    )
    assert second.returncode == 2
    assert f"cannot listen on unix:{path}: Address already in use" in second.stderr
    assert running.get("/v2/health/live").status == 200


def test_a_file_that_is_no_socket_is_left_alone(models: Path, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("mine")
    command = [str(MODELHUB), "serve", str(models / "identity"), f"--server.host=unix:{path}"]
    said = subprocess.run(
        [*command, f"--server.state_dir={tmp_path / 's'}"], capture_output=True, text=True, check=False
    )
    assert said.returncode == 2
    assert "no socket" in said.stderr
    assert path.read_text() == "mine"


def test_the_end_of_a_gateway_leaves_the_socket_of_its_successor(gateway: Start, models: Path, tmp_path: Path) -> None:
    path = tmp_path / "http.sock"
    first = gateway(config_of(models, host=f"unix:{path}"))
    path.unlink()
    second = gateway(config_of(models, host=f"unix:{path}"))
    first.stop()
    assert second.get("/v2/health/live").status == 200


def test_the_note_is_of_no_other_place(gateway: Start, models: Path, tmp_path: Path) -> None:
    running = gateway(config_of(models, host=f"unix:{tmp_path / 's'}", admin="off"))
    (note,) = (running.state_dir / "gateways").glob("*.json")
    assert json.loads(note.read_text())["admin_url"] == ""
