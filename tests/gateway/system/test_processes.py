"""What /proc says of a process, asked of real ones."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from modelhub.serving.gateway.system.processes import Memory, alive, cpu_seconds, read_memory, read_rss


@pytest.fixture
def ended() -> Iterator[subprocess.Popen[bytes]]:
    """A process that has ended and that nobody has waited for."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    yield child
    child.wait()


def test_one_that_runs() -> None:
    memory = read_memory(os.getpid())
    assert 0 < memory.private <= memory.pss <= memory.rss
    assert memory.read_at > 0
    assert read_rss(os.getpid()) > 1 << 20
    assert (cpu_seconds(os.getpid()) or 0) > 0
    assert alive(os.getpid())


def test_one_whose_name_looks_like_fields() -> None:
    """The name stands in parentheses before the fields, and may hold spaces and parentheses itself."""
    code = "import ctypes; ctypes.CDLL(None).prctl(15, b'a) Z 1 (', 0, 0, 0); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert alive(child.pid)
        assert cpu_seconds(child.pid) is not None
        child.communicate(b"\n")


def test_a_zombie_is_not_alive_and_holds_nothing(ended: subprocess.Popen[bytes]) -> None:
    assert not alive(ended.pid)
    assert read_rss(ended.pid) == 0
    assert read_memory(ended.pid).rss == 0


def test_one_that_is_gone(ended: subprocess.Popen[bytes]) -> None:
    ended.wait()
    memory = read_memory(ended.pid)
    assert memory == Memory(read_at=memory.read_at)
    assert read_rss(ended.pid) == 0
    assert cpu_seconds(ended.pid) is None
    assert not alive(ended.pid)
