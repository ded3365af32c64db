"""A store's folders: found only when whole, kept while in use, pruned when unused."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from modelhub.serving.gateway.environments.store import Finished, Store
from modelhub.serving.protocol.errors import LoadError

DAY = 86400.0
USER = """
import sys
from pathlib import Path
from modelhub.serving.gateway.environments.store import Store
found = Store(Path(sys.argv[1])).find("a")
print(found is not None, flush=True)
sys.stdin.read()
"""


async def fill(folder: Path) -> dict[str, Any]:
    await asyncio.to_thread(folder.mkdir)
    await asyncio.to_thread((folder / "content").write_text, "whole")
    return {"note": "made"}


def unexpected() -> None:
    raise AssertionError("nobody else builds here")


async def made(store: Store, key: str = "a") -> Finished:
    return await store.build(key, fill, unexpected)


def age(store: Store, key: str, days: float) -> None:
    path = store.root / key / ".used"
    then = path.stat().st_mtime - days * DAY
    os.utime(path, (then, then))


def names(store: Store) -> list[str]:
    return sorted(path.name for path in store.root.iterdir() if path.name != ".locks")


def test_what_is_built_is_found_with_its_facts_by_every_store(tmp_path: Path) -> None:
    built = asyncio.run(made(Store(tmp_path / "s")))
    assert (built.facts, (built.path / "content").read_text()) == ({"note": "made"}, "whole")
    other = Store(tmp_path / "s")
    assert other.find("a") is not None
    assert other.find("b") is None
    assert [found.key for found in other.finished()] == ["a"]


async def test_a_failed_build_leaves_nothing_and_the_next_one_works(tmp_path: Path) -> None:
    store = Store(tmp_path)

    async def fail(folder: Path) -> dict[str, Any]:
        await fill(folder)
        raise OSError(28, "No space left on device")

    with pytest.raises(LoadError, match=r"No space left on device\. Make room there, or set `server.state_dir`"):
        await store.build("a", fail, unexpected)
    assert names(store) == []
    await made(store)
    assert names(store) == ["a"]


@pytest.mark.parametrize("missing", [".complete", ".used"])
def test_a_folder_that_is_not_whole_is_no_folder_and_is_replaced(tmp_path: Path, missing: str) -> None:
    store = Store(tmp_path)
    built = asyncio.run(made(store))
    (built.path / "content").write_text("half")
    (built.path / missing).unlink()
    assert store.find("a") is None
    assert store.finished() == []
    again = asyncio.run(made(store))
    assert (again.path / "content").read_text() == "whole"
    assert names(store) == ["a"]


def test_leftovers_of_every_key_are_removed_by_the_next_builder_but_not_those_being_built(tmp_path: Path) -> None:
    store = Store(tmp_path)

    async def main() -> None:
        for name in (".build~a~1-dead", ".build~b~1-dead", ".trash~c~1-dead"):
            await fill(tmp_path / name)
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def slow(folder: Path) -> dict[str, Any]:
            begun.set()
            await go_on.wait()
            return await fill(folder)

        building = asyncio.create_task(store.build("b", slow, unexpected))
        await begun.wait()
        await asyncio.to_thread((tmp_path / ".build~b~2-live").mkdir)
        await made(store)
        assert await asyncio.to_thread(names, store) == [".build~b~2-live", "a"]
        go_on.set()
        await building

    (tmp_path / ".locks").mkdir()
    (tmp_path / ".locks" / "c").touch()
    asyncio.run(main())


async def test_a_second_builder_waits_says_so_and_takes_what_the_first_one_made(tmp_path: Path) -> None:
    first, second = Store(tmp_path), Store(tmp_path)
    begun, waits = asyncio.Event(), asyncio.Event()

    async def slow(folder: Path) -> dict[str, Any]:
        begun.set()
        await waits.wait()
        return await fill(folder)

    async def never(folder: Path) -> dict[str, Any]:
        raise AssertionError("built twice")

    building = asyncio.create_task(first.build("a", slow, unexpected))
    await begun.wait()
    assert (await second.build("a", never, waits.set)).facts == (await building).facts


def test_pruning_removes_what_was_not_used_for_so_long(tmp_path: Path) -> None:
    for key, days in (("old", 31), ("new", 1)):
        store = Store(tmp_path)
        asyncio.run(made(store, key))
        store.close()
        age(store, key, days)
    store = Store(tmp_path)
    removed, in_use = store.prune(30 * DAY, dry_run=True)
    assert ([found.key for found in removed], in_use, names(store)) == (["old"], [], ["new", "old"])
    removed, _ = store.prune(30 * DAY)
    assert ([found.key for found in removed], names(store)) == (["old"], ["new"])


def test_finding_counts_as_use(tmp_path: Path) -> None:
    store = Store(tmp_path)
    asyncio.run(made(store))
    age(store, "a", 31)
    assert store.find("a") is not None
    store.close()
    assert store.prune(30 * DAY) == ([], [])


def test_what_a_running_process_uses_is_kept_until_it_ends(tmp_path: Path) -> None:
    store = Store(tmp_path)
    asyncio.run(made(store))
    store.close()
    command = [sys.executable, "-c", USER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as user:
        assert user.stdout is not None
        assert user.stdout.readline() == "True\n"
        age(store, "a", 31)
        removed, in_use = store.prune(30 * DAY)
        assert (removed, [found.key for found in in_use]) == ([], ["a"])
        user.communicate()
    removed, in_use = store.prune(30 * DAY)
    assert ([found.key for found in removed], in_use, names(store)) == (["a"], [], [])
    assert store.find("a") is None


def test_finding_again_and_again_holds_one_descriptor(tmp_path: Path) -> None:
    store = Store(tmp_path)
    asyncio.run(made(store))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        assert store.find("a") is not None
    assert len(os.listdir("/proc/self/fd")) == before
    store.close()
    assert len(os.listdir("/proc/self/fd")) == before - 1


def test_pruning_nothing_is_nothing(tmp_path: Path) -> None:
    assert Store(tmp_path / "missing").prune(0) == ([], [])
