"""The compose example: what it mounts is there, its gateway's file is valid, its services find each other."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_server import prometheus

from modelhub.serving.config.load import load

#: What Grafana reads of its provisioning files; other keys it passes over in silence.
SOURCE_KEYS = {"name", "uid", "type", "access", "url", "orgId", "isDefault", "editable", "jsonData", "secureJsonData"}
PROVIDER_KEYS = {"name", "orgId", "folder", "folderUid", "type", "disableDeletion", "allowUiUpdates", "options"}


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


def mounted(compose: dict[str, Any], service: str, deploy: Path, folder: Path) -> Path:
    """The files that a service mounts, copied below `folder` to where it sees them."""
    for mount in compose["services"][service]["volumes"]:
        source, target, *_ = mount.split(":")
        if source.startswith("."):
            place = folder / target.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(deploy / source, place)
    return folder


def test_a_real_prometheus_takes_its_configuration(
    compose: dict[str, Any], deploy: Path, prometheus_bin: Path, tmp_path: Path
) -> None:
    config = mounted(compose, "prometheus", deploy, tmp_path) / "etc" / "prometheus" / "prometheus.yml"
    with prometheus(prometheus_bin, tmp_path, config) as server:
        server.wait_for("vector(1)")
        loaded = {rule["name"] for group in server.get("rules")["groups"] for rule in group["rules"]}
        (scraped,) = yaml.safe_load(server.get("status/config")["yaml"])["scrape_configs"]
    rules = yaml.safe_load((tmp_path / "etc" / "prometheus" / "alerts.yaml").read_text())["groups"]
    assert loaded == {rule.get("alert") or rule["record"] for group in rules for rule in group["rules"]}
    assert (scraped["metrics_path"], scraped["static_configs"][0]["targets"]) == ("/metrics", ["gateway:8080"])


def test_grafana_finds_its_source_and_its_dashboard(compose: dict[str, Any], deploy: Path, tmp_path: Path) -> None:
    """By the places and the keys that it looks for; no registry of packages has a Grafana to start."""
    root = mounted(compose, "grafana", deploy, tmp_path)
    (sources,) = (root / "etc" / "grafana" / "provisioning" / "datasources").glob("*.yaml")
    (source,) = yaml.safe_load(sources.read_text())["datasources"]
    assert set(source) <= SOURCE_KEYS
    (providers,) = (root / "etc" / "grafana" / "provisioning" / "dashboards").glob("*.yaml")
    (provider,) = yaml.safe_load(providers.read_text())["providers"]
    assert set(provider) <= PROVIDER_KEYS
    (file,) = (root / provider["options"]["path"].lstrip("/")).glob("*.json")
    dashboard = json.loads(file.read_text())
    (choice,) = [each for each in dashboard["templating"]["list"] if each["type"] == "datasource"]
    assert (source["type"], source["isDefault"]) == (choice["query"], True)
