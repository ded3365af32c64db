"""The catalog: turns the configuration into model versions in the registry, and keeps the two in step.

Whatever changes which versions there are goes through here: the start, a reload of the file, a followed
alias that moved, a load or an unload that an operator asked for.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from ..config.settings import GroupSettings, ModelSettings, Settings
from ..protocol.errors import ConfigError, InvalidRequest, NotReady
from .group import Group
from .lifecycle import ModelState
from .memory_book import MemoryBook
from .model import ModelVersion
from .registry import Registry
from .resources import Resources

log = logging.getLogger(__name__)


@dataclass
class Slot:
    """One entry of the configuration and the version that answers for it now."""

    entry: ModelSettings
    version: ModelVersion
    #: On its way to take over; None most of the time.
    candidate: ModelVersion | None = None
    roll: asyncio.Task[None] | None = None


@dataclass
class Changes:
    """What a reload did; labels of entries."""

    added: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        parts = [f"{len(names)} {what}" for what, names in vars(self).items() if names]
        return ", ".join(parts) if parts else "nothing has changed"


class Catalog:
    """One per gateway, on its event loop."""

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        resources: Resources,
        book: MemoryBook,
        read_again: Callable[[], Settings] | None = None,
    ) -> None:
        """`read_again` reads the configuration anew, with the flags and variables of the start."""
        self.groups: dict[str, Group] = {}
        self.slots: dict[tuple[str, str], Slot] = {}
        self._registry = registry
        self._resources = resources
        self._book = book
        self._read_again = read_again
        self._reloading = asyncio.Lock()
        self._leaving: set[asyncio.Task[None]] = set()
        for group in settings.groups:
            self.groups[group.name] = Group(group, book)
        for entry, name in settings.entries:
            self._add(entry, self.groups[name] if name else None)

    # ---- start and end --------------------------------------------------------------------------

    def load_eager(self) -> None:
        """Begin to load what is to be loaded without being asked for, groups in their `preload_order`."""
        for slot in self.slots.values():
            if slot.version.group is None:
                slot.version.load()
        for group in self.groups.values():
            for version in _preloaded(group):
                version.load()

    async def evict_one(self, reason: str) -> bool:
        """Make room in the whole container: the least recently used idle model of a lazy group goes."""
        for group in self.groups.values():
            if await group.evict_one(reason):
                return True
        return False

    async def close(self, grace: float) -> None:
        """End every version; nothing is loaded any more."""
        self._resources.stopping = True
        for slot in self.slots.values():
            if slot.roll is not None:
                slot.roll.cancel()
        versions = list(self._registry.all())
        await asyncio.gather(*(version.unload(grace, "the server stops") for version in versions))
        await asyncio.gather(*self._leaving, return_exceptions=True)

    async def tick(self) -> None:
        """Each second: groups let go what is idle or too much."""
        for group in self.groups.values():
            await group.tick()

    # ---- one entry ------------------------------------------------------------------------------

    def _add(self, entry: ModelSettings, group: Group | None) -> ModelVersion:
        version = ModelVersion(entry, group, self._resources)
        self.slots[_key(entry)] = Slot(entry, version)
        self._registry.add(version)
        return version

    def _leave(self, version: ModelVersion, reason: str, *, forget: bool = True) -> None:
        """Drain and end a version beside everything else."""

        async def leave() -> None:
            await version.unload(version.timeout, reason)
            if forget:
                self._registry.remove(version)
                if version.group is not None:
                    version.group.members.remove(version)

        task = asyncio.create_task(leave(), name=f"leave {version.label}")
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    def roll(self, slot: Slot, entry: ModelSettings, group: Group | None, why: str) -> None:
        """Bring a new version of an entry beside the old one, and swap when it is READY; else the old one stays."""
        self.cancel_roll(slot, "superseded")
        old = slot.version
        candidate = ModelVersion(entry, group, self._resources)
        if old.state in (ModelState.UNLOADED, ModelState.FAILED) and (old.lazy or old.away):
            candidate.away = old.away
            self._registry.add(candidate)
            self._swap(slot, candidate, why)
            return
        slot.candidate = candidate
        self._registry.add(candidate, serving=old)
        slot.roll = asyncio.create_task(self._roll(slot, candidate, why), name=f"roll {candidate.label}")

    def cancel_roll(self, slot: Slot, why: str) -> None:
        """The new version is not wanted any more; the one that serves goes on."""
        if slot.roll is not None:
            slot.roll.cancel()
        if slot.candidate is not None:
            self._leave(slot.candidate, why)
        slot.candidate = slot.roll = None

    async def _roll(self, slot: Slot, candidate: ModelVersion, why: str) -> None:
        await candidate.load()
        if candidate.state is not ModelState.READY:
            self._resources.metrics.rolled(candidate.name, "failed")
        while candidate.state is not ModelState.READY:
            log.error(
                "%s: the new version %s does not become ready, %s goes on serving: %s",
                candidate.name,
                candidate.version,
                slot.version.label,
                candidate.reason,
            )
            await candidate.until(ModelState.READY, ModelState.UNLOADED)
            if candidate.state is ModelState.UNLOADED:
                return
        self._swap(slot, candidate, why)

    def _swap(self, slot: Slot, candidate: ModelVersion, why: str) -> None:
        old, slot.version, slot.candidate, slot.roll = slot.version, candidate, None, None
        self._registry.serve(candidate)
        self._resources.metrics.rolled(candidate.name, "swapped")
        log.info(
            "%s is now served by version %s, before by %s: %s", candidate.name, candidate.version, old.version, why
        )
        self._leave(old, f"replaced by {candidate.label}")

    # ---- operators ------------------------------------------------------------------------------

    async def load(self, name: str, version: str | None, config: dict[str, Any] | None) -> None:
        """Load a model and wait for it; `config`: keys that override its entry's.

        Raises NotFound, NotReady and InvalidRequest.
        """
        slot = self._slot(name, version)
        target = slot.version
        target.away = False
        if config:
            entry = _overridden(slot.entry, config)
            if entry != target.entry:
                self.roll(slot, entry, target.group, "its load overrides the configuration")
                target = slot.candidate or slot.version
                target.away = False
        await asyncio.shield(target.load())
        if target.state is not ModelState.READY:
            raise NotReady(f"model {target.label} was not loaded: it is {target.state.value}: {target.reason}")

    async def unload(self, name: str, version: str | None) -> None:
        """Drain a model and keep it away until it is loaded by an operator. Raises NotFound."""
        target = self._slot(name, version).version
        target.away = True
        await target.unload(target.timeout, "unloaded by an operator")

    def _slot(self, name: str, version: str | None) -> Slot:
        found = self._registry.find(name, version)
        for slot in self.slots.values():
            if slot.version is found or slot.candidate is found:
                return slot
        raise NotReady(f"model {found.label} is being replaced: try again", retry_after=1.0)

    # ---- the file -------------------------------------------------------------------------------

    async def reload(self) -> Changes:
        """Read the configuration again and apply what has changed. Raises ConfigError, having changed nothing."""
        if self._read_again is None:
            raise ConfigError("there is no configuration file to read again")
        async with self._reloading:
            try:
                settings = await asyncio.to_thread(self._read_again)
            except ConfigError as error:
                log.error("the configuration was not reloaded, nothing has changed: %s", error.message)
                raise
            changes = self._apply(settings)
            log.info("configuration reloaded: %s", changes)
            return changes

    def _apply(self, settings: Settings) -> Changes:
        changes = Changes()
        for group in settings.groups:
            if group.name not in self.groups:
                self.groups[group.name] = Group(group, self._book)
            else:
                self.groups[group.name].reconfigure(group)
        wanted = {_key(entry): (entry, self.groups[name] if name else None) for entry, name in settings.entries}
        for key in [key for key in self.slots if key not in wanted]:
            slot = self.slots.pop(key)
            changes.removed.append(slot.version.label)
            for version in filter(None, [slot.candidate, slot.version]):
                self._leave(version, "removed from the configuration")
        for key, (entry, owner) in wanted.items():
            slot_ = self.slots.get(key)
            if slot_ is None:
                version = self._add(entry, owner)
                changes.added.append(version.label)
                if not version.lazy:
                    version.load()
            elif slot_.entry != entry or slot_.version.group is not owner:
                slot_.entry = entry
                changes.changed.append(slot_.version.label)
                self.roll(slot_, entry, owner, "the configuration has changed")
        for name in [name for name in self.groups if name not in {group.name for group in settings.groups}]:
            del self.groups[name]
        return changes


def _key(entry: ModelSettings) -> tuple[str, str]:
    return entry.name, entry.known_version or ""


def _preloaded(group: Group) -> Iterable[ModelVersion]:
    settings: GroupSettings = group.settings
    order = {name: place for place, name in enumerate(settings.preload_order)}
    first = sorted((member for member in group.members if member.name in order), key=lambda member: order[member.name])
    return first if group.lazy else [*first, *(member for member in group.members if member.name not in order)]


def _overridden(entry: ModelSettings, config: dict[str, Any]) -> ModelSettings:
    if set(config) & {"name", "version"}:
        raise InvalidRequest("name and version cannot be overridden by a load")
    try:
        return ModelSettings.model_validate({**entry.model_dump(exclude_unset=True), **config})
    except ValueError as error:
        raise InvalidRequest(f"the config of this load is not valid: {error}") from None
