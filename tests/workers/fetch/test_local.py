"""Models that a service loads by itself: in the cache that gateways have, by the same rules."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelhub.serving.protocol.digest import digest_of
from modelhub.serving.protocol.errors import ConfigError, LoadError
from modelhub.serving.protocol.model_cache import ModelCache
from modelhub.serving.workers import linux
from modelhub.serving.workers.fetch import local, mlflow
from modelhub.serving.workers.fetch.local import ensure_local

SOURCE = "s3://bucket/iris?token=abcdef#sha256=12"
NAMED = "s3://bucket/iris?token=***#sha256=12"


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """What is downloaded of one model, by this process itself."""
    done: list[str] = []

    def download(source: str, destination: str, progress: Callable[[int, int], None]) -> str:
        folder = Path(destination)
        (folder / "data").mkdir(parents=True)
        (folder / "MLmodel").write_text("flavors: {}\n")
        (folder / "data" / "weights").write_text("12345")
        done.append(source)
        return destination

    monkeypatch.setattr(linux, "tasks", lambda: 2)
    monkeypatch.setattr(mlflow, "resolve", lambda uri: ("7", SOURCE))
    monkeypatch.setattr(mlflow, "download", download)
    monkeypatch.setenv("MODELHUB_SERVER_STATE_DIR", str(tmp_path))
    return done


def let_go(cache: ModelCache, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The locks that are taken from now on, for the test to close."""
    held: list[int] = []
    hold = cache.hold

    def noted(self: ModelCache, key: str) -> int | None:
        lock = hold(key)
        if lock is not None:
            held.append(lock)
        return lock

    monkeypatch.setattr(ModelCache, "hold", noted)
    return held


def test_downloaded_once_read_only_and_kept_as_long_as_it_is_used(
    downloads: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ModelCache(str(tmp_path))
    held = let_go(cache, monkeypatch)
    found = ensure_local("s3://bucket/iris")
    assert ensure_local("s3://bucket/iris") == found
    assert downloads == [SOURCE]
    assert found == (cache.path(cache.key_of(NAMED)), "7"), "where a gateway, which sees no secret, looks for it"
    paths = [Path(found.path), *Path(found.path).rglob("*")]
    assert len(paths) == 4
    assert not [path for path in paths if stat.S_IMODE(path.stat().st_mode) & 0o222]
    record = json.loads((tmp_path / "artifacts" / ".index" / Path(found.path).name).read_text())
    assert record == {"source": NAMED, "version": "7", "bytes": 17, "digest": digest_of(found.path)}
    assert cache.prune(0, str) == 0
    for lock in held:
        try:
            os.close(lock)
        except OSError:
            continue  # of a look, closed since
    assert cache.prune(0, str) == 17
    assert not Path(found.path).exists()


def test_a_model_that_a_gateway_deletes_in_between_is_downloaded_again(
    downloads: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached: Any = local._cached
    cache = ModelCache(str(tmp_path))
    pruned: list[int] = []

    def and_pruned_once(*arguments: str) -> str:
        path: str = cached(*arguments)
        if not pruned:
            pruned.append(cache.prune(0, str))
        return path

    monkeypatch.setattr(local, "_cached", and_pruned_once)
    found = ensure_local("s3://bucket/iris")
    assert pruned == [17]
    assert downloads == [SOURCE, SOURCE]
    assert Path(found.path, "MLmodel").is_file()


def test_what_was_broken_off_is_done_again(downloads: list[str], tmp_path: Path) -> None:
    cache = ModelCache(str(tmp_path))
    key = cache.key_of(NAMED)
    for leftover in (cache.path(key), cache.part(key), cache.part(key) + ".part"):
        Path(leftover, "data").mkdir(parents=True)
        Path(leftover, "data").chmod(0o500)
    assert Path(ensure_local("s3://bucket/iris").path, "MLmodel").is_file()
    assert os.listdir(tmp_path / "artifacts" / ".part") == []


def test_a_cache_that_cannot_be_written(downloads: list[str], tmp_path: Path) -> None:
    (tmp_path / "artifacts").touch()
    with pytest.raises(LoadError, match="MODELHUB_SERVER_STATE_DIR is not usable"):
        ensure_local("s3://bucket/iris")
    assert downloads == []


def test_local_folders_are_used_in_place(tmp_path: Path) -> None:
    (tmp_path / "a b").mkdir()
    (tmp_path / "a b" / "MLmodel").touch()
    for uri in (str(tmp_path / "a b"), (tmp_path / "a b").as_uri()):
        assert ensure_local(uri) == (str(tmp_path / "a b"), "")
    with pytest.raises(LoadError, match="is no MLflow model"):
        ensure_local(str(tmp_path))
    with pytest.raises(ConfigError, match="on the host elsewhere"):
        ensure_local("file://elsewhere/a")
