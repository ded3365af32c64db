"""Downloaded models on disk, in a cache that gateways and scripts share.

    <root>/<key>/           one model's files, which nobody changes; key = hash of its source
    <root>/.index/<key>     its lock and record (JSON: source, version, bytes); its time = last use
    <root>/.part/<key>      a download under way, renamed when it is whole

A record is locked exclusively while its model is downloaded or deleted, and shared while the model is in use: one
process downloads, the others wait, and nobody deletes what another one uses. Blocking, as all work with a disk.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from contextlib import suppress
from typing import Callable, List, Mapping, Optional, Set, Tuple

from .errors import LoadError
from .locks import open_lock, try_lock
from .signature import MLMODEL


def default_state_dir(environ: Mapping[str, str]) -> str:
    """`$XDG_CACHE_HOME/modelhub`, else `~/.cache/modelhub`."""
    return os.path.join(environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "modelhub")


class ModelCache:
    """The cache in a state directory; `setting` is what errors name that is to be changed where it is not usable."""

    def __init__(self, state_dir: str, setting: str = "server.state_dir") -> None:
        self.root = os.path.join(state_dir, "artifacts")
        self._setting = setting

    @staticmethod
    def key_of(source: str) -> str:
        return hashlib.sha256(source.encode()).hexdigest()[:32]

    def path(self, key: str) -> str:
        return os.path.join(self.root, key)

    def part(self, key: str) -> str:
        """Where to download to; `publish` puts it in its place."""
        return os.path.join(self.root, ".part", key)

    def is_whole(self, key: str) -> bool:
        return os.path.isfile(os.path.join(self.path(key), MLMODEL))

    def hold(self, key: str) -> Optional[int]:
        """A shared lock on a model that is there and whole; None if it is not, or is being written or deleted."""
        if not self.is_whole(key):
            return None
        lock = self.open(key)
        if try_lock(lock, shared=True) and self.is_whole(key):
            os.utime(lock)
            return lock
        os.close(lock)
        return None

    def lock(self, key: str) -> Optional[int]:
        """The exclusive lock on a model, to write or delete it; None where somebody uses it."""
        lock = self.open(key)
        if try_lock(lock):
            return lock
        os.close(lock)
        return None

    def open(self, key: str) -> int:
        """The record of a model, to lock it. Raises LoadError."""
        # records are never deleted: a lock on a deleted file would exclude nobody
        record = os.path.join(self.root, ".index", key)
        try:
            return open_lock(record)
        except OSError as error:
            reason = error.strerror or error
            raise LoadError(f"{self._setting} is not usable: {record}: {reason}") from None

    def clear(self, key: str) -> None:
        """Delete a model and what is left of a download. The MLmodel goes first: nobody takes half a model for whole.

        The caller has the exclusive lock.
        """
        _set_writable(self.path(key), True)
        with suppress(FileNotFoundError):
            os.unlink(os.path.join(self.path(key), MLMODEL))
        shutil.rmtree(self.path(key), ignore_errors=True)
        self._clear_part(key)
        os.makedirs(os.path.join(self.root, ".part"), exist_ok=True)

    def publish(self, key: str, lock: int, source: str, version: str) -> None:
        """What was downloaded becomes the model, read-only; `lock` is its exclusive lock."""
        part = self.part(key)
        record = json.dumps({"source": source, "version": version, "bytes": _size(part)})
        os.ftruncate(lock, 0)
        os.pwrite(lock, record.encode(), 0)
        os.rename(part, self.path(key))
        _set_writable(self.path(key), False)  # many read it: none of them changes it for the others

    def prune(self, limit: int, log: Callable[[str], None]) -> int:
        """Delete the least recently used models until they take `limit` bytes; the bytes that freed."""
        self._sweep()
        models: List[Tuple[float, int, str]] = []
        for key in os.listdir(self.root) if os.path.isdir(self.root) else ():
            if not key.startswith("."):
                models.append((*self._last_use_and_size(key), key))
        total = sum(size for _, size, _ in models)
        freed = 0
        for _, size, key in sorted(models):
            if total - freed <= limit:
                break
            lock = self.lock(key)
            if lock is None:
                continue  # in use, or being written
            try:
                self.clear(key)
            finally:
                os.close(lock)
            freed += size
            log(f"deleted the cached model {key} ({size} bytes): the cache is over its limit of {limit}")
        return freed

    def _sweep(self) -> None:
        """Delete what downloads that were broken off have left, of models that nobody downloads now."""
        parts = os.path.join(self.root, ".part")
        left: Set[str] = {os.path.splitext(name)[0] for name in os.listdir(parts)} if os.path.isdir(parts) else set()
        for key in left:
            lock = self.lock(key)
            if lock is not None:
                self._clear_part(key)
                os.close(lock)

    def _clear_part(self, key: str) -> None:
        """Delete what is left of a download: whole, or still under way (workers/fetch/mlflow.py)."""
        for leftover in (self.part(key), self.part(key) + ".part"):
            shutil.rmtree(leftover, ignore_errors=True)

    def _last_use_and_size(self, key: str) -> Tuple[float, int]:
        record = os.path.join(self.root, ".index", key)
        try:
            with open(record, "rb") as file:
                return os.stat(record).st_mtime, int(json.load(file)["bytes"])
        except (OSError, ValueError, KeyError, TypeError):
            return 0.0, _size(self.path(key))


def _set_writable(folder: str, writable: bool) -> None:
    """Files and folders of a model; links are left alone, and so is what belongs to somebody else."""
    for root, _, files in os.walk(folder):
        for path in (root, *(os.path.join(root, name) for name in files)):
            if not os.path.islink(path):
                mode = os.stat(path).st_mode & 0o7777
                with suppress(PermissionError):
                    os.chmod(path, mode | 0o200 if writable else mode & ~0o222)


def _size(folder: str) -> int:
    """Bytes of the files in it, and of the links themselves."""
    found = 0
    for root, folders, files in os.walk(folder):
        paths = [os.path.join(root, name) for name in (*folders, *files)]
        found += sum(os.lstat(path).st_size for path in paths if os.path.islink(path) or not os.path.isdir(path))
    return found
