"""The gateway's private directory: what killed gateways have left goes with the next start, what is in use stays."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from modelhub.serving.gateway.system.runtime_dir import RuntimeDir
from modelhub.serving.workers.start import priming

MAKE = """
import sys
from modelhub.serving.gateway.system.runtime_dir import RuntimeDir
kept = RuntimeDir()
print(kept.path, flush=True)
sys.stdin.read()
"""


def test_what_a_killed_gateway_has_left_goes_with_the_next_start(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tmp_path_factory.mktemp("run")  # a short path, as sockets need it
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(base))
    with started() as killed, started() as living:
        places = [Path(each.stdout.readline().strip()) for each in (killed, living) if each.stdout is not None]
        (places[0] / "work").mkdir()
        (places[0] / "work" / "file").touch()
        (base / "modelhub-mine").mkdir()
        (base / "modelhub-run-link").symlink_to(base / "modelhub-mine")
        others = {base / "modelhub-mine", base / "modelhub-run-link"}
        killed.kill()
        killed.wait()
        kept = RuntimeDir()
        own = kept.path
        assert set(base.iterdir()) == {places[1], own, *others}
        assert own.stat().st_mode & 0o777 == 0o700
    assert places[1].is_dir(), "it has ended without removing it"
    RuntimeDir().remove()
    assert set(base.iterdir()) == {own, *others}


def started() -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", MAKE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_a_fork_server_primes_in_its_own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is the gateway's: killed meanwhile, it leaves nothing behind."""
    seen: list[str] = []

    def make(path: str) -> None:
        seen.append(path)
        raise RuntimeError("no model")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(priming._MAKERS, "sys", make)
    assert priming.prime(["sys"]) == ["priming sys: RuntimeError: no model"]
    assert Path(seen[0]).parent.parent == tmp_path
