"""Downloaded models on disk, in a cache that gateways and scripts share.

    <root>/<key>/           one model's files, which nobody changes; key = hash of its source
    <root>/.index/<key>     its lock and record (JSON: source, version, bytes, digest); its time = last use
    <root>/.part/<key>      a download under way, renamed when it is whole
    <root>/.part/<key>.anew one of what is there already, with a lock of its own: it takes the place of what is there

A record is locked exclusively while its model is downloaded or deleted, and shared while the model is in use: one
process downloads, the others wait, and nobody deletes what another one uses. Whoever puts a download in the place of
what others read shares the lock with them. Blocking, as all work with a disk.
"""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import shutil
import stat
from contextlib import suppress
from typing import Callable, List, Mapping, Optional, Set, Tuple

from .digest import digest_of
from .errors import ConfigError, LoadError
from .locks import open_lock, try_lock
from .signature import MLMODEL

#: What a download, and what one has replaced, is called after `part`.
_OLD = ".old"
_LEFTOVERS = (".part", _OLD)


def default_state_dir(environ: Mapping[str, str]) -> str:
    """`$XDG_CACHE_HOME/modelhub`, else `~/.cache/modelhub`; where there is no home, a folder of `$TMPDIR`."""
    cache = environ.get("XDG_CACHE_HOME")
    if not cache:
        home = home_of(environ)
        if home is None:
            return os.path.join(environ.get("TMPDIR") or "/tmp", f"modelhub-{os.getuid()}")
        cache = os.path.join(home, ".cache")
    return os.path.join(cache, "modelhub")


def home_of(environ: Mapping[str, str]) -> Optional[str]:
    """The user's home folder; None for a user who has none: an id without an entry, or `/`, or what nobody can make."""
    home = environ.get("HOME")
    if not home:
        try:
            home = pwd.getpwuid(os.getuid()).pw_dir
        except KeyError:
            return None
    there = os.path.isdir(home) and os.path.realpath(home) != "/"
    return home if there or may_write(home) else None


def may_write(folder: str) -> bool:
    """Whether this process may write to the folder, or make it where it is not there."""
    while not os.path.lexists(folder) and os.path.dirname(folder) != folder:
        folder = os.path.dirname(folder)
    return os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK)


def make_state_dir(folder: str) -> None:
    """Make the folder where it is not there. Raises OSError; and ConfigError where somebody else may have made it.

    In a folder that everybody may write to, such as /tmp, it must be this user's own.
    """
    os.makedirs(folder, exist_ok=True)
    everybodys = os.stat(os.path.dirname(os.path.realpath(folder))).st_mode & stat.S_IWOTH
    if everybodys and os.stat(folder).st_uid != os.getuid():
        raise ConfigError(
            f"{folder} is somebody else's: name another folder with --server.state_dir or MODELHUB_SERVER_STATE_DIR"
        )


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
        """Where to download to; `publish` puts it in its place, or `replace` where it is a `beside(key)`."""
        return os.path.join(self.root, ".part", key)

    @staticmethod
    def beside(key: str) -> str:
        """A key to lock and to download to while the model of this key may be read; see `replace`."""
        return f"{key}.anew"

    def is_whole(self, key: str) -> bool:
        return os.path.isfile(os.path.join(self.path(key), MLMODEL))

    def hold(self, key: str) -> Optional[int]:
        """A shared lock on a model that is there and whole; None if it is not, or is being written or deleted."""
        lock = self.share(key) if self.is_whole(key) else None
        if lock is None:
            return None
        if self.is_whole(key):
            os.utime(lock)
            return lock
        os.close(lock)
        return None

    def share(self, key: str) -> Optional[int]:
        """A shared lock on a model, be it there or not; None while it is being written or deleted."""
        lock = self.open(key)
        if try_lock(lock, shared=True):
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

    def is_unchanged(self, key: str) -> bool:
        """Whether its files are as they were fetched, as far as anybody knows. Reads them all."""
        try:
            with open(os.path.join(self.root, ".index", key), "rb") as file:
                wanted = json.load(file)["digest"]
        except (OSError, ValueError, KeyError, TypeError):
            return True
        try:
            return bool(digest_of(self.path(key)) == wanted)
        except OSError:
            return False

    def clear(self, key: str) -> None:
        """Delete a model and what is left of a download. The caller has the exclusive lock."""
        _delete(self.path(key))
        self.clear_part(key)

    def clear_part(self, key: str) -> None:
        """Delete what is left of a download: whole, or still under way (workers/fetch/mlflow.py), or what it replaced.

        The caller has the exclusive lock on this key.
        """
        for leftover in (self.part(key), *(self.part(key) + ending for ending in _LEFTOVERS)):
            _delete(leftover)
        os.makedirs(os.path.join(self.root, ".part"), exist_ok=True)

    def publish(self, key: str, lock: int, source: str, version: str) -> None:
        """What was downloaded becomes the model, read-only; `lock` is its exclusive lock."""
        self._publish(self.part(key), key, lock, source, version)

    def replace(self, key: str, lock: int, source: str, version: str) -> None:
        """What was downloaded to `beside(key)` takes the place of the model.

        Whoever has files of the old one open, or mapped, keeps them. `lock` is a shared one on the model; the caller
        has the exclusive one on `beside(key)`, too.
        """
        self._publish(self.part(self.beside(key)), key, lock, source, version)

    def _publish(self, part: str, key: str, lock: int, source: str, version: str) -> None:
        facts = {"source": source, "version": version, "bytes": _size(part), "digest": digest_of(part)}
        target, old = self.path(key), part + _OLD
        _set_writable(part, False, but=part)  # many read it: none of them changes it for the others
        os.ftruncate(lock, 0)
        os.pwrite(lock, json.dumps(facts).encode(), 0)
        if os.path.isdir(target):
            os.chmod(target, 0o700)  # or it could not be renamed
            os.rename(target, old)
        os.rename(part, target)
        os.chmod(target, os.stat(target).st_mode & 0o7555)
        _delete(old)

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
        left: Set[str] = {_key_of_part(name) for name in os.listdir(parts)} if os.path.isdir(parts) else set()
        for key in left:
            lock = self.lock(key)
            if lock is not None:
                try:
                    self.clear_part(key)
                finally:
                    os.close(lock)

    def _last_use_and_size(self, key: str) -> Tuple[float, int]:
        record = os.path.join(self.root, ".index", key)
        try:
            with open(record, "rb") as file:
                return os.stat(record).st_mtime, int(json.load(file)["bytes"])
        except (OSError, ValueError, KeyError, TypeError):
            return 0.0, _size(self.path(key))


def _key_of_part(name: str) -> str:
    """The key of what is left of a download."""
    for ending in _LEFTOVERS:
        if name.endswith(ending):
            return name[: -len(ending)]
    return name


def _delete(folder: str) -> None:
    """Delete a model. The MLmodel goes first: nobody takes half a model for whole."""
    _set_writable(folder, True)
    with suppress(FileNotFoundError):
        os.unlink(os.path.join(folder, MLMODEL))
    shutil.rmtree(folder, ignore_errors=True)


def _set_writable(folder: str, writable: bool, but: str = "") -> None:
    """Files and folders of a model; links are left alone, and so is what belongs to somebody else, and `but`."""
    for root, _, files in os.walk(folder):
        for path in (root, *(os.path.join(root, name) for name in files)):
            if not os.path.islink(path) and path != but:
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
