"""The alerting rules: Prometheus takes them, their unit tests pass and can fail, and each has a page to read."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

RULES = Path("helm") / "modelhub-serving" / "files" / "alerts.yaml"


def promtool(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(folder / "promtool"), *arguments], capture_output=True, text=True, check=False)


def alerts(deploy: Path) -> list[dict[str, Any]]:
    groups = yaml.safe_load((deploy / RULES).read_text())["groups"]
    return [rule for group in groups for rule in group["rules"] if "alert" in rule]


def test_prometheus_takes_the_rules(deploy: Path, prometheus_bin: Path) -> None:
    done = promtool(prometheus_bin, "check", "rules", str(deploy / RULES))
    assert done.returncode == 0, done.stdout + done.stderr


def test_their_unit_tests_pass(deploy: Path, prometheus_bin: Path) -> None:
    done = promtool(prometheus_bin, "test", "rules", str(deploy / "alerts_test.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_their_unit_tests_fail_when_a_rule_is_wrong(deploy: Path, prometheus_bin: Path, tmp_path: Path) -> None:
    """Each alert in turn is made to say the opposite: its comparison, or what `absent` is asked of."""
    shutil.copytree(deploy, tmp_path / "deploy")
    rules = tmp_path / "deploy" / RULES
    original = rules.read_text()
    for alert in alerts(deploy):
        content = yaml.safe_load(original)
        for group in content["groups"]:
            for rule in group["rules"]:
                if rule.get("alert") == alert["alert"]:
                    rule["expr"] = f"({rule['expr']}) and on () (vector(1) == 2)"
        rules.write_text(yaml.safe_dump(content))
        done = promtool(prometheus_bin, "test", "rules", str(tmp_path / "deploy" / "alerts_test.yaml"))
        assert done.returncode != 0, f"no test of {alert['alert']} expects it to fire"


def test_each_alert_has_its_section_in_the_operations_guide(deploy: Path) -> None:
    guide = (deploy.parent / "docs" / "operations.md").read_text()
    headings = {re.sub(r"[^a-z0-9 -]", "", line.lstrip("# ").lower()).replace(" ", "-") for line in guide.splitlines()}
    for alert in alerts(deploy):
        file, _, anchor = alert["annotations"]["runbook"].partition("#")
        assert (file, anchor) == ("docs/operations.md", alert["alert"].lower())
        assert anchor in headings, f"docs/operations.md has no section {alert['alert']}"
