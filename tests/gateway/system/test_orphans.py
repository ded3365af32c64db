"""The gateway as process 1: orphans are waited for, and no exit code is taken from whoever started a process."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from modelhub.serving.gateway.system.orphans import INTERVAL, PATIENCE, Orphans
from support.gateway_process import Gateway
from support.processes import until
from support.v2_client import tensor

ORPHAN = "import os; pid = os.fork(); pid and print(pid); os._exit(0)"


def is_zombie(pid: int) -> bool:
    return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_an_orphan_is_waited_for_and_a_child_of_ones_own_is_not() -> None:
    done = subprocess.run([sys.executable, "-c", ORPHAN], capture_output=True, text=True, check=True)
    orphan = int(done.stdout)  # the test process adopts orphans, as process 1 does
    own = subprocess.Popen([sys.executable, "-c", "raise SystemExit(7)"])
    until(lambda: is_zombie(orphan) and is_zombie(own.pid), 10)
    patient = Orphans()
    assert patient.reap() == []
    assert is_zombie(orphan)
    assert own.wait() == 7
    assert orphan in Orphans(patience=0).reap()
    assert not psutil.pid_exists(orphan)
    assert patient.reap() == []


def in_a_container(command: list[str]) -> list[str]:
    """The command as process 1 of its own world of processes."""
    return ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", *command]


def may_unshare() -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run(in_a_container(["true"]), check=False, capture_output=True).returncode == 0


@pytest.mark.skipif(not may_unshare(), reason="this user may not make a namespace of processes")
def test_a_gateway_that_is_process_1_serves_restarts_and_leaves_no_zombie(
    gateway: Callable[..., Gateway], models: Path
) -> None:
    entry = {"name": "children", "uri": str(models / "spawns_children"), "environment": "shared"}
    running = gateway({"models": [entry]}, wrap=in_a_container)
    running.wait_ready()
    first = running.processes()
    (server,) = (each for each in first if "fork server" in " ".join(each.cmdline()))
    (sleep,) = (each for each in first if each.name() == "sleep")
    os.kill(server.pid, signal.SIGKILL)
    assert running.infer("children", [tensor("input-0", "FP32", [1, 1], [0])]).status == 200
    until(lambda: not (sleep.is_running() and sleep.status() != psutil.STATUS_ZOMBIE), 5)
    until(lambda: not zombies_below(running.pid), PATIENCE + 2 * INTERVAL + 5)
    (process_1,) = psutil.Process(running.pid).children()
    process_1.terminate()  # `unshare` itself takes no SIGTERM while it waits
    assert running.signal(signal.SIGCONT) == 0


def zombies_below(pid: int) -> list[psutil.Process]:
    return [each for each in psutil.Process(pid).children(recursive=True) if is_zombie(each.pid)]
