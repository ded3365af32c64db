"""Small parts for tests of environments: wheels made by hand, model directories, stand-ins for uv, an index.

The wheels of `WHEELS` let an environment be built in tenths of a second and without a network.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import ssl
import sys
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import uv

from modelhub.serving.gateway.environments.uv import Uv

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
KIT = ("msgpack", "orjson", "pillow", "pdf2image", "pypdfium2")


def make_wheel(folder: Path, name: str, version: str, modules: Mapping[str, str], requires: Sequence[str] = ()) -> Path:
    """A pure-Python wheel with these modules ({"mlflow/__init__.py": "source"})."""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    needs = "".join(f"Requires-Dist: {line}\n" for line in requires)
    files = dict(modules)
    files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}"
    files[f"{info}/WHEEL"] = "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    record = ""
    for file, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record += f"{file},sha256={digest},{len(text.encode())}\n"
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n"
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)
    return path


def make_wheelhouse(folder: Path) -> Path:
    """A folder of wheels: a small MLflow 9.0, a rotten 8.0 that needs pkg_resources, `tiny`, and a stand-in kit."""
    folder.mkdir()
    make_wheel(folder, "mlflow", "9.0", {"mlflow/__init__.py": "__version__ = '9.0'\n", "mlflow/pyfunc.py": ""})
    make_wheel(folder, "mlflow", "8.0", {"mlflow/__init__.py": "import pkg_resources\n", "mlflow/pyfunc.py": ""})
    make_wheel(folder, "mlflow", "7.0", {"mlflow/__init__.py": "import of_the_past\n", "mlflow/pyfunc.py": ""})
    make_wheel(folder, "setuptools", "80.0", {"pkg_resources.py": "", "setuptools/__init__.py": ""})
    make_wheel(folder, "setuptools", "84.0", {"setuptools/__init__.py": ""})
    for version in ("1.0.0", "1.0.1", "2.0.0"):
        make_wheel(folder, "tiny", version, {"tiny.py": f"VERSION = '{version}'\n"})
    for name in KIT:
        make_wheel(folder, name, "99.0", {f"{name}.py": ""})
    return folder


def offline(wheelhouse: Path, cache: Path) -> dict[str, str]:
    """Environment variables with which uv sees that folder and nothing else."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": os.environ.get("HOME", "/"),
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(wheelhouse),
        "UV_CACHE_DIR": str(cache),
        "UV_LINK_MODE": "copy",
    }


def make_model(folder: Path, requirements: str = "mlflow==9.0\n", *, python: str = PYTHON, **files: str) -> Path:
    """A model directory as MLflow writes it, without a model in it; `files` by their names, with `_` for `.`."""
    folder.mkdir(parents=True)
    (folder / "MLmodel").write_text(
        "flavors:\n  python_function:\n    env: {conda: conda.yaml, virtualenv: python_env.yaml}\n"
        "    loader_module: mlflow.sklearn\n  sklearn: {}\nmlflow_version: 9.0\n"
        "utc_time_created: '2024-02-03 04:05:06.789'\n"
    )
    (folder / "python_env.yaml").write_text(f"python: {python}.1\ndependencies:\n- -r requirements.txt\n")
    (folder / "requirements.txt").write_text(requirements)
    for name, text in files.items():
        (folder / ".".join(name.rsplit("_", 1))).write_text(text)
    return folder


def of_yesterday(folder: Path) -> None:
    """Make the folder and all in it look as if nobody had changed anything today."""
    for path in (folder, *folder.rglob("*")):
        os.utime(path, (time.time() - 86_400,) * 2)


def make_uv(path: Path, script: str) -> Uv:
    """A stand-in for uv: a shell script in which `$UV` is the real one."""
    path.write_text(f"#!/bin/sh\nUV='{uv.find_uv_bin()}'\n{script}\n")
    path.chmod(0o755)
    return Uv(path)


@contextmanager
def index(
    wheels: Sequence[tuple[Path, str]], *, password: str, refusal: int = 401, tls: ssl.SSLContext | None = None
) -> Iterator[str]:
    """A package index with upload times, open to the user `reader`; yields its address without credentials.

    Without a `password` it is open to everybody; with `tls` it speaks HTTPS.
    """
    expected = "Basic " + base64.b64encode(f"reader:{password}".encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            name = self.path.strip("/").rpartition("/")[2]
            if password and self.headers.get("Authorization") != expected:
                self._answer(refusal, b"", "text/plain", ("WWW-Authenticate", "Basic"))
            elif found := [wheel for wheel, _ in wheels if wheel.name == name]:
                self._answer(200, found[0].read_bytes(), "application/octet-stream")
            elif files := [self._file(wheel, time) for wheel, time in wheels if wheel.name.startswith(f"{name}-")]:
                page = {"meta": {"api-version": "1.1"}, "name": name, "files": files, "versions": []}
                self._answer(200, json.dumps(page).encode(), "application/vnd.pypi.simple.v1+json")
            else:
                self._answer(404, b"", "text/plain")

        def _file(self, wheel: Path, time: str) -> dict[str, object]:
            digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
            size = wheel.stat().st_size
            return {
                "filename": wheel.name,
                "url": f"/files/{wheel.name}",
                "hashes": {"sha256": digest},
                "size": size,
                "upload-time": time,
            }

        def _answer(self, status: int, body: bytes, kind: str, *headers: tuple[str, str]) -> None:
            self.send_response(status)
            for header in (("Content-Type", kind), ("Content-Length", str(len(body))), *headers):
                self.send_header(*header)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}/simple"
        finally:
            server.shutdown()
            thread.join()
