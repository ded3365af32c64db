"""A model's URI may hold credentials: nobody is shown them, by no door, and no file of the state directory has them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from support.gateway_process import MODELHUB, Gateway
from support.slow_source import SlowSource

SECRETS = ("s3cret-user", "s3cret-password", "s3cret-token", "s3cret-signature")


def told(text: str) -> list[str]:
    return [secret for secret in SECRETS if secret in text]


def test_credentials_of_a_uri_are_shown_to_nobody(
    gateway: Callable[..., Gateway], models: Path, tmp_path: Path
) -> None:
    with SlowSource(models / "identity") as source:
        source.go_on()
        address = source.uri.removeprefix("http://")
        uris = {
            "served": f"http://s3cret-user:s3cret-password@{address}",
            "away": f"http://s3cret-user:s3cret-password@127.0.0.1:1/{address.partition('/')[2]}",
            "signed": "https://127.0.0.1:1/m?sv=1&sig=s3cret-signature&access_token=s3cret-token",
            "other": "s3://s3cret-user:s3cret-password@bucket/m",
        }
        entries = [{"name": name, "uri": uri} for name, uri in uris.items()]
        running = gateway({"models": entries}, env={"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"})
        running.wait_ready("served")
        for name in ("away", "signed", "other"):
            running.wait_log(f"{name}/1 FAILED")
        shown = {model["name"]: model["uri"] for model in running.get("/status").json()["models"]}
        resolved = subprocess.run(
            [str(MODELHUB), "check", "--resolve", str(running.config)], capture_output=True, text=True, check=False
        )
        doors = [
            resolved.stdout + resolved.stderr,
            subprocess.run(
                [str(MODELHUB), "status", "--json", f"--server.state_dir={running.state_dir}"],
                capture_output=True,
                text=True,
                check=True,
            ).stdout,
            *(running.get(path).body.decode() for path in ("/status", "/metrics", "/v2/health/ready", "/v2/models")),
            running.post("/v2/repository/index").body.decode(),
        ]
        for name in uris:
            doors += [running.get(f"/v2/models/{name}{path}").body.decode() for path in ("", "/ready", "/config")]
            doors.append(running.post(f"/v2/models/{name}/infer", {"inputs": []}).body.decode())
        running.post("/v2/repository/models/served/unload")
        doors.append(running.post("/v2/repository/models/away/load", timeout=60).body.decode())
        running.stop()
    doors.append(running.log())
    assert shown["served"] == f"http://***@{address}"
    assert shown["signed"] == "https://127.0.0.1:1/m?sv=1&sig=***&access_token=***"
    assert resolved.stdout.count("***") > 4
    assert [found for door in doors if (found := told(door))] == []
    for file in running.state_dir.rglob("*"):
        if file.is_file():
            assert told(file.read_bytes().decode(errors="replace")) == [], file


@pytest.mark.parametrize(
    "entry",
    [
        'name: a, uri: ["http://x:s3cret-password@h/x"]',
        'name: "http://x:s3cret-password@h/x", uri: m',
        'name: a, "http://x:s3cret-password@h/x": 1',
        'name: a, uri: m, version: "http://h/x?token=s3cret-token&a=1"',
    ],
)
def test_what_is_wrong_with_a_configuration_is_said_without_credentials(entry: str, tmp_path: Path) -> None:
    file = tmp_path / "models.yaml"
    file.write_text(f"models: [{{{entry}}}]\n")
    checked = subprocess.run([str(MODELHUB), "check", str(file)], capture_output=True, text=True, check=False)
    assert checked.returncode == 2
    assert "***" in checked.stderr
    assert told(checked.stdout + checked.stderr) == []
