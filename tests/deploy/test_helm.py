"""The Helm chart, rendered by Helm itself and validated; its values and its arguments are understood."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import helm_python
import pytest
import yaml
from helm_python.chart import Chart, lint
from schemas import branches, misspelt, problems

from modelhub.serving.config.load import load

CHART = Path(__file__).parents[2] / "deploy" / "helm" / "modelhub-serving"
EVERYTHING: dict[str, Any] = {
    "config": {
        "models": [{"name": "wine", "uri": "models:/wine@champion", "follow": "30s"}],
        "groups": [{"name": "docs", "load": "lazy", "models": [{"name": "a", "uri": "models:/a/1"}]}],
        "defaults": {"timeout": "10s"},
    },
    "replicaCount": 3,
    "server": {"readiness": ["wine"], "extraArgs": ["--server.max_body=256MiB"]},
    "grpc": {"enabled": True},
    "envFromSecrets": ["mlflow"],
    "envFromConfigMaps": ["modelhub"],
    "env": [{"name": "MLFLOW_TRACKING_URI", "value": "http://mlflow:5000"}],
    "imagePullSecrets": [{"name": "registry"}],
    "persistence": {"enabled": True, "storageClass": "fast", "accessMode": "ReadWriteMany"},
    "serviceAccount": {"annotations": {"azure.workload.identity/client-id": "1234"}},
    "service": {"annotations": {"a": "b"}},
    "podAnnotations": {"a": "b"},
    "podLabels": {"azure.workload.identity/use": "true"},
    "nodeSelector": {"pool": "models"},
    "tolerations": [{"key": "models", "operator": "Exists"}],
    "affinity": {"podAntiAffinity": {}},
    "topologySpreadConstraints": [
        {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {}}
    ],
    "priorityClassName": "high",
    "monitoring": {
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "rules": {"enabled": True, "labels": {"release": "prometheus"}},
        "dashboard": {"enabled": True},
    },
}
WINE: dict[str, Any] = {"config": {"models": [{"name": "wine", "uri": "models:/wine/1"}]}}
CASES: dict[str, dict[str, Any]] = {
    "defaults": WINE,
    "everything": EVERYTHING,
    "one-volume": {**WINE, "persistence": {"enabled": True}, "reload": "restart"},
    "existing-claim": {
        **WINE,
        "persistence": {"enabled": True, "existingClaim": "mine"},
        "podDisruptionBudget": {"enabled": False},
    },
    "given-account": {**WINE, "serviceAccount": {"create": False, "name": "mine"}, "drainSeconds": 0},
}


def render(values: dict[str, Any]) -> list[dict[str, Any]]:
    with Chart.load(CHART) as chart:
        rendered = chart.render(values=values, name="models", namespace="serving")
    texts = rendered.values() if isinstance(rendered, dict) else [rendered]
    return [document for text in texts for document in yaml.safe_load_all(text) if isinstance(document, dict)]


def one(documents: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    (found,) = [document for document in documents if document["kind"] == kind]
    return found


@pytest.mark.parametrize("case", CASES)
def test_what_is_rendered_is_valid(case: str) -> None:
    documents = render(CASES[case])
    assert {"Deployment", "Service", "ConfigMap"} <= {document["kind"] for document in documents}
    for document in documents:
        assert problems(document) == [], document["kind"]


def test_a_misspelt_field_in_a_template_would_be_found() -> None:
    for document in render(EVERYTHING):
        for path in branches(document):
            if (
                path
                and path[-1] in ("podAntiAffinity", "nodeSelector", "selector")
                and document["kind"] != "PodDisruptionBudget"
            ):
                continue  # names of somebody's own
            assert problems(misspelt(document, path)), (document["kind"], path)


def test_all_kinds_are_there_when_all_is_asked_for() -> None:
    kinds = sorted(document["kind"] for document in render(EVERYTHING))
    assert kinds == [
        "ConfigMap",
        "ConfigMap",
        "Deployment",
        "PersistentVolumeClaim",
        "PodDisruptionBudget",
        "PrometheusRule",
        "Service",
        "ServiceAccount",
        "ServiceMonitor",
    ]


@pytest.mark.parametrize("path", [("server",), ("image",), ("monitoring", "rules"), ()])
def test_a_misspelt_value_is_refused(path: tuple[str, ...]) -> None:
    values = copy.deepcopy(EVERYTHING)
    inner = values
    for part in path:
        inner = inner.setdefault(part, {})
    inner["misspelt"] = "planted"
    with pytest.raises(helm_python.HelmError, match="misspelt"):
        render(values)


@pytest.mark.parametrize("case", CASES)
def test_the_gateway_understands_its_arguments_and_its_models(case: str, tmp_path: Path) -> None:
    documents = render(CASES[case])
    (models,) = [each for each in documents if each["kind"] == "ConfigMap" and "models.yaml" in each["data"]]
    file = tmp_path / "models.yaml"
    file.write_text(models["data"]["models.yaml"])
    pod = one(documents, "Deployment")["spec"]["template"]["spec"]
    flags = dict(argument.removeprefix("--").split("=", 1) for argument in pod["containers"][0]["args"])
    settings = load(str(file), flags=flags, environ={})
    assert [entry.name for entry in settings.entries] == (["wine", "a"] if case == "everything" else ["wine"])
    assert settings.server.grpc_port == (9000 if case == "everything" else None)
    assert pod["terminationGracePeriodSeconds"] > settings.server.shutdown_grace
    assert {mount["name"] for mount in pod["containers"][0]["volumeMounts"]} <= {
        each["name"] for each in pod["volumes"]
    }


def test_a_change_of_the_models_rolls_the_pods_only_when_asked() -> None:
    def template(values: dict[str, Any]) -> Any:
        return one(render(values), "Deployment")["spec"]["template"]

    other = {"config": {"models": [{"name": "x", "uri": "models:/x/1"}]}}
    assert template(WINE) == template(other)
    assert template({**WINE, "reload": "restart"}) != template({**other, "reload": "restart"})
    assert len(template({**WINE, "reload": "restart"})["spec"]["containers"]) == 1


def test_a_chart_without_models_says_what_to_write() -> None:
    with pytest.raises(helm_python.HelmError, match=r"config\.models is empty"):
        render({})


def test_lint() -> None:
    result = lint(CHART, values=WINE)
    assert result["errors"] == []
