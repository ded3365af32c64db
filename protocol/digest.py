"""The digest of a fetched model, of every file's path and bytes: a disk, or a copy of it, may have changed one since.

Reads every file: for a thread.
"""

from __future__ import annotations

import hashlib
import os

_BLOCK = 1 << 20


def digest_of(folder: str) -> str:
    """Of all files below it. Raises OSError where one cannot be read."""
    whole = hashlib.sha256()
    for root, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(root, name)
            whole.update(os.path.relpath(path, folder).encode("utf-8", "surrogateescape") + b"\0")
            whole.update(_link(path) if os.path.islink(path) else _bytes(path))
    return whole.hexdigest()


def _link(path: str) -> bytes:
    return os.readlink(path).encode("utf-8", "surrogateescape")


def _bytes(path: str) -> bytes:
    found = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        block = bytearray(_BLOCK)
        while count := file.readinto(block):
            found.update(memoryview(block)[:count])
    return found.digest()
