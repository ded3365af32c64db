"""Models on this machine's disk: local folders used in place, remote ones in a cache shared by gateways.

The cache, its layout and its locks are `protocol/model_cache.py`'s; here it is used without blocking the event loop.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ...protocol.errors import LoadError
from ...protocol.model_cache import ModelCache
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
        self._cache = ModelCache(str(state_dir))
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
        key = self._cache.key_of(found.source)
        downloaded = False
        while True:
            lock = await _locked(self._cache.hold, key)
            if lock is not None:
                artifact = Artifact(Path(self._cache.path(key)), found.version, found.source, lock)
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
        return await asyncio.to_thread(self._cache.prune, self._limit, self._log)

    async def close(self) -> None:
        """Cancel downloads. Artifacts that were given out stay held."""
        await self._flights.close()

    async def _download(self, found: Resolved, key: str, report: Progress) -> None:
        cache = self._cache
        lock = await self._lock_for_writing(key)
        try:
            if await asyncio.to_thread(cache.is_whole, key):
                return  # another gateway was faster
            await asyncio.to_thread(cache.clear, key)
            await self._fetcher.fetch(_fetchable(found), Path(cache.part(key)), report)
            await asyncio.to_thread(cache.publish, key, lock, found.source, found.version)
        except OSError as error:
            raise LoadError(f"{found.uri} cannot be kept in {cache.root}: {error.strerror or error}") from None
        finally:
            os.close(lock)

    async def _lock_for_writing(self, key: str) -> int:
        while True:
            lock = await _locked(self._cache.lock, key)
            if lock is not None:
                return lock
            await asyncio.sleep(_LOCK_POLL)


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
