"""The units of deploy/systemd, as systemd itself reads them, and what they set as the gateway knows it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from modelhub.serving.config.server import ServerSettings

UNITS = Path(__file__).parents[2] / "deploy/systemd"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_systemd_understands_them(tmp_path: Path) -> None:
    for unit in UNITS.iterdir():
        text = unit.read_text().replace("/opt/modelhub/bin/modelhub", "/bin/true")
        (tmp_path / unit.name).write_text(text)
    checked = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *(tmp_path / unit.name for unit in UNITS.iterdir())],
        capture_output=True,
        text=True,
        check=False,
    )
    assert [line for line in (checked.stdout + checked.stderr).splitlines() if "modelhub" in line] == []


def test_a_drain_has_its_time() -> None:
    stop = next(line for line in (UNITS / "modelhub.service").read_text().splitlines() if "TimeoutStopSec=" in line)
    server = ServerSettings()
    assert int(stop.partition("=")[2]) > server.drain_delay + server.shutdown_grace
