"""What a model URI means on this machine."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelhub.serving.gateway.artifacts.uris import local_path, local_source
from modelhub.serving.protocol.errors import ConfigError


@given(st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=40))
def test_a_file_uri_means_the_folder_that_it_was_made_from(name: str) -> None:
    folder = Path(os.path.abspath(f"/models/{name}"))
    assert local_path(folder.as_uri()) == folder
    assert local_path(str(folder)) == folder


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("file:/a/b%20c", "/a/b c"),
        ("file:///a/b%20c", "/a/b c"),
        ("file://localhost/a", "/a"),
        ("FILE:/a", "/a"),
        ("/a/b%20c", "/a/b%20c"),
        ("/a/../b", "/b"),
        ("c:/a", "c:/a"),
    ],
)
def test_local_paths(uri: str, path: str) -> None:
    assert local_path(uri) == Path(path)


def test_relative_paths_and_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert local_path("models/iris") == local_path("file:./models/iris") == Path("models/iris")
    assert local_path("~/iris") == Path("/home/somebody/iris")


@pytest.mark.parametrize("uri", ["models:/a/1", "runs:/1/m", "s3://b/k", "mlflow-artifacts:/1", "dbfs:/x"])
def test_what_must_be_fetched(uri: str) -> None:
    assert local_path(uri) is None


def test_files_of_other_hosts() -> None:
    with pytest.raises(ConfigError, match="on the host elsewhere"):
        local_path("file://elsewhere/models/iris")


def test_the_source_changes_with_the_model(models: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(models / "iris", model)
    before = local_source(model)
    with (model / "MLmodel").open("a") as file:
        file.write("\nmetadata: {tuned: true}\n")
    assert local_source(model) != before
