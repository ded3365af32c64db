"""The tracking server's credentials go to the tracking server alone: asked of a real fetcher and real HTTP servers."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from modelhub.serving.gateway.artifacts.fetcher import Fetcher
from modelhub.serving.protocol.errors import ServingError
from modelhub.serving.workers.fetch.credentials import may_have_credentials, origin_of

ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts/model"


class Server:
    """Knows nothing; keeps the Authorization of whoever asks."""

    def __init__(self, stack: ExitStack) -> None:
        self.given: list[str | None] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.given.append(self.headers["Authorization"])
                self.send_response(404)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_POST = do_GET

            def log_message(self, *_: object) -> None:
                pass

        http = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        stack.callback(thread.join)
        stack.callback(http.shutdown)
        self.place = f"127.0.0.1:{http.server_port}"
        self.url = f"http://{self.place}"


@pytest.fixture
def servers() -> Iterator[tuple[Server, Server]]:
    with ExitStack() as stack:
        yield Server(stack), Server(stack)


@pytest.mark.parametrize("login", [{"PASSWORD": "the password", "USERNAME": "somebody"}, {"TOKEN": "the token"}])
async def test_another_host_that_serves_artifacts_is_sent_none(
    servers: tuple[Server, Server], login: dict[str, str]
) -> None:
    tracking, other = servers
    known = {f"MLFLOW_TRACKING_{name}": value for name, value in login.items()}
    environment = {**os.environ, "MLFLOW_TRACKING_URI": tracking.url, **known}
    fetcher = Fetcher(lambda line: None, environment=environment)
    try:
        for uri in (f"{other.url}{ARTIFACTS}", f"mlflow-artifacts://{other.place}/model"):
            with pytest.raises(ServingError):
                await fetcher.resolve(uri)
        for uri in (f"{tracking.url}{ARTIFACTS}", "mlflow-artifacts:/model", "models:/name/1"):
            with pytest.raises(ServingError):
                await fetcher.resolve(uri)
    finally:
        await fetcher.close()
    assert other.given
    assert set(other.given) == {None}
    assert len(set(tracking.given)) == 1
    assert (tracking.given[0] or "").startswith(("Basic ", "Bearer "))


@pytest.mark.parametrize(
    ("store", "may"),
    [
        ("https://mlflow.example/api/2.0/mlflow-artifacts/artifacts/m", True),
        ("https://MLflow.Example.:443/anything", True),
        ("https://user:pw@mlflow.example/m", True),
        ("http://mlflow.example/m", False),  # in clear
        ("https://mlflow.example:8443/m", False),
        ("https://mlflow.example.evil.example/m", False),
        ("https://mlflow.example@evil.example/m", False),
        ("https://evil.example\\@mlflow.example/m", False),
        ("https://evil.example/https://mlflow.example/", False),
        ("https://mlflow.example:port/m", False),
        ("ftp://mlflow.example/m", False),
        ("databricks", False),
        ("", False),
    ],
)
def test_the_same_server_is_its_scheme_host_and_port(store: str, may: bool) -> None:
    assert may_have_credentials(store, ["https://mlflow.example/path", ""]) is may


def test_a_server_that_is_none_of_http_has_no_origin() -> None:
    assert [origin_of(uri) for uri in ("sqlite:///a.db", "./mlruns", "http://", "http://[::1")] == [None] * 4
    assert not may_have_credentials("file:///x", ["file:///x"])
