"""The cache of models on disk: one download per content, shared by gateways, pruned but never under a user."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from modelhub.serving.gateway.artifacts.fetcher import Fetcher, Resolved
from modelhub.serving.gateway.artifacts.store import ArtifactStore
from modelhub.serving.gateway.artifacts.uris import local_source
from modelhub.serving.protocol.errors import LoadError, NotFound
from support.processes import until

remote = pytest.mark.asyncio(loop_scope="module")
ROOMY = 1 << 40


class Watch:
    """A progress callback that remembers whether anything was downloaded."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, int]] = []

    def __call__(self, done: int, total: int) -> None:
        self.calls.append((done, total))


def cached(state_dir: Path) -> set[Path]:
    return {path for path in (state_dir / "artifacts").iterdir() if not path.name.startswith(".")}


# ---- local models ----------------------------------------------------------------------------------


async def test_a_local_model_is_used_in_place(models: Path, tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "state", ROOMY, Fetcher(pytest.fail))
    with await store.ensure((models / "iris").as_uri()) as artifact:
        assert artifact.path == models / "iris"
        assert artifact.version == ""
        assert artifact.source == await asyncio.to_thread(local_source, models / "iris")
    assert not (tmp_path / "state").exists()


async def test_a_relative_path(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(models)
    with await ArtifactStore(tmp_path, ROOMY, Fetcher(pytest.fail)).ensure("./iris") as artifact:
        assert artifact.path == models / "iris"


async def test_local_places_that_hold_no_model(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path, ROOMY, Fetcher(pytest.fail))
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for name, says in {"nothing": "there is no folder", "file": "is a file", "folder": "has no file MLmodel"}.items():
        with pytest.raises(NotFound, match=says) as caught:
            await store.ensure(str(tmp_path / name))
        assert str(tmp_path / name) in caught.value.message


# ---- remote models ---------------------------------------------------------------------------------


@remote
async def test_fetched_twice_downloaded_once(fetcher: Fetcher, logged: Any, tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path, ROOMY, fetcher)
    first, again = Watch(), Watch()
    with await store.ensure("models:/echo@champion", first) as artifact:
        assert artifact.version == "1"
        assert artifact.source.startswith("models:/echo/1#")
        assert (artifact.path / "artifacts" / "weights.bin").stat().st_size == 3_000_000
        with await store.ensure("models:/echo/1", again) as same:
            assert (same.path, same.source) == (artifact.path, artifact.source)
    assert first.calls
    assert not again.calls
    assert cached(tmp_path) == {artifact.path}


@remote
async def test_a_caller_that_is_cancelled_while_it_takes_hold_holds_nothing(
    fetcher: Fetcher, logged: Any, tmp_path: Path
) -> None:
    store = ArtifactStore(tmp_path, 1, fetcher)
    (await store.ensure("models:/echo/1")).release()
    asking = threading.Event()
    hold = store._cache.hold

    def slowly(key: str) -> int | None:
        found = hold(key)
        asking.set()
        threading.Event().wait(0.1)
        return found

    store._cache.hold = slowly  # type: ignore[method-assign]
    caller = asyncio.create_task(store.ensure("models:/echo/1"))
    await asyncio.to_thread(asking.wait)
    caller.cancel()
    await asyncio.wait({caller})
    await asyncio.to_thread(until, lambda: not (cached(tmp_path) and store._cache.prune(1, str) == 0), 5)
    assert cached(tmp_path) == set(), "nothing holds it any more"


@remote
async def test_what_was_downloaded_is_read_only_until_it_is_pruned(
    fetcher: Fetcher, logged: Any, tmp_path: Path
) -> None:
    store = ArtifactStore(tmp_path, 1, fetcher)
    with await store.ensure("models:/echo/1") as artifact:
        found = [artifact.path, *artifact.path.rglob("*")]
        assert len(found) > 3
        assert not [path for path in found if path.stat().st_mode & 0o222]
    assert await store.prune() > 3_000_000
    assert cached(tmp_path) == set()


@remote
async def test_wanted_by_many_at_once_downloaded_once(fetcher: Fetcher, logged: Any, tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path, ROOMY, fetcher)
    watches = [Watch() for _ in range(5)]
    artifacts = await asyncio.gather(*(store.ensure("models:/echo/1", watch) for watch in watches))
    assert len({artifact.path for artifact in artifacts}) == 1
    assert len({tuple(watch.calls) for watch in watches}) == 1  # one download, seen by all
    for artifact in artifacts:
        artifact.release()


@remote
async def test_a_download_outlives_the_request_that_caused_it(fetcher: Fetcher, logged: Any, tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path, ROOMY, fetcher)
    begun = asyncio.Event()
    impatient = asyncio.create_task(store.ensure("models:/echo/1", lambda done, total: begun.set()))
    await begun.wait()
    impatient.cancel()
    patient = Watch()
    with await store.ensure("models:/echo/1", patient):
        pass
    assert not [done for done, _ in patient.calls if done == 0]  # it joined what had begun, or found it done


@remote
async def test_the_least_recently_used_models_go_first(fetcher: Fetcher, logged: Any, tmp_path: Path) -> None:
    lines: list[str] = []
    store = ArtifactStore(tmp_path, 7_000_000, fetcher, lines.append)  # two models of 3 MB
    paths = {}
    for uri in ("models:/echo/1", "models:/echo/2", "models:/echo/1", f"models:/{logged.model_2}"):
        with await store.ensure(uri) as artifact:
            paths[uri] = artifact.path
    assert cached(tmp_path) == {paths["models:/echo/1"], paths[f"models:/{logged.model_2}"]}
    assert len(lines) == 1
    assert paths["models:/echo/2"].name in lines[0]


@remote
async def test_models_in_use_stay_whatever_the_limit(fetcher: Fetcher, logged: Any, tmp_path: Path) -> None:
    store, neighbour = ArtifactStore(tmp_path, 1, fetcher), ArtifactStore(tmp_path, 1, fetcher)
    one = await store.ensure("models:/echo/1")
    one_again = await store.ensure("models:/echo/1")
    two = await neighbour.ensure("models:/echo/2")
    assert cached(tmp_path) == {one.path, two.path}
    one.release()
    one.release()
    assert await store.prune() == 0
    one_again.release()
    assert await neighbour.prune() > 3_000_000
    assert cached(tmp_path) == {two.path}
    two.release()
    await store.prune()
    assert cached(tmp_path) == set()


@remote
async def test_what_a_killed_gateway_left_half_done_is_done_again(
    fetcher: Fetcher, logged: Any, tmp_path: Path
) -> None:
    store = ArtifactStore(tmp_path, ROOMY, fetcher)
    with await store.ensure("models:/echo/1") as artifact:
        path = artifact.path
    (path / "MLmodel").unlink()
    for leftover in (path.parent / ".part" / path.name, path.parent / ".part" / f"{path.name}.part"):
        leftover.mkdir()
        (leftover / "weights.bin").touch()
    (path.parent / ".index" / path.name).write_text('{"bytes"')
    with await store.ensure("models:/echo/1") as artifact:
        assert (path / "MLmodel").is_file()
    assert list((path.parent / ".part").iterdir()) == []
    assert json.loads((path.parent / ".index" / path.name).read_bytes())["bytes"] > 3_000_000


@remote
async def test_a_failed_download_leaves_nothing(fetcher: Fetcher, logged: Any, tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path, ROOMY, fetcher)
    with pytest.raises(NotFound):
        await store.ensure("models:/echo/77")
    assert not (tmp_path / "artifacts").exists() or cached(tmp_path) == set()


@remote
async def test_a_state_directory_that_cannot_be_written(fetcher: Fetcher, logged: Any, tmp_path: Path) -> None:
    (tmp_path / "artifacts").touch()
    with pytest.raises(LoadError, match=r"server\.state_dir"):
        await ArtifactStore(tmp_path, ROOMY, fetcher).ensure("models:/echo/1")


class Source:
    """A fetcher of one small model, `models:/x/<anything>`."""

    registry = "here"

    async def resolve(self, uri: str) -> Resolved:
        return Resolved(uri=uri, version="1", source=uri)

    async def fetch(self, uri: str, destination: Path, progress: Any) -> Path:
        await asyncio.to_thread(destination.mkdir)
        await asyncio.to_thread((destination / "MLmodel").write_text, "flavors: {}\n")
        return destination


async def test_a_caller_that_is_cancelled_while_the_cache_is_pruned_holds_nothing(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path, 1, Source())  # type: ignore[arg-type]
    prune, pruning = store.prune, asyncio.Event()

    async def slowly() -> int:
        pruning.set()
        return await asyncio.Event().wait()

    store.prune = slowly  # type: ignore[method-assign]
    caller = asyncio.create_task(store.ensure("models:/x/1"))
    await pruning.wait()
    caller.cancel()
    await asyncio.wait({caller})
    assert len(cached(tmp_path)) == 1
    await prune()
    assert cached(tmp_path) == set()


@pytest.mark.allow_blocking
async def test_a_download_that_was_broken_off_goes_with_the_next(tmp_path: Path) -> None:
    """Whatever that brings; one that is under way, of another gateway, stays."""
    store = ArtifactStore(tmp_path, ROOMY, Source())  # type: ignore[arg-type]
    parts = tmp_path / "artifacts" / ".part"
    for name in ("left", "busy.part", "left-too.part"):
        (parts / name).mkdir(parents=True)
    busy = store._cache.lock("busy")
    assert busy is not None
    (await store.ensure("models:/x/1")).release()
    assert [part.name for part in parts.iterdir()] == ["busy.part"]
    os.close(busy)


RACER = """
import asyncio, sys
from pathlib import Path
from modelhub.serving.gateway.artifacts.store import ArtifactStore
from modelhub.serving.gateway.artifacts.fetcher import Fetcher

async def main():
    fetcher = Fetcher(lambda line: None)
    store = ArtifactStore(Path(sys.argv[1]), 1 << 40, fetcher)
    await fetcher.resolve("models:/echo/1")
    print("warm", flush=True)
    sys.stdin.readline()
    calls = []
    artifact = await store.ensure("models:/echo/1", lambda *numbers: calls.append(numbers))
    print(artifact.path, (artifact.path / "artifacts" / "weights.bin").stat().st_size, bool(calls), flush=True)
    await fetcher.close()

asyncio.run(main())
"""


def test_two_gateways_race_on_one_cache(mlflow_server: str, logged: Any, tmp_path: Path) -> None:
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "MLFLOW_TRACKING_URI": mlflow_server},
        )
        for _ in range(2)
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "warm\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    answers = [racer.communicate(timeout=60)[0].split() for racer in racers]
    assert [racer.returncode for racer in racers] == [0, 0]
    assert answers[0][:2] == answers[1][:2] == [str(*cached(tmp_path)), "3000000"]
    assert sorted(answer[2] for answer in answers) == ["False", "True"]
