"""The cache while the registry is away: what never moves is used unasked, what may move as it was known last."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from modelhub.serving.gateway.artifacts import store as module
from modelhub.serving.gateway.artifacts.fetcher import Fetcher, Resolved
from modelhub.serving.gateway.artifacts.known import never_moves
from modelhub.serving.gateway.artifacts.reach import answers
from modelhub.serving.gateway.artifacts.store import ArtifactStore
from modelhub.serving.protocol.errors import LoadError, NotFound, NotReady

ROOMY = 1 << 40
pytestmark = pytest.mark.allow_blocking


class Registry:
    """A fetcher whose registry answers, says why not, or never says anything."""

    registry = "here"

    def __init__(self, *, problem: Exception | None = None, silent: bool = False, there: bool = False) -> None:
        self.problem, self.silent, self.there = problem, silent, there
        self.version = "1"
        self.asked = self.fetched = 0

    async def resolve(self, uri: str) -> Resolved:
        self.asked += 1
        if self.silent:
            await asyncio.Event().wait()
        if self.problem is not None:
            raise self.problem
        return Resolved(uri=uri, version=self.version, source=f"models:/x/{self.version}#sha256=1")

    async def registry_answers(self, seconds: float) -> bool:
        return self.there

    async def metadata(self, uri: str) -> str:
        raise NotReady("nobody is there")

    async def fetch(self, uri: str, destination: Path, progress: Any) -> Path:
        self.fetched += 1
        if self.problem is not None:
            raise self.problem
        await asyncio.to_thread(fill, destination)
        return destination


def fill(folder: Path) -> None:
    folder.mkdir()
    (folder / "MLmodel").write_text("flavors: {}\n")
    (folder / "weights").write_bytes(b"right")


def store_of(folder: Path, registry: Registry) -> ArtifactStore:
    return ArtifactStore(folder, ROOMY, registry)  # type: ignore[arg-type]


async def known(folder: Path, *uris: str) -> None:
    for uri in uris:
        (await store_of(folder, Registry()).ensure(uri)).release()


@pytest.mark.parametrize("uri", ["models:/x/3", "models:///x/3", "models:/m-12ab", "runs:/12ab/model"])
async def test_what_never_moves_is_used_without_a_question(uri: str, tmp_path: Path) -> None:
    await known(tmp_path, uri)
    registry = Registry(silent=True)
    store = store_of(tmp_path, registry)
    with await asyncio.wait_for(store.ensure(uri), 5) as artifact:
        assert (artifact.version, artifact.stale) == ("1", "")
    assert await store.metadata(uri) == "flavors: {}\n"
    assert registry.asked == registry.fetched == 0


def test_what_never_moves() -> None:
    assert not [
        uri for uri in ("models:/x@live", "models:/x/latest", "models:/x/Production", "s3://b/m") if never_moves(uri)
    ]


@pytest.mark.parametrize(
    ("registry", "why"),
    [
        (Registry(problem=NotReady("it cannot be reached")), "it cannot be reached"),
        (Registry(silent=True), "the registry does not answer"),
        (Registry(silent=True, there=True), "the registry does not answer"),
    ],
)
async def test_an_alias_is_what_it_was_last_and_says_so(
    registry: Registry, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.01)
    monkeypatch.setattr(module, "SLOW_REGISTRY", 0.01)
    await known(tmp_path, "models:/x@live")
    store = store_of(tmp_path, registry)
    with await asyncio.wait_for(store.ensure("models:/x@live"), 5) as artifact:
        assert (artifact.version, artifact.stale) == ("1", why)
    assert await store.metadata("models:/x@live") == "flavors: {}\n"


async def test_an_alias_that_is_gone_is_gone(tmp_path: Path) -> None:
    await known(tmp_path, "models:/x@live")
    with pytest.raises(NotFound):
        await store_of(tmp_path, Registry(problem=NotFound("no alias"))).ensure("models:/x@live")


async def test_another_registry_means_something_else_by_the_same_uri(tmp_path: Path) -> None:
    await known(tmp_path, "models:/x/3")
    other = Registry(problem=NotReady("it cannot be reached"))
    other.registry = "elsewhere"
    with pytest.raises(NotReady):
        await store_of(tmp_path, other).ensure("models:/x/3")


async def test_a_slow_registry_that_is_there_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its answer may be another version than the last."""
    monkeypatch.setattr(module, "PATIENCE", 0.01)
    await known(tmp_path, "models:/x@live")
    registry = Registry(there=True)
    resolve, registry.version = registry.resolve, "2"

    async def slowly(uri: str) -> Resolved:
        await asyncio.sleep(0.1)
        return await resolve(uri)

    registry.resolve = slowly  # type: ignore[method-assign]
    with await store_of(tmp_path, registry).ensure("models:/x@live") as artifact:
        assert (artifact.version, artifact.stale) == ("2", "")


async def test_a_wrong_byte_of_the_right_size_is_found_and_fetched_anew(tmp_path: Path) -> None:
    registry = Registry()
    store = store_of(tmp_path, registry)
    with await store.ensure("models:/x/1") as artifact, await store.ensure("models:/x/1"):
        weights = artifact.path / "weights"
        assert not await artifact.mend(), "it is as it was fetched"
        weights.chmod(0o600)
        weights.write_bytes(b"wrong")
        with weights.open("rb") as reading:
            assert await artifact.mend()
            assert reading.read() == b"wrong", "who reads the old one goes on reading it"
        assert weights.read_bytes() == b"right"
        assert not weights.stat().st_mode & 0o222
        weights.unlink()
        assert await artifact.mend()
        assert not await artifact.mend()
        assert registry.fetched == 3
        assert [path.name for path in (tmp_path / "artifacts" / ".part").iterdir()] == []
        registry.problem = LoadError("nobody is there")
        weights.unlink()
        with pytest.raises(LoadError, match="nobody is there"):
            await artifact.mend()


async def test_files_are_fetched_anew_when_that_is_asked_for(tmp_path: Path) -> None:
    registry = Registry()
    store = store_of(tmp_path, registry)
    with await store.ensure("models:/x/1") as artifact:
        (artifact.path / "weights").unlink()
        with await store.ensure("models:/x/1", anew=True) as again:
            assert (again.path / "weights").read_bytes() == b"right"
    assert registry.fetched == 2


async def test_whether_the_registry_is_there() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 405 No\r\n\r\n")
        writer.close()

    async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    found = []
    for handler in (answer, silence):
        server = await asyncio.start_server(handler, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        found.append(await answers({"MLFLOW_TRACKING_URI": url}, 1.0 if handler is answer else 0.1))
        server.close()
    assert found == [True, False]
    assert not await answers({"MLFLOW_TRACKING_URI": url}, 1.0), "nobody listens any more"
    assert await answers({}, 0), "a folder"
    assert (
        Fetcher(print, environment={"MLFLOW_TRACKING_URI": "http://me:secret@host"}).registry.strip() == "http://host"
    )
