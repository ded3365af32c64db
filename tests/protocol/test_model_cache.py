"""The cache of downloaded models: what a record says, what takes another's place, what is left of downloads."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from modelhub.serving.protocol.model_cache import ModelCache

KEY = ModelCache.key_of("models:/x/1")


@pytest.fixture
def cache(tmp_path: Path) -> ModelCache:
    found = ModelCache(str(tmp_path))
    fill(found, KEY)
    lock = found.lock(KEY)
    assert lock is not None
    found.publish(KEY, lock, "models:/x/1", "1")
    os.close(lock)
    return found


def fill(cache: ModelCache, key: str, weights: bytes = b"right") -> None:
    """As a download does."""
    cache.clear_part(key)
    folder = Path(cache.part(key))
    (folder / "data").mkdir(parents=True)
    (folder / "MLmodel").write_text("flavors: {}\n")
    (folder / "data" / "weights").write_bytes(weights)


def parts(cache: ModelCache) -> list[str]:
    return os.listdir(os.path.join(cache.root, ".part"))


def test_a_record_tells_a_changed_byte_a_missing_file_and_one_more(cache: ModelCache) -> None:
    weights = Path(cache.path(KEY), "data", "weights")
    assert cache.is_unchanged(KEY)
    weights.chmod(0o600)
    weights.write_bytes(b"wrong")
    assert not cache.is_unchanged(KEY)
    weights.write_bytes(b"right")
    assert cache.is_unchanged(KEY)
    weights.parent.chmod(0o700)
    more = weights.with_name("more")
    more.touch()
    assert not cache.is_unchanged(KEY)
    more.unlink()
    weights.unlink()
    assert not cache.is_unchanged(KEY)


def test_a_record_without_a_digest_knows_of_no_change(cache: ModelCache) -> None:
    Path(cache.root, ".index", KEY).write_text(json.dumps({"source": "models:/x/1", "version": "1", "bytes": 1}))
    assert cache.is_unchanged(KEY)


def test_a_model_is_replaced_while_it_is_read_and_is_read_only_again(cache: ModelCache) -> None:
    reader, lock = cache.hold(KEY), cache.share(KEY)
    assert reader is not None
    assert lock is not None
    fill(cache, cache.beside(KEY), b"newer")
    weights = Path(cache.path(KEY), "data", "weights")
    with weights.open("rb") as reading:
        cache.replace(KEY, lock, "models:/x/1", "1")
        assert reading.read() == b"right"
    assert weights.read_bytes() == b"newer"
    assert not any(path.stat().st_mode & 0o222 for path in (weights, weights.parent, weights.parent.parent))
    assert cache.is_unchanged(KEY)
    assert parts(cache) == []
    os.close(reader)
    os.close(lock)
    assert cache.prune(0, print) > 0
    assert not cache.is_whole(KEY)


def test_who_replaces_waits_for_who_writes_or_deletes(cache: ModelCache) -> None:
    writer = cache.lock(KEY)
    assert writer is not None
    assert cache.share(KEY) is None
    os.close(writer)
    lock = cache.share(KEY)
    assert lock is not None
    assert cache.lock(KEY) is None
    os.close(lock)


@pytest.mark.parametrize("ending", ["", ".part", ".old"])
@pytest.mark.parametrize("beside", [False, True])
def test_what_is_left_of_any_download_goes_unless_it_is_under_way(cache: ModelCache, beside: bool, ending: str) -> None:
    key = cache.beside(KEY) if beside else KEY
    fill(cache, key)
    os.rename(cache.part(key), cache.part(key) + ending)
    under_way = cache.lock(key)
    assert under_way is not None
    cache.prune(1 << 40, print)
    assert parts(cache) == [key + ending]
    os.close(under_way)
    cache.prune(1 << 40, print)
    assert parts(cache) == []
    assert cache.is_whole(KEY)
