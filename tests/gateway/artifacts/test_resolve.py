"""`modelhub check --resolve`: what the entries of a configuration mean now."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from modelhub.serving.gateway.artifacts.resolve import resolve_all


def test_all_entries_of_a_configuration(
    mlflow_server: str, logged: Any, monkeypatch: pytest.MonkeyPatch, models: Path, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server)
    uris = {
        "registered": "models:/echo@champion",
        "missing": "models:/nobody/1",
        "local": str(models / "iris"),
        "nowhere": str(tmp_path / "nothing"),
    }
    found = resolve_all(SimpleNamespace(entries=[SimpleNamespace(name=name, uri=uri) for name, uri in uris.items()]))
    assert [(each.name, each.uri) for each in found] == list(uris.items())
    registered, missing, local, nowhere = found
    assert registered.error == ""
    assert registered.version == "1"
    assert "name=nobody" in missing.error
    assert local.source.startswith((models / "iris").as_uri())
    assert local.error == ""
    assert nowhere.error == f"there is no folder {tmp_path / 'nothing'}"
