"""Places among loads: as many as there are, and one that takes long gives its own to the next."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from modelhub.serving.config.settings import GroupSettings
from modelhub.serving.gateway.models import slots
from modelhub.serving.gateway.models.group import Group
from modelhub.serving.gateway.models.sizes import Sizes
from modelhub.serving.gateway.models.slots import slot
from modelhub.serving.gateway.system.timeouts import timeout


@pytest.mark.parametrize("places", [asyncio.Lock, lambda: asyncio.Semaphore(1)])
async def test_one_that_takes_long_gives_its_place_away_and_no_second_one_at_its_end(
    monkeypatch: pytest.MonkeyPatch, places: Any
) -> None:
    lock = places()
    monkeypatch.setattr(slots, "SLOT_SECONDS", 0.0)
    async with slot(lock):
        monkeypatch.setattr(slots, "SLOT_SECONDS", 1000.0)
        async with timeout(10), slot(lock):
            assert lock.locked()
        assert not lock.locked()
    async with slot(lock):
        assert lock.locked()
    assert not lock.locked()


async def test_one_that_is_quick_keeps_it_to_its_end() -> None:
    lock = asyncio.Lock()
    async with slot(lock):
        waiting = asyncio.ensure_future(lock.acquire())
        await asyncio.sleep(0)
        assert not waiting.done()
    assert await waiting


class Member:
    """A version that is being loaded, of a content that was never seen."""

    def __init__(self, name: str, entry: Any) -> None:
        self.label = self.source = name
        self.entry = entry
        self.beside = None
        self.wanted, self.evictable = True, False
        self.last_used = self.phase_seconds = 0.0
        self.memory_private = 0
        self.memory_of_replicas: list[int] = []


async def test_loads_do_not_wait_for_a_slow_one_of_their_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "SLOT_SECONDS", 0.0)
    settings = GroupSettings.model_validate(
        {
            "name": "all",
            "memory_budget": 1 << 30,
            "parallel_loads": 1,
            "models": [{"name": "a", "uri": "/a"}, {"name": "b", "uri": "/b"}],
        }
    )
    group = Group(settings, Sizes(tmp_path))
    slow, quick = (Member(entry.name, entry) for entry in settings.models)
    async with group.room(slow), timeout(10), group.room(quick):  # type: ignore[arg-type]
        assert group.loaded() == 2
