"""A real nginx before a gateway on loopback: what it lets through comes from loopback, and is not trusted for that."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.gateway_process import Gateway
from support.processes import guarded

CONFIG = """
daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
  access_log off; client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
  uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
  server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass {url}; {more} }} }}
}}
"""
LOAD = "/v2/repository/models/iris/load"


def lazy(models: Path) -> dict[str, Any]:
    """A configuration of which nothing is loaded."""
    return {"groups": [{"name": "g", "load": "lazy", "models": [{"name": "iris", "uri": str(models / "iris")}]}]}


@contextmanager
def nginx(folder: Path, url: str, more: str) -> Iterator[str]:
    """Its URL, once it listens."""
    binary = shutil.which("nginx") or "/usr/sbin/nginx"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (folder / "nginx.conf").write_text(CONFIG.format(folder=folder, port=port, url=url, more=more))
    process = subprocess.Popen(guarded([binary, "-p", str(folder), "-c", str(folder / "nginx.conf")]))
    try:
        while process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
        assert process.poll() is None, (folder / "error.log").read_text()
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


@pytest.mark.parametrize("more", ["", "proxy_set_header Host models.example.com;"])
def test_what_a_proxy_lets_through_needs_the_token(
    gateway: Callable[..., Gateway], models: Path, tmp_path: Path, more: str
) -> None:
    entry = {"name": "iris", "uri": str(models / "iris")}
    running = gateway({"models": [entry]})
    running.wait_ready()
    nobody = {"Authorization": ""}
    with nginx(tmp_path, running.url, more) as front:
        assert running.get(f"{front}/v2/models/iris").status == 200
        refused = 403 if more else 401
        for method, path in (("POST", LOAD), ("POST", "/admin/reload"), ("GET", "/status")):
            assert running.request(method, front + path, None, nobody).status == refused
            assert running.request(method, front + path, None, {"Origin": "http://evil.example"}).status == 403
            known = running.request(method, front + path, None)
            assert known.status == (403 if more else 200), known
        assert running.get(f"{front}/v2/models/iris/ready").status == 200


def test_by_default_a_proxy_leads_to_no_control_route(
    gateway: Callable[..., Gateway], models: Path, tmp_path: Path
) -> None:
    running = gateway({**lazy(models), "server": {"admin": None, "admin_auth": "off"}})
    with nginx(tmp_path, running.url, "") as front:
        assert running.post(front + LOAD).status == 501
        assert running.post(f"{front}/admin/reload").status == 501
        assert running.get(f"{front}/status").status == 404


def test_the_name_that_a_proxy_passes_on_can_be_given(
    gateway: Callable[..., Gateway], models: Path, tmp_path: Path
) -> None:
    running = gateway({**lazy(models), "server": {"admin_hosts": ["models.example.com"]}})
    with nginx(tmp_path, running.url, "proxy_set_header Host models.example.com;") as front:
        assert running.post(f"{front}/admin/reload").status == 200
        assert running.post(f"{front}/admin/reload", b"", {"Authorization": ""}).status == 401
