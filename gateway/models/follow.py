"""Following the registry: entries with `follow` change version when their alias does.

All followed names are asked about in one call per interval. A new version is loaded and warmed beside
the old one and takes over in one step (`Catalog.roll`); if it fails the old one stays.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time

from ...protocol.errors import ServingError
from ..artifacts.fetcher import Fetcher
from .catalog import Catalog, Slot

log = logging.getLogger("modelhub.catalog")

#: Seconds until the next look after one that failed.
RETRY = 5.0

_MOVING = re.compile(r"models:/{1,3}(?P<name>[^/@]+)(?:@(?P<alias>[^/]+)|/(?P<latest>latest))")


class Follower:
    """Runs as a task beside the server; `poke` makes it look now."""

    def __init__(self, catalog: Catalog, fetcher: Fetcher) -> None:
        self._catalog = catalog
        self._fetcher = fetcher
        self._poked = asyncio.Event()
        self._looked: dict[tuple[str, str], float] = {}
        self._failing = False

    def poke(self) -> None:
        """Somebody knows that an alias has moved."""
        self._looked.clear()
        self._poked.set()

    async def run(self) -> None:
        while True:
            self._poked.clear()  # before the look: what moves during it is looked at once more
            try:
                wait = await self.look()
            except Exception:
                log.exception("followed models: this look at the registry failed in the gateway itself")
                wait = RETRY
            try:
                await asyncio.wait_for(self._poked.wait(), wait)
            except asyncio.TimeoutError:
                continue

    async def look(self) -> float:
        """Ask about the names that are due and roll what has moved. Returns seconds until the next look."""
        now = time.monotonic()
        followed = {key: slot for key, slot in self._catalog.slots.items() if slot.entry.follow is not None}
        due = {
            key: slot
            for key, slot in followed.items()
            if now - self._looked.get(key, float("-inf")) >= (slot.entry.follow or 0) - 0.05
        }
        if due:
            for key in due:
                self._looked[key] = now
            await self._ask(list(due.values()))
        waits = [self._looked.get(key, now) + (slot.entry.follow or 0) - now for key, slot in followed.items()]
        return max(min(waits, default=5.0), 0.05)

    async def _ask(self, slots: list[Slot]) -> None:
        targets = [(slot, match) for slot in slots if (match := _MOVING.fullmatch(slot.entry.uri))]
        try:
            found = await self._fetcher.search({match["name"] for _, match in targets})
        except ServingError as error:
            if not self._failing:
                log.warning("followed models: the registry cannot be asked, what is loaded goes on: %s", error.message)
            self._failing = True
            return
        if self._failing:
            log.info("followed models: the registry answers again")
        self._failing = False
        for slot, match in targets:
            version = found.get(match["name"], {}).get(match["alias"] or "latest")
            if version:
                self._move(slot, match["name"], version)

    def _move(self, slot: Slot, registered: str, version: str) -> None:
        current = slot.candidate or slot.version
        if current.version == version:
            return
        if slot.candidate is not None and slot.version.version == version:
            self._catalog.cancel_roll(slot, f"{slot.entry.uri} is version {version} again")
            return
        if not current.version and current.state.loading:
            return  # its first load, which asks by itself, is under way
        entry = slot.entry.model_copy(
            update={"uri": f"models:/{registered}/{version}", "version": version, "follow": None}
        )
        self._catalog.roll(slot, entry, slot.version.group, f"{slot.entry.uri} moved")
