"""Where sockets and journals live: a private directory that is made at start and removed at the end."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

#: A Unix socket's path holds 107 bytes; the longest name made below it takes this many.
ROOM = 40


def make_runtime_dir() -> Path:
    """A fresh directory of mode 0700 under $XDG_RUNTIME_DIR, else under the system's temporary folder."""
    candidates = [os.environ.get("XDG_RUNTIME_DIR", ""), tempfile.gettempdir(), "/tmp"]
    for base in candidates:
        if base and os.path.isdir(base) and os.access(base, os.W_OK) and len(base) + ROOM < 107:
            return Path(tempfile.mkdtemp(prefix="modelhub-", dir=base))
    raise OSError(f"no writable directory with a short path for sockets, tried {', '.join(filter(None, candidates))}")


def remove_runtime_dir(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
