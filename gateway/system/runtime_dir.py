"""Where sockets and journals live: a private directory that is made at start and removed at the end.

It is locked (flock) for as long as its gateway lives. What a killed gateway has left has lost its lock, and the next
one that starts removes it; systemd-tmpfiles, too, leaves alone what is locked. What other cleaners of temporary files
have removed is made anew.
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


class RuntimeDir:
    """A fresh directory of mode 0700 under $XDG_RUNTIME_DIR, else under the system's temporary folder."""

    def __init__(self) -> None:
        base = _base()
        for path in base.glob(f"{_PREFIX}*"):
            _remove_if_left(path)
        fresh = Path(tempfile.mkdtemp(prefix="modelhub-", dir=base))
        self._lock = _lock(fresh)  # before it has a name that another gateway looks for; held until this process ends
        self.path = fresh.rename(fresh.with_name(fresh.name.replace("modelhub-", _PREFIX, 1)))

    def keep(self) -> None:
        """Make it anew, by the same name, where it was removed."""
        if self.path.is_dir():
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix="modelhub-", dir=self.path.parent))
        before, self._lock = self._lock, _lock(fresh)
        fresh.rename(self.path)
        if before is not None:
            os.close(before)

    def remove(self) -> None:
        """Nobody needs it any more."""
        shutil.rmtree(self.path, ignore_errors=True)


def _base() -> Path:
    """A writable directory with a short path. Raises OSError."""
    candidates = [os.environ.get("XDG_RUNTIME_DIR", ""), tempfile.gettempdir(), "/tmp"]
    for base in candidates:
        if base and os.path.isdir(base) and os.access(base, os.W_OK) and len(base) + ROOM < 107:
            return Path(base)
    raise OSError(f"no writable directory with a short path for sockets, tried {', '.join(filter(None, candidates))}")


def _remove_if_left(path: Path) -> None:
    lock = _lock(path)
    if lock is not None:
        shutil.rmtree(path, ignore_errors=True)
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
