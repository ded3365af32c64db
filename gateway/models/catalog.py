"""The catalog: turns the configuration into model versions in the registry, and keeps the two in step.

Whatever changes which versions there are goes through here: the start, a reload of the file, a followed
alias that moved, a load or an unload that an operator asked for.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any

from ...config.folders import own_models, with_folder
from ...config.settings import GroupSettings, ModelSettings, Settings
from ...protocol.errors import ConfigError, InvalidRequest, NotReady
from .group import Group
from .registry import Registry
from .resources import Resources
from .rolls import Roll
from .sizes import Sizes
from .states import ModelState
from .version import ModelVersion

log = logging.getLogger("modelhub.catalog")

#: Seconds after the grace in which workers end, gently or not, where their fork servers are well.
END_GRACE = 5.0


@dataclass
class Slot:
    """One entry of the configuration and the version that answers for it now."""

    entry: ModelSettings
    version: ModelVersion
    #: What is on its way to take over; None most of the time.
    roll: Roll | None = None

    @property
    def candidate(self) -> ModelVersion | None:
        return self.roll.candidate if self.roll is not None else None


@dataclass
class Changes:
    """What a reload did; labels of entries and groups."""

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
        book: Sizes,
        read_again: Callable[[], Settings] | None = None,
        on_change: Callable[[ModelVersion], None] = lambda version: None,
    ) -> None:
        """`read_again` reads the configuration anew, with the flags and variables of the start.

        `on_change` is called after every change of a version's state.
        """
        self.settings = settings
        self.groups: dict[str, Group] = {}
        self.slots: dict[tuple[str, str], Slot] = {}
        self._registry = registry
        self._resources = resources
        self._book = book
        self._read_again = read_again
        self._on_change = on_change
        self._reloading = asyncio.Lock()
        self._unusable: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        for group in settings.groups:
            self.groups[group.name] = Group(group, book)
        for entry, name in settings.entries:
            self._add(entry, self.groups[name] if name else None)
        registry.note()

    # ---- start and end --------------------------------------------------------------------------

    def load_eager(self) -> None:
        """Begin to load what is to be loaded without being asked for, groups in their `preload_order`."""
        for slot in self.slots.values():
            if slot.version.group is None:
                slot.version.load()
        for group in self.groups.values():
            self._beside(self._preload(group), f"preload {group.name}")

    async def _preload(self, group: Group) -> None:
        """The models of `preload_order` one after another, as many at once as the group loads; then an eager one's."""
        order = {name: place for place, name in enumerate(group.settings.preload_order)}
        listed = [version for version in self._of(group) if version.name in order and version.serves]
        under_way: set[asyncio.Task[None]] = set()
        for version in sorted(listed, key=lambda version: order[version.name]):
            while len(under_way) >= group.settings.parallel_loads:
                _, under_way = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
            under_way.add(version.load_in_advance())
        if under_way:
            await asyncio.wait(under_way)
        if not group.lazy:
            self._load_missing(group)

    def _load_missing(self, group: Group) -> None:
        """What an eager group has not loaded yet."""
        for version in self._of(group):
            if version.state is ModelState.UNLOADED and version.serves and not version.kept_unloaded:
                version.load_in_advance()

    def _of(self, group: Group) -> list[ModelVersion]:
        return [version for version in self._registry.all() if version.group is group]

    async def evict_one(self, reason: str) -> bool:
        """Make room in the whole container: the least recently used idle model of all lazy groups goes."""
        idle = [(victim, group) for group in self.groups.values() if (victim := group.idlest()) is not None]
        if not idle:
            return False
        victim, group = min(idle, key=lambda each: each[0].last_used)
        await group.evict(victim, reason)
        return True

    async def close(self, grace: float) -> None:
        """End every version, except what a fork server that is stuck does not end; nothing is loaded any more."""
        self._resources.stopping = True
        for slot in self.slots.values():
            if slot.roll is not None:
                slot.roll.cancel()
        ending = {asyncio.ensure_future(version.unload(grace, "the server stops")) for version in self._registry.all()}
        if ending := ending | self._tasks:
            _, stuck = await asyncio.wait(ending, timeout=grace + END_GRACE)
            if stuck:
                log.warning("%d models do not end: their fork servers are ended, and all below them", len(stuck))

    def _beside(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Do it beside everything else; `close` waits for it."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def tick(self) -> None:
        """Each second: groups let go what is idle or too much."""
        self._registry.note()
        for group in self.groups.values():
            await group.tick()

    # ---- one entry ------------------------------------------------------------------------------

    def _make(self, entry: ModelSettings, group: Group | None) -> ModelVersion:
        version = ModelVersion(entry, group, self._resources, self._changed)
        if group is not None:
            group.enrol(version)
        self._registry.add(version)
        return version

    def _changed(self, version: ModelVersion) -> None:
        if version.state is ModelState.READY:
            self._registry.note()
        self._on_change(version)

    def _add(self, entry: ModelSettings, group: Group | None) -> ModelVersion:
        version = self._make(entry, group)
        self.slots[_key(entry)] = Slot(entry, version)
        return version

    def _leave(self, version: ModelVersion, reason: str) -> None:
        """Drain and end a version beside everything else, and forget it."""
        version.retire()

        async def leave() -> None:
            await version.unload(version.timeout, reason)
            self._registry.remove(version)
            if version.group is not None:
                version.group.forget(version)

        self._beside(leave(), f"leave {version.label}")

    def roll(self, slot: Slot, entry: ModelSettings, group: Group | None, why: str, *, anew: bool = False) -> None:
        """Bring a new version of an entry beside the old one, and swap when it is READY; else the old one stays.

        `anew`: its files are fetched again.
        """
        self.cancel_roll(slot, "superseded")
        candidate = self._make(entry, group)
        if anew:
            candidate.fetch_anew()
        slot.roll = Roll(slot.version, candidate, why, self._resources.counters, lambda: self._swapped(slot, candidate))
        slot.roll.begin()

    def cancel_roll(self, slot: Slot, why: str) -> None:
        """The new version is not wanted any more; the one that serves goes on."""
        if slot.roll is not None:
            slot.roll.cancel()
            self._leave(slot.roll.candidate, why)
            slot.roll = None

    def _swapped(self, slot: Slot, candidate: ModelVersion) -> None:
        """The candidate serves now: its predecessor goes, and what was wished for that holds for it."""
        old, slot.version, slot.roll = slot.version, candidate, None
        self._leave(old, f"replaced by {candidate.label}")
        if old.kept_unloaded:
            candidate.keep_unloaded()
            self._beside(candidate.unload(candidate.timeout, old.reason), f"unload {candidate.label}")
        elif candidate.state is ModelState.UNLOADED and not candidate.on_demand:
            candidate.load_in_advance()  # its predecessor was to wait for a request, it is not

    # ---- operators ------------------------------------------------------------------------------

    async def load(self, name: str, version: str | None, config: dict[str, Any] | None, *, anew: bool = False) -> None:
        """Load a model and wait for it; `config`: keys that override its entry's; `anew`: fetch its files again.

        Raises NotFound, NotReady and InvalidRequest.
        """
        target = self._registry.find(name, version)
        slot = self._slot(target)
        target.want_again()
        overridden = False
        entry = _overridden(slot.entry, config) if config else slot.version.entry
        if entry != slot.version.entry or (anew and slot.version.state is ModelState.READY):
            why = "its load overrides the configuration" if config else "its files are fetched anew"
            self.roll(slot, entry, slot.version.group, why, anew=anew)
            target, overridden = slot.candidate or slot.version, True
        loading = target.load_again(anew=anew)
        await asyncio.wait({loading})
        if target.state is not ModelState.READY:
            why = "it was unloaded" if loading.cancelled() else f"it is {target.state.value}: {target.reason}"
            if overridden and slot.candidate is target:
                self.cancel_roll(slot, "its load failed")
            raise NotReady(f"model {target.label} was not loaded: {why}")
        if slot.roll is not None and slot.candidate is target:
            await slot.roll.ended()

    async def unload(self, name: str, version: str | None) -> None:
        """Drain a model and keep it away until it is loaded by an operator. Raises NotFound."""
        target = self._registry.find(name, version)
        self._slot(target)
        target.keep_unloaded()
        await target.unload(target.timeout, "unloaded by an operator")

    def _slot(self, version: ModelVersion) -> Slot:
        """The entry that a version belongs to. Raises NotReady for one that leaves."""
        for slot in self.slots.values():
            if slot.version is version or slot.candidate is version:
                return slot
        raise NotReady(f"model {version.label} is being replaced: try again", retry_after=1.0)

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
                self._resources.counters.configured(taken=False)
                raise
            server, wanted = self.settings.server, settings.server
            names = [name for name in type(server).model_fields if getattr(server, name) != getattr(wanted, name)]
            if names:
                changed = ", ".join(f"server.{name}" for name in names)
                log.warning("%s changed: that takes effect at the next start, not now", changed)
            changes = self._apply(settings)
            self._resources.counters.configured(taken=True)
            log.info("configuration reloaded: %s", changes)
            return changes

    async def folder_changed(self, group: str, names: list[str], changed: set[str]) -> None:
        """The folder of this group now holds these models; those in `changed` have new content."""
        async with self._reloading:
            settings, unusable = with_folder(self.settings, group, names)
            for name in set(unusable) - self._unusable:
                log.warning("group %s: its folder's %s is not served: no such name is possible, or taken", group, name)
            self._unusable.update(unusable)
            changes = self._apply(settings)
            own = {model.name for each in settings.groups for model in own_models(each, settings.defaults)}
            for slot in [slot for key, slot in self.slots.items() if key[0] in changed - own]:
                changes.changed.append(slot.version.label)
                self.roll(slot, slot.entry, slot.version.group, "its folder has new content")
            if changes != Changes():
                log.info("the folder of group %s has changed: %s", group, changes)

    def _apply(self, settings: Settings) -> Changes:
        changes = Changes()
        self._take_groups(settings, changes)
        wanted = {_key(entry): (entry, self.groups[name] if name else None) for entry, name in settings.entries}
        self._rename(wanted)
        for key in [key for key in self.slots if key not in wanted]:
            slot = self.slots.pop(key)
            changes.removed.append(slot.version.label)
            self.cancel_roll(slot, "removed from the configuration")
            self._leave(slot.version, "removed from the configuration")
        for key, (entry, owner) in wanted.items():
            self._take_entry(self.slots.get(key), entry, owner, changes)
        for name in [name for name in self.groups if name not in {group.name for group in settings.groups}]:
            del self.groups[name]
        for each in self.groups.values():
            if not each.lazy:
                self._load_missing(each)
        self.settings = settings
        self._registry.note()
        return changes

    def _take_groups(self, settings: Settings, changes: Changes) -> None:
        for group in settings.groups:
            known = self.groups.get(group.name)
            if known is None:
                self.groups[group.name] = Group(group, self._book)
                continue
            if _limits(group) != _limits(known.settings):
                changes.changed.append(f"group {group.name}")
            known.reconfigure(group)

    def _take_entry(self, slot: Slot | None, entry: ModelSettings, owner: Group | None, changes: Changes) -> None:
        """Add an entry, or roll one that is not as it was."""
        if slot is None:
            version = self._add(entry, owner)
            changes.added.append(version.label)
            if owner is None:
                version.load()
        elif slot.entry != entry or slot.version.group is not owner:
            slot.entry = entry
            changes.changed.append(slot.version.label)
            if slot.version.entry == entry and slot.version.group is owner:
                self.cancel_roll(slot, "the configuration has changed back")
            else:
                self.roll(slot, entry, owner, "the configuration has changed")

    def _rename(self, wanted: Iterable[tuple[str, str]]) -> None:
        """A name with one version before and another one now is one entry that has changed: it is rolled."""
        before = Counter(name for name, _ in self.slots)
        after = {name: (name, version) for name, version in wanted}
        now = Counter(name for name, _ in wanted)
        for key in list(self.slots):
            if before[key[0]] == now[key[0]] == 1 and after[key[0]] != key:
                self.slots[after[key[0]]] = self.slots.pop(key)


def _key(entry: ModelSettings) -> tuple[str, str]:
    return entry.name, entry.known_version or ""


def _limits(group: GroupSettings) -> dict[str, Any]:
    """All that is said of a group itself."""
    return group.model_dump(exclude={"models"})


def _overridden(entry: ModelSettings, config: dict[str, Any]) -> ModelSettings:
    if set(config) & {"name", "version"}:
        raise InvalidRequest("name and version cannot be overridden by a load")
    try:
        return ModelSettings.model_validate({**entry.model_dump(exclude_unset=True), **config})
    except ValueError as error:
        raise InvalidRequest(f"the config of this load is not valid: {error}") from None
