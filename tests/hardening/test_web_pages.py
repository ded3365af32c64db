"""A real Chromium on pages of others: whatever they try, no control route answers with anything but 403."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import pytest

from support.gateway_process import Gateway

HERE = Path(__file__).parent
MODULES = HERE.parents[1] / ".venvs" / "hardening"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("auth", ["off", "token"])
def test_a_page_of_another_origin_changes_nothing(
    gateway: Callable[..., Gateway], models: Path, tmp_path: Path, auth: str
) -> None:
    config = {"server": {"admin_auth": auth}, "models": [{"name": "iris", "uri": str(models / "iris")}]}
    running = gateway(config)
    running.wait_ready()
    before = running.get("/status").json()["models"][0]["replicas"]
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert chromium, "make test-hardening installs it"
    shutil.copy(HERE / "page.mjs", tmp_path)  # node looks for modules beside the script
    (tmp_path / "node_modules").symlink_to(MODULES / "node_modules")
    with HTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as elsewhere:
        command = ["node", "page.mjs", chromium, running.url, f"http://127.0.0.1:{elsewhere.server_port}"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for kind in ("cross", "rebound"):
        statuses = Counter(status for method, _, status in found[kind] if method != "OPTIONS")
        # 405 is a preflight's end: the request itself was never sent
        assert set(statuses) == {403}, found[kind]
        assert statuses[403] >= 20, found[kind]
        assert {path for _, path, _ in found[kind]} >= {"/status", "/v2/repository/models/iris/load", "/admin/reload"}
        assert {status for method, _, status in found[kind] if method == "OPTIONS"} <= {405}
    assert found["own"] == ([200, 200] if auth == "off" else [401, 401])
    after = running.get("/status").json()["models"][0]["replicas"]
    if auth == "token":
        assert [each["pid"] for each in after] == [each["pid"] for each in before]
    assert running.get("/v2/models/iris/ready").status == 200
