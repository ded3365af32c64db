"""What `modelhub reload` makes of a gateway's answers, and of those of something else."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest

from modelhub.serving.gateway.cli.client import reload
from modelhub.serving.protocol.errors import ConfigError, ServingError


class _Gateway(BaseHTTPRequestHandler):
    answers: ClassVar[dict[str, tuple[int, bytes]]] = {
        "/admin/reload": (200, b'{"changes": "1 added"}'),
        "/invalid/admin/reload": (400, b'{"error": "models.yaml, line 3: urn"}'),
        "/busy/admin/reload": (503, b'{"error": "stopping"}'),
        "/closed/admin/reload": (501, b'{"error": "not open on this port"}'),
        "/page/admin/reload": (404, b"<html>"),
        "/text/admin/reload": (200, b"hello"),
        "/other/admin/reload": (200, b'["changes"]'),
    }

    def do_POST(self) -> None:
        status, body = self.answers[self.path]
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Quiet."""


@pytest.fixture
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Gateway) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_what_has_changed(url: str) -> None:
    for address in (url, f"{url}/", f"{url}/admin/reload", url.removeprefix("http://")):
        assert reload(address) == "1 added"


@pytest.mark.parametrize(
    ("path", "kind", "says"),
    [
        ("/invalid", ConfigError, "nothing was changed: models.yaml, line 3: urn$"),
        ("/busy", ServingError, "/busy/admin/reload answered 503: stopping$"),
        ("/closed", ServingError, r"answered 501: not open on this port; reloading is open on the admin address"),
        ("/page", ServingError, "answered 404: Not Found; reloading is open"),
        ("/text", ServingError, "/text/admin/reload did not answer as a gateway does"),
        ("/other", ServingError, "did not answer as a gateway does$"),
    ],
)
def test_answers_that_change_nothing(url: str, path: str, kind: type[ServingError], says: str) -> None:
    with pytest.raises(kind, match=says):
        reload(url + path)


def test_nobody_there() -> None:
    with pytest.raises(ServingError, match=r"127.0.0.1:1/admin/reload does not answer .*; is the gateway running"):
        reload("127.0.0.1:1")
    with pytest.raises(ServingError, match="file:///etc is no http address"):
        reload("file:///etc")
