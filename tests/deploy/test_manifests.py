"""The KServe manifests: valid to the last field, and saying what the gateway understands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from schemas import branches, misspelt, problems

from modelhub.serving.config.load import load

KSERVE = Path(__file__).parents[2] / "deploy" / "kserve"
FILES = sorted(KSERVE.glob("*.yaml"))


DOCUMENTS = [
    pytest.param(document, id=f"{file.stem}-{document['kind']}-{document['metadata']['name']}")
    for file in FILES
    for document in yaml.safe_load_all(file.read_text())
]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_manifest_is_valid(document: dict[str, Any]) -> None:
    assert problems(document) == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_a_misspelt_field_is_found_wherever_it_is(document: dict[str, Any]) -> None:
    for path in branches(document):
        assert problems(misspelt(document, path)), path


def test_the_models_of_the_example_are_a_valid_configuration(tmp_path: Path) -> None:
    for document in yaml.safe_load_all((KSERVE / "many-models.yaml").read_text()):
        if document["kind"] == "ConfigMap":
            file = tmp_path / "models.yaml"
            file.write_text(document["data"]["models.yaml"])
            settings = load(str(file), environ={})
            assert {entry.name for entry in settings.entries} == {"wine", "sentiment", "invoices", "receipts"}
            return
    pytest.fail("there is no ConfigMap")


def test_the_arguments_of_the_runtimes_are_settings(tmp_path: Path) -> None:
    for runtime in yaml.safe_load_all((KSERVE / "runtime.yaml").read_text()):
        for container in runtime["spec"]["containers"]:
            flags = dict(argument.removeprefix("--").split("=", 1) for argument in container["args"])
            settings = load("models:/any/1", flags=flags, environ={"MODEL_NAME": "wine"})
            ports = [port["containerPort"] for port in container["ports"]]
            assert ports == [settings.server.port], "both protocols' port"
            assert container["readinessProbe"]["httpGet"]["port"] == settings.server.port
