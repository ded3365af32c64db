"""What /proc says of a process: its memory, its CPU time, whether it lives. Reads that take a moment: for a thread."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Memory:
    """Bytes. `private` is what ends with the process; `pss` also counts its share of shared pages."""

    private: int = 0
    pss: int = 0
    rss: int = 0
    read_at: float = 0.0


def read_rss(pid: int) -> int:
    """Resident bytes of a process; 0 when it is gone. Cheap."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE
    except (OSError, IndexError, ValueError):
        return 0


def read_memory(pid: int) -> Memory:
    """The exact sizes of a process, a walk over its page tables; zeros when it is gone or not ours."""
    sizes = {b"Private_Clean:": 0, b"Private_Dirty:": 0, b"Pss:": 0, b"Rss:": 0}
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            for line in file:
                key, _, rest = line.partition(b" ")
                if key in sizes:
                    sizes[key] = int(rest.split()[0]) * 1024
    except (OSError, IndexError, ValueError):
        return Memory(read_at=time.monotonic())
    private = sizes[b"Private_Clean:"] + sizes[b"Private_Dirty:"]
    return Memory(private, sizes[b"Pss:"], sizes[b"Rss:"], time.monotonic())


def cpu_seconds(pid: int) -> float | None:
    """CPU time of a process, user and system; None when it is gone."""
    try:
        fields = _stat(pid)
        return (int(fields[11]) + int(fields[12])) / _TICKS
    except (OSError, IndexError, ValueError):
        return None


def alive(pid: int) -> bool:
    """Whether it runs: a zombie does not."""
    try:
        return _stat(pid)[0] not in (b"Z", b"X")
    except (OSError, IndexError):
        return not os.path.isdir("/proc/self") and _takes_signals(pid)


def stopped(pid: int) -> bool:
    """Whether a signal has stopped it."""
    try:
        return _stat(pid)[0] == b"T"
    except (OSError, IndexError):
        return False


def _stat(pid: int) -> list[bytes]:
    """The fields of its `stat`, from its state on: the name before it may hold anything. Raises OSError."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()


def _takes_signals(pid: int) -> bool:
    """The next best answer where there is no /proc."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's
    return True
