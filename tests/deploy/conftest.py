"""The checks of deploy/: they need tools that the other tests do not, so only `make check-deploy` collects them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

collect_ignore = []
if not os.environ.get("CHECK_DEPLOY"):
    collect_ignore += ["test_manifests.py", "test_helm.py", "test_alerts.py", "test_dashboard.py"]
    collect_ignore += ["test_observability.py", "test_compose.py", "test_tracing.py"]
if not os.environ.get("CHECK_IMAGE"):
    collect_ignore.append("test_image.py")

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def deploy() -> Path:
    """The folder deploy/."""
    return ROOT / "deploy"


@pytest.fixture(scope="session")
def prometheus_bin() -> Path:
    """The folder with `prometheus` and `promtool`."""
    command = [str(Path(__file__).with_name("get-prometheus")), str(ROOT / ".venvs" / "prometheus")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())
