"""Several versions of a name, and the models of a folder when it changes after the start."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from modelhub.serving.config.folders import own_models, scan, with_folder
from modelhub.serving.config.load import load
from modelhub.serving.config.settings import Settings
from modelhub.serving.protocol.errors import ConfigError

NO_VARIABLES: dict[str, str] = {"XDG_CACHE_HOME": "/nowhere"}


def loaded(folder: Path, text: str) -> Settings:
    file = folder / "models.yaml"
    file.write_text(text)
    return load(str(file), environ=NO_VARIABLES)


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).mkdir(parents=True)
        (folder / name / "MLmodel").write_text("flavors: {}")


def test_one_default_version_per_name(tmp_path: Path) -> None:
    entry = "  - {{name: iris, uri: 'models:/iris/{0}', default: {1}}}\n"
    both = "models:\n" + entry.format(1, "true") + entry.format(2, "true")
    with pytest.raises(
        ConfigError, match=r"yaml:3: models\[1\]\.default: iris has a default version already, at line 2"
    ):
        loaded(tmp_path, both)
    one = "models:\n" + entry.format(1, "true") + entry.format(2, "false")
    assert [entry.default for entry in loaded(tmp_path, one).models] == [True, False]


TEXT = """
defaults: {timeout: 7s, pythonpath: [./code]}
models: [{name: taken, uri: /somewhere}]
groups:
  - name: all
    load: lazy
    from: {folder: ./found}
    models: [{name: own, uri: ./elsewhere, pinned: true}, {name: b, uri: ./found/b, timeout: 9s}]
"""


def test_a_folder_that_changed_gives_what_a_start_would_have_given(tmp_path: Path) -> None:
    put(tmp_path / "found", "a", "b")
    before = loaded(tmp_path, TEXT)
    put(tmp_path / "found", "c", "taken", "not a name")
    (tmp_path / "found" / "a" / "MLmodel").unlink()
    settings, unusable = with_folder(before, "all", scan(str(tmp_path / "found")))
    assert sorted(unusable) == ["not a name", "taken"]
    (group,) = settings.groups
    assert [(model.name, model.timeout, model.pinned) for model in group.models] == [
        ("own", 7, True),
        ("b", 9, False),
        ("c", 7, False),
    ]
    assert group.models[2].pythonpath == (str(tmp_path / "code"),)
    assert [model.name for model in own_models(group, settings.defaults)] == ["own", "b"]
    os.rename(tmp_path / "found" / "not a name", tmp_path / "hidden")
    os.rename(tmp_path / "found" / "taken", tmp_path / "hidden too")
    assert loaded(tmp_path, TEXT).groups == settings.groups


def test_a_model_that_is_put_there_anew_is_seen(tmp_path: Path) -> None:
    put(tmp_path, "a", "b")
    (tmp_path / "c").mkdir()
    before = scan(str(tmp_path))
    assert set(before) == {"a", "b"}
    (tmp_path / "new").write_text("flavors: {}")
    os.replace(tmp_path / "new", tmp_path / "a" / "MLmodel")
    after = scan(str(tmp_path))
    assert (after["a"] != before["a"], after["b"] == before["b"]) == (True, True)
    with pytest.raises(OSError, match="nowhere"):
        scan(str(tmp_path / "nowhere"))
