"""Models on this machine's disk: local folders used in place, remote ones in a cache shared by gateways.

The cache, its layout and its locks are `protocol/model_cache.py`'s; here it is used without blocking the event loop.
What is here is used without asking anybody where its URI never moves; where it may, the registry is asked, and what it
said last counts while it cannot answer.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from ...protocol.errors import LoadError, NotReady
from ...protocol.model_cache import ModelCache
from ...protocol.redaction import masked
from ...protocol.signature import MLMODEL
from ...protocol.uris import HASH_MARK
from ..system.single_flight import Progress, SingleFlight
from .fetcher import Fetcher, Resolved
from .known import KnownUris, never_moves
from .uris import local_path, local_source

#: Seconds between two looks at a record that another gateway has locked.
_LOCK_POLL = 0.1
#: Seconds that a start waits for a registry that may be away, where what it said last is here; and for one that is
#: there but slow.
PATIENCE = 1.0
SLOW_REGISTRY = 15.0


@dataclass(eq=False)
class Artifact:
    """A model on disk. It stays there until `release()`, or until this process ends."""

    path: Path
    version: str = ""  # the registry's; "" where the URI has none
    source: str = ""  # names the content: equal sources are equal models
    uri: str = ""
    #: Why the registry could not be asked whether its URI still means this; "": it does.
    stale: str = ""
    _lock: int | None = field(default=None, repr=False)
    _mend: Callable[[Artifact], Awaitable[bool]] | None = field(default=None, repr=False)

    async def mend(self) -> bool:
        """After a load that has failed: fetch it anew if it is not what was fetched; whether that was so.

        Raises what a download raises.
        """
        return self._mend is not None and await self._mend(self)

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
        self._known = KnownUris(Path(self._cache.root) / ".known", fetcher.registry)

    async def ensure(self, uri: str, progress: Progress | None = None, *, anew: bool = False) -> Artifact:
        """The model of this URI, on disk and held for the caller, who releases it; `anew`: whatever is there already.

        Raises NotFound, NotReady, ConfigError or LoadError with a message for people.
        """
        path = local_path(uri)
        if path is not None:
            path = Path(await asyncio.to_thread(os.path.abspath, path))
            return Artifact(path, "", await asyncio.to_thread(local_source, path))
        found, stale = (await self._fetcher.resolve(uri), "") if anew else await self._meaning(uri)
        key = self._cache.key_of(found.source)
        if anew:
            await self._fetch_anew(found, key, progress)
        downloaded = anew
        while True:
            lock = await _locked(self._cache.hold, key)
            if lock is not None:
                path = Path(self._cache.path(key))
                artifact = Artifact(path, found.version, found.source, uri, stale, lock, self._mended)
                if not stale:
                    await asyncio.to_thread(self._known.remember, found)
                if downloaded:
                    try:
                        await self.prune()  # only now, when this model is held and cannot be what goes
                    except BaseException:
                        artifact.release()
                        raise
                return artifact
            await self._flights.run(key, lambda report: self._download(found, key, report), progress)
            downloaded = True

    async def _meaning(self, uri: str) -> tuple[Resolved, str]:
        """What a URI means; and, where that is what it meant when it was asked for last, why nobody could be asked."""
        known = await asyncio.to_thread(self._recall, uri)
        if known is None:
            return await self._fetcher.resolve(uri), ""
        if never_moves(uri):
            return known, ""
        asking = asyncio.ensure_future(self._fetcher.resolve(uri))
        there = asyncio.ensure_future(self._fetcher.registry_answers(PATIENCE))
        try:
            await asyncio.wait({asking}, timeout=PATIENCE)
            if not asking.done() and await there:
                await asyncio.wait({asking}, timeout=SLOW_REGISTRY)
            if not asking.done():
                return known, "the registry does not answer"
            return asking.result(), ""
        except NotReady as error:
            return known, error.message
        finally:
            there.cancel()
            asking.cancel()  # the question itself goes on, for whoever asks next

    def _recall(self, uri: str) -> Resolved | None:
        """What it meant last, if that is here."""
        known = self._known.recall(uri)
        return known if known is not None and self._cache.is_whole(self._cache.key_of(known.source)) else None

    async def metadata(self, uri: str) -> str:
        """As the fetcher's; from here where that cannot be another one, or where nobody answers."""
        known = await asyncio.to_thread(self._recall, uri)
        if known is None:
            return await self._fetcher.metadata(uri)
        here = Path(self._cache.path(self._cache.key_of(known.source)), MLMODEL)
        if not never_moves(uri):
            try:
                return await self._fetcher.metadata(uri)
            except NotReady:
                pass  # what it was when somebody last answered
        return await asyncio.to_thread(here.read_text, "utf-8", "replace")

    async def _mended(self, artifact: Artifact) -> bool:
        """Fetch a model anew that a disk has changed: the files that are there now are not those of its record."""
        key = artifact.path.name
        if await asyncio.to_thread(self._cache.is_unchanged, key):
            return False
        self._log(f"{artifact.source} has changed on disk since it was fetched: it is fetched anew")
        found = Resolved(uri=artifact.uri, version=artifact.version, source=artifact.source)
        await self._fetch_anew(found, key)
        return True

    async def prune(self) -> int:
        """Delete the least recently used models until the cache is within its limit; the bytes that freed."""
        return await asyncio.to_thread(self._cache.prune, self._limit, self._log)

    async def close(self) -> None:
        """Cancel downloads. Artifacts that were given out stay held."""
        await self._flights.close()

    async def _download(self, found: Resolved, key: str, report: Progress) -> None:
        cache = self._cache
        lock = await self._wait_for(cache.lock, key)
        try:
            if await asyncio.to_thread(cache.is_whole, key):
                return  # another gateway was faster
            await asyncio.to_thread(cache.clear, key)
            await self._fetcher.fetch(_fetchable(found), Path(cache.part(key)), report)
            await asyncio.to_thread(cache.publish, key, lock, found.source, found.version)
        except OSError as error:
            raise self._unkept(found, error) from None
        finally:
            os.close(lock)

    async def _fetch_anew(self, found: Resolved, key: str, progress: Progress | None = None) -> None:
        beside = self._cache.beside(key)
        await self._flights.run(beside, lambda report: self._download_beside(found, key, beside, report), progress)

    async def _download_beside(self, found: Resolved, key: str, beside: str, report: Progress) -> None:
        """Beside what is there, which others may be reading, and then in its place."""
        cache = self._cache
        with ExitStack() as locks:
            locks.callback(os.close, await self._wait_for(cache.lock, beside))
            try:
                await asyncio.to_thread(cache.clear_part, beside)
                await self._fetcher.fetch(_fetchable(found), Path(cache.part(beside)), report)
                lock = await self._wait_for(cache.share, key)
                locks.callback(os.close, lock)
                await asyncio.to_thread(cache.replace, key, lock, found.source, found.version)
            except OSError as error:
                raise self._unkept(found, error) from None

    def _unkept(self, found: Resolved, error: OSError) -> LoadError:
        return LoadError(f"{masked(found.uri)} cannot be kept in {self._cache.root}: {error.strerror or error}")

    async def _wait_for(self, lock: Callable[[str], int | None], key: str) -> int:
        while True:
            descriptor = await _locked(lock, key)
            if descriptor is not None:
                return descriptor
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
