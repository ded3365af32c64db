"""Models that were loaded as they were known last, because the registry could not be asked: it is asked again.

What an alias means by now is loaded beside what serves, as a followed alias that has moved is (`follow.py`).
"""

from __future__ import annotations

import asyncio
import logging

from ...protocol.errors import ServingError
from ..artifacts.fetcher import Fetcher
from .catalog import Catalog, Slot

log = logging.getLogger("modelhub.catalog")

#: Seconds between the answer to one question and the next.
ASK_EVERY = 5.0


class Freshness:
    """Runs as a task beside the server."""

    def __init__(self, catalog: Catalog, fetcher: Fetcher) -> None:
        self._catalog = catalog
        self._fetcher = fetcher

    async def run(self) -> None:
        while True:
            await asyncio.sleep(ASK_EVERY)
            try:
                await asyncio.gather(*(self._ask(slot) for slot in self._catalog.slots.values() if slot.version.stale))
            except Exception:
                log.exception("models that are served as they were known last could not be looked after this time")

    async def _ask(self, slot: Slot) -> None:
        version = slot.version
        try:
            found = await self._fetcher.resolve(version.entry.uri)
        except ServingError as error:
            log.debug("%s: %s", version.label, error.message)
            return
        if slot.version is not version or not version.stale:
            return
        version.confirm()
        if version.source.startswith(found.source):
            log.info("%s: the registry answers again: %s still means it", version.label, version.shown_uri)
        elif slot.roll is None and slot.entry.follow is None:  # a followed one has moved already, or will
            why = f"the registry answers again: {version.shown_uri} means another version"
            self._catalog.roll(slot, slot.entry, version.group, why)
