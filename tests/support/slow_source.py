"""A small real HTTP server that plays MLflow's artifact store, and stops in the middle of the largest file."""

from __future__ import annotations

import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

_API = "/mlflow-artifacts/artifacts"


class SlowSource:
    """Serves the model in `folder` as `uri`; half of its largest file is sent at once, the rest after `go_on()`.

    With `tls` over HTTPS, and all of it at once.
    """

    def __init__(self, folder: Path, tls: ssl.SSLContext | None = None) -> None:
        self._folder = folder
        self._largest = max(
            (file for file in folder.rglob("*") if file.is_file()), key=lambda file: file.stat().st_size
        )
        self._go_on = threading.Event()
        source = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked = urlsplit(self.path)
                if asked.path == _API:
                    listed = source._listed(parse_qs(asked.query)["path"][0].removeprefix("model").lstrip("/"))
                    self._begin(len(listed))
                    self.wfile.write(listed)
                    return
                file = folder / asked.path.removeprefix(f"{_API}/model/")
                content = file.read_bytes()
                self._begin(len(content))
                if file == source._largest:
                    half = len(content) // 2
                    self.wfile.write(content[:half])
                    source._go_on.wait()
                    content = content[half:]
                self.wfile.write(content)

            def _begin(self, length: int) -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(length))
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._scheme = "http" if tls is None else "https"
        if tls is not None:
            self._http.socket = tls.wrap_socket(self._http.socket, server_side=True)
            self.go_on()
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02})

    @property
    def uri(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self._http.server_port}{_API}/model"

    def go_on(self) -> None:
        self._go_on.set()

    def _listed(self, path: str) -> bytes:
        """The answer that lists a folder; nothing is listed below a file."""
        folder = self._folder / path
        files = [
            {"path": each.name, "is_dir": each.is_dir(), "file_size": each.stat().st_size}
            for each in (folder.iterdir() if folder.is_dir() else ())
        ]
        return json.dumps({"files": files}).encode()

    def __enter__(self) -> SlowSource:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._go_on.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
