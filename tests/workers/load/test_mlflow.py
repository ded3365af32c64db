"""Model directories that cannot be served say why; models whose signature comes from type hints work."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelhub.serving.protocol.errors import InvalidRequest, LoadError
from modelhub.serving.protocol.messages import InferRequest
from modelhub.serving.protocol.worker_spec import WorkerSpec
from modelhub.serving.workers.load.advice import without_advice
from modelhub.serving.workers.load.mlflow import load
from modelhub.serving.workers.model.served import ServedModel
from support.v2_client import parse, request, tensor


def spec(path: Path, **changes: Any) -> WorkerSpec:
    return WorkerSpec("m", "1", 0, 0, "", "", str(path), "", "/", **changes)


def test_no_model_directory(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="not an MLflow model directory"):
        load(spec(tmp_path / "gone"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("flavors: [", "YAML"),
        ("flavors: {keras: {}}", "python_function"),
        ("flavors: {python_function: {}}\nsignature: {inputs: '['}", "signature"),
    ],
)
def test_unusable_mlmodel(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "MLmodel").write_text(text)
    with pytest.raises(LoadError, match=message):
        load(spec(tmp_path))


@pytest.mark.parametrize(
    ("hint", "sent", "got"),
    [
        ("list[str]", "a", "['a']"),
        ("list[dict[str, int]]", '{"a": 1}', "[{'a': 1}]"),
    ],
)
def test_signatures_from_type_hints(save: Callable[..., ServedModel], hint: str, sent: str, got: str) -> None:
    model = save("return [repr(model_input)]", predict=f"self, model_input: {hint}")
    body = request(tensor("input-0", "BYTES", [1], [sent]))
    call = model.decode(InferRequest(id=1), body)
    answer = model.encode(call, model.predict(call))
    # Without a hint of what it returns mlflow says "any", which is JSON.
    assert json.loads(parse(bytes(answer.body))[1]["output-0"].data[0]) == got


def test_data_against_a_type_hint_are_the_clients_mistake(save: Callable[..., ServedModel]) -> None:
    model = save("return [1]", predict="self, model_input: list[dict[str, int]]")
    call = model.decode(InferRequest(id=1), request(tensor("input-0", "BYTES", [1], ['{"a": "secret"}'])))
    with pytest.raises(InvalidRequest, match=r"type hint .*: Expected type int, but got str$") as caught:
        model.predict(call)
    assert "secret" not in caught.value.message


def test_mlflows_advice_for_authors_is_not_shown(models: Path, mlflow_imported: None) -> None:
    """A model without type hints is loaded in silence; other warnings are heard."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        load(spec(models / "echo"))
        with without_advice():
            warnings.warn("something else", stacklevel=1)
    texts = [str(each.message) for each in heard]
    assert not [text for text in texts if "Add type hints" in text]
    assert "something else" in texts


def test_importing_the_data_path_imports_no_libraries() -> None:
    """The fork server decides what is imported, and when."""
    code = (
        "import sys, modelhub.serving.workers.load.mlflow\n"
        "print([name for name in ('numpy', 'pandas', 'mlflow', 'yaml') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
