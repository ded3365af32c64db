"""The fetcher process against a real MLflow server: every kind of URI, errors, downloads."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Any

import pytest

from modelhub.serving.gateway.artifacts.fetcher import Fetcher
from modelhub.serving.gateway.artifacts.mlmodel import mlmodel_of
from modelhub.serving.protocol.errors import ConfigError, LoadError, NotFound, NotReady
from support.modelhub_server import unused_address

pytestmark = pytest.mark.asyncio(loop_scope="module")

HASH = "#sha256=[0-9a-f]{32}"
WEIGHTS = 3_000_000


@pytest.mark.parametrize(
    ("uri", "version", "pinned"),
    [
        ("models:/echo/1", "1", "models:/echo/1"),
        ("models:/echo/2/", "2", "models:/echo/2"),
        ("models:/echo@champion", "1", "models:/echo/1"),
        ("models:/echo/latest", "2", "models:/echo/2"),
        ("models:/{model_1}", "", "models:/{model_1}"),
        ("runs:/{run_2}/model", "", "models:/{model_2}"),
        ("runs:/{old_run}/nested/model", "", "runs:/{old_run}/nested/model"),
        ("{old_artifacts}", "", "{old_artifacts}"),
    ],
)
async def test_what_a_uri_means(fetcher: Fetcher, logged: Any, uri: str, version: str, pinned: str) -> None:
    uri, pinned = uri.format(**vars(logged)), pinned.format(**vars(logged))
    found = await fetcher.resolve(uri)
    assert (found.uri, found.version, found.error) == (uri, version, "")
    assert re.fullmatch(re.escape(pinned) + HASH, found.source)


async def test_a_stage(fetcher: Fetcher, logged: Any) -> None:
    assert (await fetcher.resolve("models:/echo/None")).version == "2"


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("models:/echo/77", "version=77"),
        ("models:/nobody/1", "name=nobody"),
        ("models:/nobody/latest", "name=nobody"),
        ("models:/nobody@x", "name=nobody"),
        ("models:/no_versions/latest", "no_versions has no version"),
        ("models:/echo/Production", "echo has no version in stage Production"),
        ("models:/echo@nobody", "alias nobody not found"),
        ("models:/m-0123", "m-0123"),
        ("runs:/0123/model", "id=0123"),
        ("runs:/{run_1}/other", "no file MLmodel"),
        ("runs:/{run_1}/no_model", "no file MLmodel"),
        ("mlflow-artifacts:/0/nothing/here", "no file MLmodel"),
    ],
)
async def test_what_does_not_exist(fetcher: Fetcher, logged: Any, mlflow_server: str, uri: str, says: str) -> None:
    uri = uri.format(**vars(logged))
    with pytest.raises(NotFound, match=says) as caught:
        await fetcher.resolve(uri)
    assert uri in caught.value.message
    assert f"the tracking server {mlflow_server}" in caught.value.message
    assert "hunter22" not in caught.value.message


@pytest.mark.parametrize(
    "uri",
    [
        "models:/",
        "models:echo/1",
        "models:/echo",
        "models:/a/b/c",
        "models:/echo@",
        "models:/@x",
        "runs:/0123",
        "gopher://me:hunter22@x/y",
    ],
)
async def test_what_is_no_model_uri(fetcher: Fetcher, uri: str) -> None:
    with pytest.raises(ConfigError) as caught:
        await fetcher.resolve(uri)
    assert "hunter22" not in caught.value.message


async def test_a_store_whose_library_is_missing(fetcher: Fetcher) -> None:
    with pytest.raises(LoadError, match="Python package boto3"):
        await fetcher.resolve("s3://bucket/model")


async def test_only_the_mlmodel(fetcher: Fetcher, logged: Any) -> None:
    text = await fetcher.metadata("models:/echo@champion")
    assert mlmodel_of(text, "echo").document["model_id"] == logged.model_1
    source = (await fetcher.resolve("models:/echo/1")).source
    assert source.endswith("#sha256=" + hashlib.sha256(text.encode()).hexdigest()[:32])
    assert await fetcher.metadata(source) == text


@pytest.mark.usefixtures("logged")
async def test_aliases_of_many_models_in_one_call(fetcher: Fetcher) -> None:
    known = {"champion": "1", "latest": "2"}
    assert await fetcher.search(["echo", "nobody"]) == {"echo": known}
    many = ["echo", "no_versions", *(f"nobody-{number}" for number in range(20))]
    assert await fetcher.search(many) == {"echo": known, "no_versions": {}}


async def test_a_download_reports_progress(fetcher: Fetcher, logged: Any, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    path = await fetcher.fetch("models:/echo/2", tmp_path / "echo", lambda *numbers: seen.append(numbers))
    assert path == tmp_path / "echo"
    assert (path / "artifacts" / "weights.bin").read_bytes() == b"\x02" * WEIGHTS
    assert os.listdir(tmp_path) == ["echo"]
    total = seen[0][1]
    assert total > WEIGHTS
    assert seen[0] == (0, total)
    assert seen[-1] == (total, total)
    assert seen == sorted(seen)


async def test_a_source_is_fetched_whatever_its_alias_means_by_now(
    fetcher: Fetcher, logged: Any, tmp_path: Path
) -> None:
    source = (await fetcher.resolve("models:/echo@champion")).source
    path = await fetcher.fetch(source, tmp_path / "echo")
    assert (path / "artifacts" / "weights.bin").read_bytes()[:1] == b"\x01"


async def test_a_source_that_changed_is_not_taken(fetcher: Fetcher, logged: Any, tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="changed while it was downloaded"):
        await fetcher.fetch("models:/echo/1#sha256=" + "0" * 32, tmp_path / "echo")
    assert os.listdir(tmp_path) == []


async def test_a_destination_that_cannot_be_written(fetcher: Fetcher, logged: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LoadError, match=r"models:/echo/1 could not be read: .*Not a directory"):
        await fetcher.fetch("models:/echo/1", tmp_path / "file" / "echo")


async def test_nobody_at_the_tracking_uri() -> None:
    closed_address = unused_address()
    environment = {
        **os.environ,
        "MLFLOW_TRACKING_URI": closed_address.replace("://", "://me:hunter22@"),
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    }
    fetcher = Fetcher(lambda line: None, environment=environment)
    try:
        with pytest.raises(NotReady, match=f"{closed_address} cannot be reached .*MLFLOW_TRACKING_URI") as caught:
            await fetcher.resolve("models:/echo/1")
    finally:
        await fetcher.close()
    assert caught.value.retry_after
    assert "hunter22" not in caught.value.message
