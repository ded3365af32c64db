"""Folders that are built once, by one process, whole or not at all.

A `Store` holds finished folders by key (environments, kits). Any number of processes may share one:
- a folder appears under its key by one rename, with `.complete` (JSON facts) in it; half-built ones have other names;
- builders of one key take turns by a lock on `.locks/<key>`, and remove what killed builders left;
- whoever uses a folder holds a shared lock on its `.used` file, so that pruning leaves it alone;
- a folder may have other names, empty files in its `.names`, which go with it.
Waiting never blocks the event loop. Called by the environment builder, the kit and `modelhub env prune`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...protocol.errors import LoadError
from ...protocol.locks import open_lock, try_lock

_COMPLETE = ".complete"
_USED = ".used"
_NAMES = ".names"
_POLL_SECONDS = (0.05, 0.5)


@dataclass(frozen=True)
class Finished:
    """A whole folder of a store."""

    key: str
    path: Path
    #: What its builder noted: a JSON object.
    facts: dict[str, Any] = field(default_factory=dict)
    #: Seconds since the epoch.
    last_used: float = 0.0


class Store:
    """Finished folders under `root`. `usable` says whether a finished one still works (its Python may be gone)."""

    def __init__(self, root: Path, usable: Callable[[Path], bool] = Path.is_dir) -> None:
        self.root = root
        self._usable = usable
        self._in_use: dict[str, int] = {}

    def find(self, key: str) -> Finished | None:
        """The finished folder of that key, marked as used from now until `close`. Blocking, for a thread."""
        found = self._read(key)
        if found is None or not self._usable(found.path) or not self._hold(key):
            return None
        return found

    def find_named(self, name: str) -> Finished | None:
        """The finished folder that has this name beside its key, marked as `find` does. Blocking."""
        key = self.key_of(name)
        return self.find(key) if key else None

    def key_of(self, name: str) -> str:
        """The key of the finished folder that has this name; "" for none. Blocking."""
        return next((key for key in self._keys() if (self.root / key / _NAMES / name).exists()), "")

    def name(self, key: str, name: str) -> None:
        """Have a finished folder found by this name too; one that is read-only is not. Blocking."""
        names = self.root / key / _NAMES
        with contextlib.suppress(OSError):
            names.mkdir(exist_ok=True)
            (names / name).touch()

    def finished(self) -> list[Finished]:
        """Every finished folder, without marking any as used. Blocking."""
        return [found for key in self._keys() if (found := self._read(key))]

    def _keys(self) -> list[str]:
        try:
            return sorted(name for name in os.listdir(self.root) if not name.startswith("."))
        except OSError:
            return []

    async def build(
        self, key: str, make: Callable[[Path], Awaitable[dict[str, Any]]], waiting: Callable[[], None]
    ) -> Finished:
        """Return the folder of that key, calling `make(folder)` to fill a new one and say its facts if need be.

        `make` is given a path that does not exist. `waiting` is called when another process builds the same key.
        Raises LoadError where the disk does not take it, and whatever `make` raises; then nothing is left.
        """
        work = self.root / f".build~{key}~{os.getpid()}-{secrets.token_hex(4)}"
        try:
            async with self._turn(key, waiting):
                found = await asyncio.to_thread(self.find, key)
                if found is not None:
                    return found
                await asyncio.to_thread(self._sweep, key)
                try:
                    facts = await make(work)
                    await asyncio.to_thread(self._finish, key, work, facts)
                finally:
                    await asyncio.shield(asyncio.to_thread(shutil.rmtree, work, ignore_errors=True))
                found = await asyncio.to_thread(self.find, key)
        except OSError as error:
            raise LoadError(
                f"cannot write below {self.root}: {error.strerror or error}. Make room there, or set "
                f"`server.state_dir` to a folder that can be written"
            ) from None
        if found is None:
            raise LoadError(f"{self.root / key} vanished while it was built; is something else deleting it?")
        return found

    def prune(self, unused_seconds: float, *, dry_run: bool = False) -> tuple[list[Finished], list[Finished]]:
        """Remove what nobody used for that long; return (removed, kept because a process uses them). Blocking."""
        removed, in_use = [], []
        with contextlib.suppress(FileNotFoundError):
            self._sweep("")
        for found in self.finished():
            if time.time() - found.last_used < unused_seconds:
                continue
            with _free(found.path / _USED) as free:
                if not free:
                    in_use.append(found)
                    continue
                removed.append(found)
                if not dry_run:
                    self._discard(found.key)
        return removed, in_use

    def close(self) -> None:
        """Let go of what was in use."""
        while self._in_use:
            os.close(self._in_use.popitem()[1])

    def _read(self, key: str) -> Finished | None:
        path = self.root / key
        try:
            facts = json.loads((path / _COMPLETE).read_text())
            return Finished(key, path, facts, (path / _USED).stat().st_mtime)
        except (OSError, ValueError):
            return None

    def _hold(self, key: str) -> bool:
        """Touch `.used` and keep a shared lock on it; False where it is being pruned."""
        path = self.root / key / _USED
        with contextlib.suppress(OSError):  # a read-only state directory serves all the same
            os.utime(path)
        try:
            if key in self._in_use and os.path.samestat(os.fstat(self._in_use[key]), os.stat(path)):
                return True
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            held = try_lock(descriptor, shared=True)
            replaced = not held or not os.path.samestat(os.fstat(descriptor), os.stat(path))
        except OSError:
            replaced = True
        if replaced:
            os.close(descriptor)
            return False
        if key in self._in_use:
            os.close(self._in_use[key])
        self._in_use[key] = descriptor
        return True

    @contextlib.asynccontextmanager
    async def _turn(self, key: str, waiting: Callable[[], None]) -> AsyncIterator[None]:
        descriptor = await asyncio.to_thread(open_lock, self.root / ".locks" / key)
        try:
            pause, longest = _POLL_SECONDS
            told = False
            while not try_lock(descriptor):
                if not told:
                    waiting()
                    told = True
                await asyncio.sleep(pause)
                pause = min(pause * 1.5, longest)
            yield
        finally:
            os.close(descriptor)

    def _finish(self, key: str, work: Path, facts: dict[str, Any]) -> None:
        (work / _USED).touch()
        (work / _COMPLETE).write_text(json.dumps(facts))
        if (self.root / key).exists():
            self._discard(key)
        work.rename(self.root / key)

    def _discard(self, key: str) -> None:
        """Take a folder away by one rename, then delete it."""
        trash = self.root / f".trash~{key}~{os.getpid()}-{secrets.token_hex(4)}"
        with contextlib.suppress(FileNotFoundError):  # another process was quicker
            (self.root / key).rename(trash)
        shutil.rmtree(trash, ignore_errors=True)

    def _sweep(self, own_key: str) -> None:
        """Remove what killed builders left: of our key (we hold its lock), and of others that nobody builds now."""
        for entry in list(self.root.iterdir()):
            kind, _, rest = entry.name.partition("~")
            key = rest.partition("~")[0]
            if kind not in {".build", ".trash"} or not key:
                continue
            if key == own_key:
                shutil.rmtree(entry, ignore_errors=True)
                continue
            with _free(self.root / ".locks" / key) as free:
                if free:
                    shutil.rmtree(entry, ignore_errors=True)


@contextlib.contextmanager
def _free(path: Path) -> Iterator[bool]:
    """An exclusive lock if nobody else has one; yields whether it was got."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        yield False
        return
    try:
        yield try_lock(descriptor)
    finally:
        os.close(descriptor)
