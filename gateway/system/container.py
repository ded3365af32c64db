"""The memory of the container that this process runs in."""

from __future__ import annotations

import os
from pathlib import Path

#: Of the memory that there is, for one worker: before the kernel, or Kubernetes, ends everything.
WORKER_PART = 0.9
#: Of the container's limit, from which on something has to leave.
POD_LIMIT = 0.95


class PodMemory:
    """The memory limit of the container that the gateway runs in (cgroup v2)."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder if folder is not None else _own_cgroup()

    def used_and_limit(self) -> tuple[int, int]:
        """Bytes; limit 0 where there is none."""
        if self._folder is None:
            return 0, 0
        try:
            limit = (self._folder / "memory.max").read_text().strip()
            if limit == "max":
                return 0, 0
            used = int((self._folder / "memory.current").read_text())
            stat = dict(line.split() for line in (self._folder / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):
            return 0, 0
        return used - int(stat.get("inactive_file", 0)), int(limit)


def default_worker_limit() -> int:
    """Bytes that one worker may use where nobody says how many: a part of the container's memory, or the machine's."""
    _, limit = PodMemory().used_and_limit()
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return int(WORKER_PART * min(limit or machine, machine))


def _own_cgroup() -> Path | None:
    try:
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            if line.startswith("0::"):
                folder = Path("/sys/fs/cgroup") / line[3:].lstrip("/")
                return folder if (folder / "memory.max").exists() else None
    except OSError:
        return None
    return None
