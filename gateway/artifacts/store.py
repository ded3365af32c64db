"""Models on this machine's disk: local folders used in place, remote ones in a cache shared by gateways.

    <state_dir>/artifacts/<key>/           one model's files, key = hash of its source
    <state_dir>/artifacts/.index/<key>     its lock and record (JSON: source, uri, bytes); its time = last use
    <state_dir>/artifacts/.part/<key>      a download under way, renamed when it is whole

A record is locked exclusively (flock) while its model is downloaded or deleted, and shared while the
model is in use, so that several gateways can have one cache: one downloads, the others wait, and nobody
deletes what another one uses. The kernel drops the locks of a gateway that dies.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ...protocol.errors import LoadError
from ...protocol.signature import MLMODEL
from ...protocol.uris import HASH_MARK
from ..system.single_flight import Progress, SingleFlight
from .fetcher import Fetcher, Resolved
from .uris import local_path, local_source

#: Seconds between two looks at a record that another gateway has locked.
_LOCK_POLL = 0.1


@dataclass(eq=False)
class Artifact:
    """A model on disk. It stays there until `release()`, or until this process ends."""

    path: Path
    version: str = ""  # the registry's; "" where the URI has none
    source: str = ""  # names the content: equal sources are equal models
    _lock: int | None = field(default=None, repr=False)

    def release(self) -> None:
        """The model is not used any more and may be deleted when room is needed. Calling it again does no harm."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Artifact:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.release()


class ArtifactStore:
    """Brings models to disk; owned by the gateway, used by whoever loads a model."""

    def __init__(
        self, state_dir: Path, limit_bytes: int, fetcher: Fetcher, log: Callable[[str], None] = lambda line: None
    ) -> None:
        """`limit_bytes`: what the cache is pruned to, without touching models in use; `log` says what was deleted."""
        self._root = Path(state_dir) / "artifacts"
        self._limit = limit_bytes
        self._fetcher = fetcher
        self._log = log
        self._flights = SingleFlight()

    async def ensure(self, uri: str, progress: Progress | None = None) -> Artifact:
        """The model of this URI, on disk and held for the caller, who releases it.

        Raises NotFound, NotReady, ConfigError or LoadError with a message for people.
        """
        path = local_path(uri)
        if path is not None:
            path = Path(await asyncio.to_thread(os.path.abspath, path))
            return Artifact(path, "", await asyncio.to_thread(local_source, path))
        found = await self._fetcher.resolve(uri)
        key = hashlib.sha256(found.source.encode()).hexdigest()[:32]
        downloaded = False
        while True:
            lock = await _locked(self._hold, key)
            if lock is not None:
                artifact = Artifact(self._root / key, found.version, found.source, lock)
                if downloaded:
                    try:
                        await self.prune()  # only now, when this model is held and cannot be what goes
                    except BaseException:
                        artifact.release()
                        raise
                return artifact
            await self._flights.run(key, lambda report: self._download(found, key, report), progress)
            downloaded = True

    async def prune(self) -> int:
        """Delete the least recently used models until the cache is within its limit; the bytes that freed."""
        return await asyncio.to_thread(self._prune)

    async def close(self) -> None:
        """Cancel downloads. Artifacts that were given out stay held."""
        await self._flights.close()

    async def _download(self, found: Resolved, key: str, report: Progress) -> None:
        lock = await self._lock_for_writing(key)
        try:
            target, part = self._root / key, self._root / ".part" / key
            if await asyncio.to_thread((target / MLMODEL).is_file):
                return  # another gateway was faster
            await asyncio.to_thread(_clear, part, target)
            await self._fetcher.fetch(_fetchable(found), part, report)
            await asyncio.to_thread(_publish, part, target, lock, found)
        except OSError as error:
            raise LoadError(f"{found.uri} cannot be kept in {self._root}: {error.strerror or error}") from None
        finally:
            os.close(lock)

    async def _lock_for_writing(self, key: str) -> int:
        while True:
            lock = await _locked(self._try_lock, key, fcntl.LOCK_EX)
            if lock is not None:
                return lock
            await asyncio.sleep(_LOCK_POLL)

    def _hold(self, key: str) -> int | None:
        """A shared lock on a model that is there and whole; None if it is not, or is being written or deleted."""
        if not (self._root / key / MLMODEL).is_file():
            return None
        lock = self._try_lock(key, fcntl.LOCK_SH)
        if lock is not None:
            if (self._root / key / MLMODEL).is_file():
                os.utime(lock)
                return lock
            os.close(lock)
        return None

    def _try_lock(self, key: str, mode: int) -> int | None:
        # records are never deleted: a lock on a deleted file would exclude nobody
        record = self._root / ".index" / key
        try:
            record.parent.mkdir(parents=True, exist_ok=True)
            lock = os.open(record, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise LoadError(f"server.state_dir is not usable: {record}: {error.strerror or error}") from None
        try:
            fcntl.flock(lock, mode | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return None
        return lock

    def _prune(self) -> int:
        self._sweep()
        models: list[tuple[float, int, str]] = []
        for folder in self._root.iterdir() if self._root.is_dir() else ():
            if not folder.name.startswith("."):
                models.append((*self._last_use_and_size(folder), folder.name))
        total = sum(size for _, size, _ in models)
        freed = 0
        for _, size, key in sorted(models):
            if total - freed <= self._limit:
                break
            lock = self._try_lock(key, fcntl.LOCK_EX)
            if lock is None:
                continue  # in use, or being written
            try:
                _clear(self._root / ".part" / key, self._root / key)
            finally:
                os.close(lock)
            freed += size
            self._log(f"deleted the cached model {key} ({size} bytes): the cache is over its limit of {self._limit}")
        return freed

    def _sweep(self) -> None:
        """Delete what downloads that were broken off have left, of models that nobody downloads now."""
        parts = self._root / ".part"
        for key in {part.stem for part in parts.iterdir()} if parts.is_dir() else ():
            lock = self._try_lock(key, fcntl.LOCK_EX)
            if lock is not None:
                _clear_part(parts / key)
                os.close(lock)

    def _last_use_and_size(self, folder: Path) -> tuple[float, int]:
        record = self._root / ".index" / folder.name
        try:
            return record.stat().st_mtime, int(json.loads(record.read_bytes())["bytes"])
        except (OSError, ValueError, KeyError, TypeError):
            return 0.0, _size(folder)


async def _locked(lock: Callable[..., int | None], *arguments: object) -> int | None:
    """`lock(*arguments)` in a thread; a lock that comes when its caller has been cancelled is let go again."""

    def let_go(done: asyncio.Future[int | None]) -> None:
        if not done.cancelled() and done.exception() is None and (descriptor := done.result()) is not None:
            os.close(descriptor)

    coming = asyncio.ensure_future(asyncio.to_thread(lock, *arguments))
    try:
        return await asyncio.shield(coming)
    except asyncio.CancelledError:
        coming.add_done_callback(let_go)
        raise


def _fetchable(found: Resolved) -> str:
    """The source, which cannot change meanwhile; or, where credentials were masked in it, the URI with its hash."""
    if "***" not in found.source:
        return found.source
    return found.uri + found.source[found.source.rindex(HASH_MARK) :]


def _clear(part: Path, target: Path) -> None:
    """Delete a model and what is left of a download. The MLmodel goes first: nobody takes half a model for whole."""
    _set_writable(target, True)
    (target / MLMODEL).unlink(missing_ok=True)
    shutil.rmtree(target, ignore_errors=True)
    _clear_part(part)
    part.parent.mkdir(parents=True, exist_ok=True)


def _clear_part(part: Path) -> None:
    """Delete what is left of a download: whole, or still under way (workers/fetch/mlflow.py)."""
    for leftover in (part, part.with_name(part.name + ".part")):
        shutil.rmtree(leftover, ignore_errors=True)


def _publish(part: Path, target: Path, lock: int, found: Resolved) -> None:
    record = json.dumps({"source": found.source, "version": found.version, "bytes": _size(part)})
    os.ftruncate(lock, 0)
    os.pwrite(lock, record.encode(), 0)
    os.rename(part, target)
    _set_writable(target, False)  # several workers, and gateways, read it: none of them changes it for the others


def _set_writable(folder: Path, writable: bool) -> None:
    """Files and folders of a model; links are left alone, and so is what belongs to somebody else."""
    for root, _, files in os.walk(folder):
        for path in (root, *(os.path.join(root, name) for name in files)):
            if not os.path.islink(path):
                mode = os.stat(path).st_mode & 0o7777
                with suppress(PermissionError):
                    os.chmod(path, mode | 0o200 if writable else mode & ~0o222)


def _size(folder: Path) -> int:
    return sum(file.lstat().st_size for file in folder.rglob("*") if not file.is_dir() or file.is_symlink())
