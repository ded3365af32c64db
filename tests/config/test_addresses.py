"""Where to listen, as people write it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from modelhub.serving.config.fields import FromShell
from modelhub.serving.config.load import load
from modelhub.serving.config.server import ServerSettings


@pytest.mark.parametrize(
    ("written", "host"),
    [
        ("[::1]", "::1"),
        ("0:0::0", "::"),
        ("::", "::"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        (" 127.0.0.1 ", "127.0.0.1"),
        ("gateway.example", "gateway.example"),
        ("unix:/run/m.sock", "unix:/run/m.sock"),
        ("unix:///run/m.sock", "unix:/run/m.sock"),
    ],
)
def test_addresses_have_one_form(written: str, host: str) -> None:
    assert ServerSettings(host=written).host == host


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"host": "http://0.0.0.0"}, "is no address to listen on"),
        ({"host": "0.0.0.0:80"}, "is no address to listen on"),
        ({"host": ""}, "is no address to listen on"),
        ({"host": "unix:"}, "names no path"),
        ({"host": "unix:@abstract"}, "names no path"),
        ({"host": f"unix:/{'x' * 107}"}, "107 bytes at most"),
        ({"host": "unix:/s", "grpc_port": 9000}, "give gRPC a Unix socket too"),
        ({"grpc_port": 70000}, "neither a port"),
        ({"grpc_port": True}, "neither a port"),
        ({"grpc_port": "/run/s"}, "neither a port"),
        ({"socket_mode": "rw"}, "three octal digits"),
        ({"socket_mode": 888}, "three octal digits"),
    ],
)
def test_what_is_no_place_to_listen_on(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        ServerSettings(**given)


def test_modes_are_octal_however_they_are_written(tmp_path: Path) -> None:
    for written in ("660", '"0660"', "0660", "0o660"):
        file = tmp_path / "models.yaml"
        file.write_text(f"server: {{host: 'unix:run/m.sock', socket_mode: {written}}}\nmodels: [{{name: a, uri: .}}]\n")
        server = load(str(file), flags={}).server
        assert server.socket_mode == "660"
        assert server.host == f"unix:{tmp_path}/run/m.sock"
    assert ServerSettings(socket_mode=FromShell("600")).socket_mode == "600"
