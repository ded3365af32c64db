"""What `modelhub reload` makes of a gateway's answers, and of those of something else."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, ClassVar

import pytest

from modelhub.serving.gateway.cli.client import Address, reload
from modelhub.serving.gateway.cli.main import main
from modelhub.serving.protocol.errors import ConfigError, ServingError
from support.http_server import serving


class _Gateway(BaseHTTPRequestHandler):
    answers: ClassVar[dict[str, tuple[int, bytes]]] = {
        "/admin/reload": (200, b'{"changes": "1 added"}'),
        "/invalid/admin/reload": (400, b'{"error": "models.yaml, line 3: urn"}'),
        "/strict/admin/reload": (401, b'{"error": "this needs the token"}'),
        "/barred/admin/reload": (403, b'{"error": "no name of mine"}'),
        "/away/admin/reload": (302, b""),
        "/busy/admin/reload": (503, b'{"error": "stopping"}'),
        "/closed/admin/reload": (501, b'{"error": "not open on this port"}'),
        "/page/admin/reload": (404, b"<html>"),
        "/text/admin/reload": (200, b"hello"),
        "/other/admin/reload": (200, b'["changes"]'),
    }

    #: The Authorization of each request.
    given: ClassVar[list[str | None]] = []

    def do_POST(self) -> None:
        status, body = self.answers[self.path]
        self.given.append(self.headers["Authorization"])
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Quiet."""


@pytest.fixture
def url() -> Iterator[str]:
    with serving(_Gateway) as address:
        yield address


def test_what_has_changed(url: str) -> None:
    for address in (url, f"{url}/", f"{url}/admin/reload", url.removeprefix("http://")):
        assert reload(Address(address)) == "1 added"


@pytest.mark.parametrize(
    ("path", "kind", "says"),
    [
        ("/invalid", ConfigError, "nothing was changed: models.yaml, line 3: urn$"),
        ("/strict", ServingError, "answered 401: this needs the token; set MODELHUB_ADMIN_TOKEN to what"),
        ("/barred", ServingError, "answered 403: no name of mine$"),
        ("/away", ServingError, "answered 302"),
        ("/busy", ServingError, "/busy/admin/reload answered 503: stopping$"),
        ("/closed", ServingError, r"answered 501: not open on this port; reloading is open on the admin address"),
        ("/page", ServingError, "answered 404: Not Found; reloading is open"),
        ("/text", ServingError, "/text/admin/reload did not answer as a gateway does"),
        ("/other", ServingError, "did not answer as a gateway does$"),
    ],
)
def test_answers_that_change_nothing(url: str, path: str, kind: type[ServingError], says: str) -> None:
    with pytest.raises(kind, match=says):
        reload(Address(url + path))


def test_nobody_there() -> None:
    with pytest.raises(ServingError, match=r"127.0.0.1:1/admin/reload does not answer .*; is the gateway running"):
        reload(Address("127.0.0.1:1"))
    with pytest.raises(ServingError, match="file:///etc is no http address"):
        reload(Address("file:///etc"))


def test_a_token_goes_to_its_own_gateway_alone(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _Gateway.given.clear()
    monkeypatch.delenv("MODELHUB_ADMIN_TOKEN", raising=False)
    token_file = tmp_path / "gateways" / "1@here.token"
    token_file.parent.mkdir()
    token_file.write_text("the token\n")
    note = {"pid": os.getpid(), "url": "http://127.0.0.1:1", "admin_url": url, "token_file": str(token_file)}
    (tmp_path / "gateways" / "1@here.json").write_text(json.dumps({**note, "started": 1.0}))
    here = f"--server.state_dir={tmp_path}"
    for arguments in ((), (url,), (url.replace("127.0.0.1", "localhost") + "/",)):
        assert main(["reload", *arguments, here]) == 0
    assert _Gateway.given == ["Bearer the token"] * 3
    other = url.replace("127.0.0.1", "127.0.0.2")  # perhaps another gateway
    main(["reload", other, here])
    token_file.chmod(0)
    token_file.unlink()
    assert main(["reload", here]) == 0
    assert _Gateway.given[-1] is None
    monkeypatch.setenv("MODELHUB_ADMIN_TOKEN", "given")
    assert main(["reload", url, here]) == 0
    assert _Gateway.given[-1] == "Bearer given"
    assert _Gateway.given.count("Bearer the token") == 3
    capsys.readouterr()
