"""Reading MLmodel files: remembered until they change, and errors that say which file and line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from modelhub.serving.gateway.artifacts.mlmodel import mlmodel_of, read_mlmodel
from modelhub.serving.protocol.errors import LoadError, NotFound
from modelhub.serving.protocol.yaml_files import MAX_SIZE

MINIMAL = "flavors:\n  python_function:\n    loader_module: mlflow.sklearn\n"


def test_read_once_until_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "MLmodel"
    file.write_text(MINIMAL)
    first = read_mlmodel(tmp_path)
    assert first.document == {"flavors": {"python_function": {"loader_module": "mlflow.sklearn"}}}
    assert read_mlmodel(tmp_path) is first
    file.write_text(MINIMAL.replace("sklearn", "xgboost"))
    os.utime(file, ns=(1, 1))
    assert read_mlmodel(tmp_path).pyfunc["loader_module"] == "mlflow.xgboost"


def test_a_real_one(models: Path) -> None:
    assert "sklearn" in read_mlmodel(models / "iris").flavors


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("flavors: [", "not valid YAML"),
        ("a: 1\nb: }\nc: d", r"not valid YAML \(line 2\)"),
        ("a: !!python/object/apply:os.getcwd []", "not valid YAML"),
        ("flavors: !!timestamp soon", "not valid YAML"),
        ("flavors: [sklearn]", "no `flavors`"),
        ("flavors: {python_function: sklearn}", "no `flavors`"),
        ("just text", "no `flavors`"),
        ("", "no `flavors`"),
        ("[" * 50_000, "not valid YAML"),
        ("#" * (MAX_SIZE + 1), "larger than 16 MiB"),
        (b"\xff\xfe\x00", "no UTF-8 text"),
    ],
    ids=["open", "line", "object", "date", "list", "flavour", "text", "empty", "deep", "large", "binary"],
)
def test_what_is_no_mlmodel(text: str | bytes, says: str) -> None:
    with pytest.raises(LoadError, match=says) as caught:
        mlmodel_of(text, "/models/x/MLmodel")
    assert caught.value.message.startswith("/models/x/MLmodel is ")


def test_one_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "MLmodel").mkdir()
    with pytest.raises(LoadError, match="MLmodel cannot be read"):
        read_mlmodel(tmp_path)
    with pytest.raises(NotFound, match="there is no folder"):
        read_mlmodel(tmp_path / "nothing")


def test_nobody_changes_what_others_read(tmp_path: Path) -> None:
    (tmp_path / "MLmodel").write_text(MINIMAL + "signature:\n  inputs: [{type: long, name: a}]\n")
    found = read_mlmodel(tmp_path)
    with pytest.raises(TypeError):
        found.pyfunc["loader_module"] = "mine"  # type: ignore[index]
    with pytest.raises(AttributeError):
        found.document["signature"]["inputs"].append({})
    assert found.metadata()["inputs"] == [{"name": "a", "datatype": "INT64", "shape": [-1]}]


@pytest.mark.parametrize(
    ("env", "files"),
    [
        ("", ("conda.yaml", "python_env.yaml")),
        ("    env: my.yaml\n", ("my.yaml", "python_env.yaml")),
        ("    env: {conda: c.yaml, virtualenv: v.yaml}\n", ("c.yaml", "v.yaml")),
        ("    env: {conda: }\n", ("conda.yaml", "python_env.yaml")),
        ("    env: [1]\n", ("conda.yaml", "python_env.yaml")),
    ],
)
def test_the_files_of_the_environment(env: str, files: tuple[str, str]) -> None:
    assert mlmodel_of(MINIMAL + env, "x").environment_files == files


def test_numbers_stay_as_they_are_written() -> None:
    found = mlmodel_of(MINIMAL + "    python_version: 3.10\nmlflow_version: 2.10\nutc_time_created: 2024-02-03\n", "x")
    assert (found.pyfunc["python_version"], found.mlflow_version, found.logged_at) == ("3.10", "2.10", "2024-02-03")
