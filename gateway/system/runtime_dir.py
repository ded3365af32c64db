"""Where sockets and journals live: a private directory that is made at start and removed at the end.

It is locked (flock) for as long as its gateway lives. What a killed gateway has left has lost its lock, and the next
one that starts removes it; systemd-tmpfiles, too, leaves alone what is locked.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from ...protocol.locks import try_lock

#: A Unix socket's path holds 107 bytes; the longest name made below it takes this many.
ROOM = 40
_PREFIX = "modelhub-run-"


def make_runtime_dir() -> Path:
    """A fresh directory of mode 0700 under $XDG_RUNTIME_DIR, else under the system's temporary folder."""
    candidates = [os.environ.get("XDG_RUNTIME_DIR", ""), tempfile.gettempdir(), "/tmp"]
    for base in candidates:
        if base and os.path.isdir(base) and os.access(base, os.W_OK) and len(base) + ROOM < 107:
            for path in Path(base).glob(f"{_PREFIX}*"):
                _remove_if_left(path)
            fresh = Path(tempfile.mkdtemp(prefix="modelhub-", dir=base))
            _lock(fresh)  # before it has a name that another gateway looks for; held until this process ends
            return fresh.rename(fresh.with_name(fresh.name.replace("modelhub-", _PREFIX, 1)))
    raise OSError(f"no writable directory with a short path for sockets, tried {', '.join(filter(None, candidates))}")


def remove_runtime_dir(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)


def _remove_if_left(path: Path) -> None:
    lock = _lock(path)
    if lock is not None:
        remove_runtime_dir(path)
        os.close(lock)


def _lock(path: Path) -> int | None:
    """A descriptor that keeps a directory of ours locked while it is open; None where it cannot be locked."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if os.fstat(descriptor).st_uid == os.geteuid() and try_lock(descriptor):
            return descriptor  # else another gateway's, which lives
    except OSError:
        pass
    os.close(descriptor)
    return None
