"""A small real HTTP server that plays ModelHub's API: tokens that end, the tracking URI, MLflow credentials."""

from __future__ import annotations

import base64
import json
import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

CLIENT, SECRET, COPILOT = "client-1", "s3cr3t/of+client", "copilot 7"
USERNAME, PASSWORD = "tracking-user", "tracking-passw0rd"


def jwt(life: float, number: int) -> str:
    """An unsigned token that is good for `life` seconds from now."""
    now = time.time()

    def part(claims: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()

    return f"{part({'alg': 'none'})}.{part({'iat': now, 'exp': now + life, 'n': number})}.signature"


def environment(base_url: str, **changes: str | None) -> dict[str, str]:
    """The variables that a user sets, with changes; None leaves one out."""
    variables: dict[str, str | None] = {
        "MODELHUB_BASE_URL": base_url,
        "MODELHUB_CLIENT_ID": CLIENT,
        "MODELHUB_CLIENT_SECRET": SECRET,
        "COPILOT_ID": COPILOT,
    }
    variables.update(changes)
    return {name: value for name, value in variables.items() if value is not None}


def unused_address() -> str:
    """An address of this machine where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


class ModelHubServer:
    """On a free port of 127.0.0.1; `answers` replaces an answer by path's end; `asked` lists what was asked."""

    def __init__(self, tracking_uri: str = "http://127.0.0.1:5000") -> None:
        self.tracking_uri = tracking_uri
        self.life = 3600.0
        self.token_answer: Callable[[str], dict[str, Any]] = lambda token: {"id_token": token}
        self.answers: dict[str, tuple[int, bytes, dict[str, str]]] = {}
        self.asked: list[str] = []
        self.tokens: list[str] = []
        self.accepted: str | None = None
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                self._reply(*server._post(self.path, {key: value[0] for key, value in parse_qs(body).items()}))

            def do_GET(self) -> None:
                self._reply(*server._get(self.path, self.headers.get("Authorization", "")))

            def _reply(self, status: int, body: bytes, headers: dict[str, str]) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}"

    def environment(self, **changes: str | None) -> dict[str, str]:
        return environment(self.url, **changes)

    def revoke(self) -> None:
        """No token given out so far is accepted any more."""
        self.accepted = None

    def _post(self, path: str, form: dict[str, str]) -> tuple[int, bytes, dict[str, str]]:
        self.asked.append("token")
        if "token" in self.answers:
            return self.answers["token"]
        wanted = {
            "grant_type": "client_credentials",
            "client_id": CLIENT,
            "client_secret": SECRET,
            "scope": "openid",
        }
        if path != "/ums/api/v1/auth/get-token" or form != wanted:
            return 401, f"no: {form}".encode(), {}
        self.accepted = jwt(self.life, len(self.tokens))
        self.tokens.append(self.accepted)
        return 200, json.dumps(self.token_answer(self.accepted)).encode(), {}

    def _get(self, path: str, authorization: str) -> tuple[int, bytes, dict[str, str]]:
        root, _, what = path.rpartition("/")
        self.asked.append(what)
        if what in self.answers:
            return self.answers[what]
        if self.accepted is None or authorization != f"Bearer {self.accepted}":
            return 401, f"no: {authorization}".encode(), {}
        if root != "/modelhub/api/v1/client/client-1/copilot/copilot%207/mlflow":
            return 404, b"", {}
        if what == "tracking_uri":
            return 200, json.dumps({"tracking_uri": self.tracking_uri}).encode(), {}
        return 200, json.dumps({"username": USERNAME, "password": PASSWORD}).encode(), {}

    def __enter__(self) -> ModelHubServer:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
