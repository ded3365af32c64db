"""Runs a client's script once, under the Python of the client's own environment."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent.parent / "clients"
ENVIRONMENTS = HERE.parent.parent / ".venvs"


def answers_of(client: str, url: str, script: str) -> dict[str, dict[str, Any]]:
    """What `use_<script>.py` printed: each case's result, or the status and message of its error."""
    python = ENVIRONMENTS / client / "bin/python"
    assert python.exists(), f"no {python.relative_to(HERE.parent.parent)}: run `make test-clients`, which makes it"
    command = [str(python), str(HERE / f"use_{script}.py"), url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))
