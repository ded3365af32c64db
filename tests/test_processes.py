"""The tests' own care for processes: none outlives its parent, and the session's last look sees orphans."""

from __future__ import annotations

import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import psutil
import pytest

from support.processes import descendants, guarded, survivors, until

STARTS_A_SLEEP = "import subprocess; subprocess.Popen(['sleep', '1001'])"


def below(process: subprocess.Popen[bytes], name: str) -> list[psutil.Process]:
    return [each for each in descendants(process.pid) if each.name() == name]


def test_a_guarded_process_ends_with_its_parent() -> None:
    script = f"import subprocess; subprocess.run({guarded(['sleep', '1000'])!r})"
    with subprocess.Popen([sys.executable, "-c", script]) as parent:
        sleeps = until(lambda: below(parent, "sleep"), 10, "sleep runs")
        parent.kill()
    assert not survivors(sleeps, 5)


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL], ids=["guard is asked", "parent is killed"])
def test_a_guarded_group_ends_with_all_that_it_started(end: signal.Signals) -> None:
    command = guarded(["sh", "-c", "sleep 1000 & sleep 1000"], whole_group=True)
    script = f"import subprocess; subprocess.run({command!r})"
    with subprocess.Popen([sys.executable, "-c", script]) as parent:
        sleeps = until(lambda: found if len(found := below(parent, "sleep")) == 2 else None, 10, "both sleeps run")
        if end == signal.SIGTERM:
            psutil.Process(parent.pid).children()[0].send_signal(end)
        else:
            parent.kill()
    assert not survivors(sleeps, 5)


def test_orphans_are_seen() -> None:
    subprocess.run([sys.executable, "-c", STARTS_A_SLEEP], check=True)
    (orphan,) = [each for each in descendants() if each.cmdline() == ["sleep", "1001"]]
    orphan.kill()
    assert not survivors([orphan], 5)


def test_the_mlflow_server_is_real(mlflow_server: str) -> None:
    with urllib.request.urlopen(f"{mlflow_server}/version", timeout=10) as answer:
        assert answer.read().decode()[0].isdigit()


def test_every_fixture_model_was_saved(models: Path) -> None:
    sources = [*Path(__file__).parent.glob("fixtures/*behav*/*.py")]
    assert {source.stem for source in sources} | {"iris", "digits"} == {path.name for path in models.iterdir()}
    assert all((model / "MLmodel").is_file() for model in models.iterdir())
