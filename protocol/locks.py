"""Locks between processes (flock): one lasts while its descriptor is open, and a process that dies has none."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Union


def open_lock(path: Union[str, Path]) -> int:
    """A descriptor to lock, of a file that is made, with its folder, where there is none. Raises OSError."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def try_lock(descriptor: int, *, shared: bool = False) -> bool:
    """Lock it unless somebody else has. Raises OSError where the disk knows no locks."""
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def wait_for_lock(descriptor: int) -> None:
    """Lock it for oneself alone, when everybody else has let go. Blocking."""
    fcntl.flock(descriptor, fcntl.LOCK_EX)
