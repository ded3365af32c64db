"""Watches the folders that groups take their models from: what is put there is served, what is gone leaves.

A look is one scan in a thread, each INTERVAL. What has changed is taken over when two looks in a row agree, so
that a model which is still being copied is left alone. The configuration file is not read again.
"""

from __future__ import annotations

import asyncio
import logging

from ...config.folders import Stamp, scan
from .catalog import Catalog

log = logging.getLogger("modelhub.catalog")

#: Seconds between two looks.
INTERVAL = 2.0


class FolderWatch:
    """Runs as a task beside the server."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        #: (group, folder) -> what is served from it.
        self._served: dict[tuple[str, str], dict[str, Stamp]] = {}
        self._seen: dict[tuple[str, str], dict[str, Stamp]] = {}
        self._unreadable: set[str] = set()

    async def run(self) -> None:
        while True:
            try:
                await self.look()
            except Exception:
                log.exception("this look at the folders of models failed in the gateway itself")
            await asyncio.sleep(INTERVAL)

    async def look(self) -> None:
        """One look at every group's folder."""
        settings = self._catalog.settings
        for group in settings.groups:
            if group.from_ is None:
                continue
            key = (group.name, group.from_.folder)
            found = await self._scan(group.from_.folder)
            if found is None:
                continue
            configured = {model.name for model in group.models}
            served = self._served.setdefault(key, {name: found[name] for name in found if name in configured})
            if found != served and self._seen.get(key) == found:
                self._served[key] = found
                changed = {name for name, stamp in found.items() if served.get(name, stamp) != stamp}
                await self._catalog.folder_changed(group.name, list(found), changed)
            self._seen[key] = found

    async def _scan(self, folder: str) -> dict[str, Stamp] | None:
        try:
            found = await asyncio.to_thread(scan, folder)
        except OSError as error:
            if folder not in self._unreadable:
                log.warning("%s cannot be read, its models go on: %s", folder, error.strerror or error)
            self._unreadable.add(folder)
            return None
        if folder in self._unreadable:
            self._unreadable.discard(folder)
            log.info("%s can be read again", folder)
        return found
