"""A real Prometheus scrapes a real gateway with ten models; what happens to them shows in what the docs name."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from observed import ask, configuration, kill, traffic
from prometheus_client.parser import text_string_to_metric_families
from prometheus_server import prometheus, scraping

from support.gateway_process import Gateway

Values = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture(scope="module")
def observed(module_gateway: Callable[..., Gateway], models: Path, tmp_path_factory: pytest.TempPathFactory) -> Gateway:
    gateway = module_gateway(configuration(models, tmp_path_factory.mktemp("observed")))
    gateway.wait_ready()
    return gateway


def scrape(gateway: Gateway) -> Values:
    families = text_string_to_metric_families(gateway.get("/metrics").body.decode())
    return {(each.name, frozenset(each.labels.items())): each.value for family in families for each in family.samples}


def value(values: Values, name: str, **labels: str) -> float:
    """The sum over all series that have these labels."""
    wanted = set(labels.items())
    return sum(found for (each, has), found in values.items() if each == name and wanted <= has)


def roll(gateway: Gateway, model: str, uri: Path) -> None:
    """Serve a model from another folder: change the file, have it read again, wait for the swap."""
    assert isinstance(gateway.config, Path)
    content = yaml.safe_load(gateway.config.read_text())
    for entry in content["models"]:
        if entry["name"] == model:
            entry["uri"] = str(uri)
    gateway.config.write_text(yaml.safe_dump(content))
    assert gateway.post("/admin/reload").status == 200
    gateway.wait_log(f"{model} is now served by version")


def of_the_guide(deploy: Path, language: str) -> list[str]:
    """The fenced blocks of docs/operations.md that are written in this language."""
    guide = (deploy.parent / "docs" / "operations.md").read_text()
    return [str(found) for found in re.findall(rf"^```{language}\n(.*?)^```", guide, re.MULTILINE | re.DOTALL)]


def test_every_command_of_the_guide_runs(observed: Gateway, deploy: Path, tmp_path: Path) -> None:
    """As on call: beside a gateway in which something has happened. Those of Kubernetes need a cluster."""
    traffic(observed)
    kill(observed)
    place = {"URL": observed.url, "ADMIN": observed.admin_url, "MODEL": "fragile"}
    place |= {"MODELHUB_ADMIN_TOKEN": observed.token, "AUTH": f"Authorization: Bearer {observed.token}"}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    for block in of_the_guide(deploy, "sh"):
        script = "\n".join(line for line in block.splitlines() if not line.startswith(("kubectl", "export")))
        (tmp_path / "log").write_text(observed.log())
        command = ["bash", "-euo", "pipefail", "-c", script]
        done = subprocess.run(
            command, env={**place, "PATH": path}, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
        assert not done.stderr, done.stderr
    observed.wait_log("most recent call first")


@pytest.mark.timeout(300)
def test_every_query_of_the_dashboard_returns_data(
    observed: Gateway, models: Path, deploy: Path, prometheus_bin: Path, tmp_path: Path
) -> None:
    files = deploy / "helm" / "modelhub-serving" / "files"
    panels = json.loads((files / "dashboard.json").read_text())["panels"]
    with prometheus(prometheus_bin, tmp_path, scraping(observed.url, files / "alerts.yaml")) as server:
        server.wait_for("count(modelhub_model_ready == 1) == 10")
        traffic(observed)
        kill(observed)
        roll(observed, "identity", models / "echo")
        server.wait_for('modelhub_requests_total{model="fragile",status="200"} > 0')
        traffic(observed)
        for panel in panels:
            for query in panel.get("targets", []):
                text = query["expr"].replace("$__rate_interval", "30s").replace("$model", ".*")
                for series in server.wait_for(text):
                    labels = set(re.findall(r"{{(\w+)}}", query["legendFormat"]))
                    assert labels <= set(series["metric"]), f"{panel['title']}: the legend names {labels}"
        for text in of_the_guide(deploy, "promql"):
            assert server.wait_for(text), text
        assert server.query('ALERTS{alertname="ModelHubGatewayAbsent"}') == []
        assert server.wait_for("modelhub:error_ratio:rate5m > 0")


def test_promtool_finds_nothing_to_say_about_the_metrics(observed: Gateway, prometheus_bin: Path) -> None:
    traffic(observed)
    command = [str(prometheus_bin / "promtool"), "check", "metrics"]
    done = subprocess.run(command, input=observed.get("/metrics").body, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_a_kill_shows(observed: Gateway) -> None:
    before = scrape(observed)
    kill(observed)
    after = scrape(observed)
    name = "modelhub_worker_restarts_total"
    assert value(after, name, model="fragile") > value(before, name, model="fragile")
    assert value(after, name, model="fragile", reason="signal_9") >= 1
    assert value(after, name, model="iris") == 0


def test_an_eviction_shows(observed: Gateway) -> None:
    before = scrape(observed)
    assert [ask(observed, name) for name in ("invoices", "receipts", "invoices")] == [200, 200, 200]
    after = scrape(observed)
    evicted = value(after, "modelhub_group_evictions_total") - value(before, "modelhub_group_evictions_total")
    assert evicted >= 2
    assert value(after, "modelhub_group_early_reloads_total", group="documents") >= 1
    assert value(after, "modelhub_group_eviction_age_seconds_count") == value(after, "modelhub_group_evictions_total")
    assert value(after, "modelhub_group_models_loaded", group="documents") == 1
    assert 0 < value(after, "modelhub_group_memory_used_bytes") < value(after, "modelhub_group_memory_budget_bytes")


def test_an_overload_shows(observed: Gateway) -> None:
    before = scrape(observed)
    traffic(observed)
    after = scrape(observed)
    refused = {"model": "slow", "status": "429"}
    assert value(after, "modelhub_requests_total", **refused) > value(before, "modelhub_requests_total", **refused)
    assert value(after, "modelhub_queue_limit", model="slow") == 2
    assert value(after, "modelhub_request_phase_seconds_sum", model="slow", phase="queue") > 0.1


def test_batching_shows(observed: Gateway) -> None:
    found = scrape(observed)
    for model, enabled in (("iris", 1), ("identity", 0)):
        assert value(found, "modelhub_batching_enabled", model=model, version="1", replica="0") == enabled
        assert value(found, "modelhub_batching_max_rows", model=model) == 64
    (said,) = [each for each in observed.get("/status").json()["models"] if each["name"] == "iris"]
    assert said["replicas"][0]["batching"]["reason"] == "mlflow_sklearn is row-wise"


def test_the_models_own_traceback_is_one_object_of_the_log(observed: Gateway) -> None:
    assert ask(observed, "faulty") == 500
    observed.wait_log("raises_in_predict.py")
    traces = [json.loads(line) for line in observed.log().splitlines() if "Traceback" in line]
    assert traces
    for event in traces:
        assert (event["model"], event["version"], event["level"]) == ("faulty", "1", "warning")
        assert event["message"].startswith("Traceback (most recent call last):\n")
        assert event["message"].splitlines()[-1].startswith("ValueError: ")


def test_a_roll_shows(observed: Gateway, models: Path) -> None:
    before = scrape(observed)
    roll(observed, "digits", models / "pair")
    after = scrape(observed)
    swapped = {"model": "digits", "result": "swapped"}
    assert value(after, "modelhub_rolls_total", **swapped) == value(before, "modelhub_rolls_total", **swapped) + 1
    assert value(after, "modelhub_model_state", model="digits", state="READY") == 1


def test_phases_add_up_to_the_whole(observed: Gateway) -> None:
    assert ask(observed, "counting") == 200
    found = scrape(observed)
    whole = value(found, "modelhub_request_seconds_sum", model="counting")
    assert value(found, "modelhub_request_phase_seconds_sum", model="counting") == pytest.approx(whole, rel=0.01)
    for phase in ("queue", "decode", "predict", "encode", "transfer"):
        assert value(found, "modelhub_request_phase_seconds_sum", model="counting", phase=phase) > 0, phase


def test_a_models_own_metrics_come_out_with_its_name(observed: Gateway) -> None:
    assert ask(observed, "counting") == 200
    found = scrape(observed)
    assert value(found, "pages_seen_total", model="counting", version="1", replica="0", kind="scan") >= 1
    assert value(found, "page_length_chars_count", model="counting") >= 1
    assert value(found, "page_length_chars_bucket", model="counting", le="10.0") == 0
    # what prometheus_client says about every process is the gateway's alone
    assert len([each for each, _ in found if each == "process_cpu_seconds_total"]) == 1


def test_memory_and_cpu_of_every_process(observed: Gateway) -> None:
    deadline = time.monotonic() + 10
    while True:
        found = scrape(observed)
        measured = {dict(labels)["model"] for (name, labels) in found if name == "modelhub_worker_memory_private_bytes"}
        if {"iris", "counting", "sentiment"} <= measured or time.monotonic() > deadline:
            break
    for name in ("memory_private_bytes", "memory_pss_bytes", "cpu_seconds_total"):
        assert value(found, f"modelhub_worker_{name}", model="iris") > 0, name
        assert value(found, f"modelhub_fork_server_{name}", environment="shared") > 0, name


def test_five_hundred_models_that_nobody_asks_for_are_a_small_scrape(
    gateway: Callable[..., Gateway], models: Path
) -> None:
    lazy = [{"name": f"lazy-{number}", "uri": str(models / "identity")} for number in range(500)]
    large = gateway({"groups": [{"name": "many", "load": "lazy", "models": lazy}]})
    large.wait_ready()
    answer = large.get("/metrics")
    assert answer.status == 200
    assert answer.body.count(b"modelhub_model_ready{") == 500
    assert len(answer.body) < 500_000
