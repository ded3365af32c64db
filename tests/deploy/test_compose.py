"""The compose example: what it mounts is there, its gateway's file is valid, its services find each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from modelhub.serving.config.load import load


@pytest.fixture
def compose(deploy: Path) -> dict[str, Any]:
    return dict(yaml.safe_load((deploy / "compose.yaml").read_text()))


def test_every_file_that_is_mounted_is_there(compose: dict[str, Any], deploy: Path) -> None:
    for name, service in compose["services"].items():
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            if source.startswith("."):
                assert (deploy / source).is_file(), f"{name}: {mount}"
            else:
                assert source in compose["volumes"], f"{name}: {mount}"


def test_nothing_listens_beyond_this_machine(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_the_services_name_each_other(compose: dict[str, Any], deploy: Path) -> None:
    services = set(compose["services"])
    scraped = yaml.safe_load((deploy / "compose" / "prometheus.yaml").read_text())["scrape_configs"][0]
    assert {target.split(":")[0] for target in scraped["static_configs"][0]["targets"]} <= services
    (source,) = yaml.safe_load((deploy / "compose" / "grafana" / "datasources.yaml").read_text())["datasources"]
    assert source["url"].split("/")[2].split(":")[0] in services
    assert compose["services"]["gateway"]["environment"]["MLFLOW_TRACKING_URI"].split("/")[2].split(":")[0] in services


def test_its_models_are_a_valid_configuration(deploy: Path) -> None:
    settings = load(str(deploy / "compose" / "models.yaml"), environ={})
    assert [entry.name for entry in settings.entries] == ["wine"]
