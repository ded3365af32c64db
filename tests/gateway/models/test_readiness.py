"""What makes the server ready, and how it ends, with versions whose processes nobody needs to start."""

from __future__ import annotations

import asyncio
import gc
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from modelhub.serving.config.settings import GroupSettings, ModelSettings, Settings
from modelhub.serving.gateway.dataplane.descriptions import Descriptions
from modelhub.serving.gateway.models import catalog, loading
from modelhub.serving.gateway.models.catalog import Catalog
from modelhub.serving.gateway.models.group import Group
from modelhub.serving.gateway.models.registry import Registry
from modelhub.serving.gateway.models.resources import Resources
from modelhub.serving.gateway.models.sizes import Sizes
from modelhub.serving.gateway.models.states import ModelState
from modelhub.serving.gateway.models.version import ModelVersion
from modelhub.serving.gateway.telemetry.counters import Counters
from modelhub.serving.protocol.errors import LoadError, NotReady
from modelhub.serving.protocol.messages import InferRequest

UP = (ModelState.PREPARING, ModelState.LOADING, ModelState.WARMING, ModelState.READY)


@pytest.fixture
def resources() -> Any:
    return Resources(None, Counters(), never)  # type: ignore[arg-type]


async def never(*_: Any, **keys: Any) -> Any:
    await asyncio.Event().wait()


def version_of(name: str, resources: Any, group: Group | None = None) -> ModelVersion:
    version = ModelVersion(ModelSettings(name=name, uri="./model"), group, resources)
    if group is not None:
        group.enrol(version)
    return version


async def test_a_lazy_model_that_has_failed_is_tried_again_without_being_asked(
    resources: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a pod that is not ready because of it would get no request that could have it loaded."""

    async def fails(*_: Any, **keys: Any) -> Any:
        raise LoadError("no registry")

    resources.prepare = fails
    monkeypatch.setattr(loading, "RETRY_FIRST", 0.01)
    group = Group(GroupSettings.model_validate({"name": "g", "load": "lazy", "models": []}), Sizes(tmp_path))
    version = version_of("m", resources, group)
    await version.load()
    assert (version.state, version.ready, version.wanted) == (ModelState.FAILED, False, True)
    await asyncio.wait_for(version.until(ModelState.PREPARING), 5)
    assert not version.wanted, "nobody is evicted for it"
    assert not version.ready, "a try is no success: the alert would begin anew with each"
    await version.unload(0)
    assert version.ready, "the next request has it loaded"


@pytest.mark.parametrize("how", ["it leaves its lazy group", "its alias moves while it is evicted"])
async def test_the_successor_of_what_waits_for_a_request_is_loaded_where_it_is_eager(
    how: str, resources: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = {"name": "m", "uri": "./model"}
    load = "lazy" if "lazy" in how else "eager"
    before = Settings.model_validate({"groups": [{"name": "g", "load": load, "models": [entry]}]})
    after = Settings.model_validate({"models": [entry]})
    registry = Registry()
    found = Catalog(before, registry, resources, Sizes(tmp_path), lambda: after)
    if load == "lazy":
        await found.reload()
    else:
        (slot,) = found.slots.values()
        slot.version.load_on_demand()  # as an eviction leaves it
        found.roll(slot, slot.entry.model_copy(update={"version": "2"}), slot.version.group, how)
    await asyncio.wait_for(registry.find("m").until(ModelState.PREPARING), 5)
    await found.close(0)


async def test_what_an_eager_group_has_let_go_comes_back_by_a_request_whatever_is_reloaded_meanwhile(
    resources: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: Any, **keys: Any) -> Any:
        raise LoadError("it was tried")

    resources.prepare = fails
    group = Group(GroupSettings.model_validate({"name": "g", "models": []}), Sizes(tmp_path))
    version = version_of("m", resources, group)
    for state in UP:
        version._life.move(state)
    leaving = version.evict("evicted")
    group.reconfigure(group.settings)
    await leaving
    assert (version.state, version.ready) == (ModelState.UNLOADED, True)
    with pytest.raises(NotReady, match="it was tried"):
        await version.infer(InferRequest(0), b"")
    await version.unload(0)


async def test_metadata_that_no_server_gives_in_time_says_so(resources: Any) -> None:
    async def hangs(uri: str) -> str:
        await asyncio.Event().wait()
        return uri

    version = ModelVersion(ModelSettings(name="m", uri="models:/m/1", timeout=0.01), None, resources)
    about = Descriptions(Registry(), SimpleNamespace(metadata=hangs))  # type: ignore[arg-type]
    with pytest.raises(NotReady, match="cannot be read: no answer in time"):
        await about.metadata(version)


async def test_what_is_forgotten_leaves_nothing_in_its_group(resources: Any, tmp_path: Path) -> None:
    group = Group(GroupSettings.model_validate({"name": "g", "load": "lazy", "models": []}), Sizes(tmp_path))
    version = version_of("m", resources, group)
    async with group.room(version):
        await group.tick()  # it is measured while it loads, and then fails: it has no replicas
    gone = weakref.ref(version)
    group.forget(version)
    del version
    gc.collect()
    assert gone() is None


async def test_a_version_that_is_unloaded_before_it_was_loaded_says_who_did_it(resources: Any) -> None:
    version = version_of("m", resources)
    version.keep_unloaded()
    await version.unload(0, "unloaded by an operator")
    with pytest.raises(NotReady, match="is UNLOADED: unloaded by an operator"):
        await version.infer(InferRequest(0), b"")


async def test_what_was_removed_and_drains_does_not_count(resources: Any) -> None:
    registry = Registry(strict=True)
    removed, stays = version_of("removed", resources), version_of("stays", resources)
    for version in (removed, stays):
        registry.add(version)
        for state in UP:
            version._life.move(state)
    assert registry.readiness().ready
    removed.retire()
    removed._life.move(ModelState.DRAINING)
    assert (registry.readiness().ready, registry.readiness().reasons) == (True, {})
    stays.retire()
    assert registry.readiness().reasons == {"server": "no models are configured"}


@pytest.mark.parametrize("asked_before", [True, False])
@pytest.mark.parametrize("strict", [True, False])
async def test_readiness_after_a_failure_does_not_depend_on_who_asked_before(
    asked_before: bool, strict: bool, resources: Any, tmp_path: Path
) -> None:
    """Nobody need have asked while it was ready: that it was is noted when it becomes so."""
    entries = [{"name": name, "uri": "./model"} for name in ("m", "other")]
    registry = Registry(strict=strict)
    found = Catalog(Settings.model_validate({"models": entries}), registry, resources, Sizes(tmp_path))
    version, other = registry.find("m"), registry.find("other")
    assert not registry.readiness().ready
    for state in UP:
        version._life.move(state)
        other._life.move(state)
    if asked_before:
        assert registry.readiness().ready
    version._life.move(ModelState.FAILED, "it is broken")
    assert registry.readiness().ready is not strict
    assert registry.readiness().reasons == {"m/1": "FAILED: it is broken"}
    other._life.move(ModelState.FAILED, "it is broken, too")
    assert not registry.readiness().ready, "nothing is left that answers"
    await found.close(0)


async def test_a_version_that_does_not_end_does_not_keep_the_server(
    resources: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its fork server is stuck, say in an import: what comes after ends that."""

    class Stuck:
        name = "stuck"
        state, serves, ready = ModelState.READY, True, True

        async def unload(self, grace: float, reason: str) -> None:
            await asyncio.Event().wait()

    monkeypatch.setattr(catalog, "END_GRACE", 0.01)
    registry: Any = Registry()
    registry.add(Stuck())
    found = Catalog(Settings.model_validate({"models": []}), registry, resources, Sizes(tmp_path))
    await asyncio.wait_for(found.close(0.01), 5)
    assert "1 models do not end" in caplog.text
