"""Reading MLmodel files: remembered until they change, and errors that say which file and line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from modelhub.serving.gateway.mlmodel import MAX_SIZE, parse_mlmodel, read_mlmodel
from modelhub.serving.protocol.errors import LoadError, NotFound

MINIMAL = "flavors:\n  python_function:\n    loader_module: mlflow.sklearn\n"


def test_read_once_until_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "MLmodel"
    file.write_text(MINIMAL)
    first = read_mlmodel(tmp_path)
    assert first == {"flavors": {"python_function": {"loader_module": "mlflow.sklearn"}}}
    assert read_mlmodel(tmp_path) is first
    file.write_text(MINIMAL.replace("sklearn", "xgboost"))
    os.utime(file, ns=(1, 1))
    assert read_mlmodel(tmp_path)["flavors"]["python_function"]["loader_module"] == "mlflow.xgboost"


def test_a_real_one(models: Path) -> None:
    assert "sklearn" in read_mlmodel(models / "iris")["flavors"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("flavors: [", "not valid YAML"),
        ("a: 1\nb: }\nc: d", r"not valid YAML \(line 2\)"),
        ("a: !!python/object/apply:os.getcwd []", "not valid YAML"),
        ("flavors: 2026-99-99", "not valid YAML"),
        ("flavors: [sklearn]", "no `flavors`"),
        ("just text", "no `flavors`"),
        ("", "no `flavors`"),
        ("[" * 50_000, "not valid YAML"),
        ("#" * (MAX_SIZE + 1), "larger than 16 MiB"),
        (b"\xff\xfe\x00", "not valid YAML"),
    ],
    ids=["open", "line", "object", "date", "list", "text", "empty", "deep", "large", "binary"],
)
def test_what_is_no_mlmodel(text: str | bytes, says: str) -> None:
    with pytest.raises(LoadError, match=says) as caught:
        parse_mlmodel(text, "/models/x/MLmodel")
    assert caught.value.message.startswith("/models/x/MLmodel is ")


def test_one_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "MLmodel").mkdir()
    with pytest.raises(LoadError, match="MLmodel cannot be read"):
        read_mlmodel(tmp_path)
    with pytest.raises(NotFound, match="there is no folder"):
        read_mlmodel(tmp_path / "nothing")
