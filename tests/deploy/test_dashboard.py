"""The dashboard's JSON: what the generator writes, what Grafana's own types read, queries that Prometheus parses."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from grafana_foundation_sdk.models.dashboard import Dashboard

FILE = Path("helm") / "modelhub-serving" / "files" / "dashboard.json"


def content(deploy: Path) -> dict[str, Any]:
    return dict(json.loads((deploy / FILE).read_text()))


def queries(dashboard: dict[str, Any]) -> list[str]:
    return [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]


def test_the_file_is_what_the_generator_writes(deploy: Path) -> None:
    sys.path.insert(0, str(deploy))
    try:
        from make_dashboard import text
    finally:
        sys.path.remove(str(deploy))
    assert (deploy / FILE).read_text() == text(), "run: python deploy/make_dashboard.py"


def test_grafanas_own_types_read_it(deploy: Path) -> None:
    read = Dashboard.from_json(content(deploy))
    assert read.title == "ModelHub Serving"
    assert len(read.panels or []) == len(content(deploy)["panels"])


def test_panels_neither_overlap_nor_leave_the_page(deploy: Path) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in content(deploy)["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        taken |= cells
    numbers = [panel["id"] for panel in content(deploy)["panels"]]
    assert len(numbers) == len(set(numbers))


def test_prometheus_parses_every_query(deploy: Path, prometheus_bin: Path, tmp_path: Path) -> None:
    texts = [each.replace("$__rate_interval", "1m").replace("$model", ".*") for each in queries(content(deploy))]
    rules = [{"record": f"query:{number}", "expr": text} for number, text in enumerate(texts)]
    file = tmp_path / "queries.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    command = [str(prometheus_bin / "promtool"), "check", "rules", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_metric_of_dashboard_and_alerts_is_documented(deploy: Path) -> None:
    alerts = yaml.safe_load((deploy / "helm" / "modelhub-serving" / "files" / "alerts.yaml").read_text())
    expressions = queries(content(deploy)) + [rule["expr"] for group in alerts["groups"] for rule in group["rules"]]
    documented = (deploy.parent / "docs" / "metrics.md").read_text()
    for name in {name for text in expressions for name in re.findall(r"\bmodelhub_[a-z_]+", text)}:
        base = re.sub(r"_(bucket|sum|count)$", "", name)
        assert f"`{base}`" in documented, f"docs/metrics.md does not say what {base} is"
