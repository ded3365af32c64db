"""What the gateway's process loads: no model code, whatever is served."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {"mlflow", "pandas", "numpy", "sklearn", "torch", "grpc"}


@pytest.mark.parametrize("module", ["modelhub.serving.gateway", "modelhub.serving.gateway.server"])
def test_the_gateway_imports_no_model_code(module: str) -> None:
    code = f"import sys, {module}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not HEAVY & set(done.stdout.split())
