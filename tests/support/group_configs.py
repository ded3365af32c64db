"""What the tests of groups share: configurations of copies of one model, and looks at a running gateway."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from .gateway_process import Gateway
from .v2_client import tensor

SHARED = {"environment": "shared"}


def one(value: float) -> list[dict[str, Any]]:
    """The inputs of a request with one number."""
    return [tensor("input-0", "FP32", [1, 1], [value])]


def copies(models: Path, count: int, kind: str = "identity", **keys: Any) -> list[dict[str, Any]]:
    """Entries m0, m1, … of the same model."""
    return [{"name": f"m{number}", "uri": str(models / kind), **keys} for number in range(count)]


def group(entries: list[dict[str, Any]], load: str = "lazy", **keys: Any) -> dict[str, Any]:
    """A configuration with one group."""
    return {"defaults": SHARED, "groups": [{"name": "all", "load": load, "models": entries, **keys}]}


def models_of(running: Gateway) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = running.get("/status").json()["models"]
    return found


def states(running: Gateway) -> dict[str, str]:
    """Name -> state; of several versions the last."""
    return {each["name"]: each["state"] for each in models_of(running)}


def metrics(running: Gateway) -> str:
    return running.get("/metrics").body.decode()


def rewrite(running: Gateway, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the gateway's configuration file and have it read again."""
    assert isinstance(running.config, Path)
    content = yaml.safe_load(running.config.read_text())
    change(content)
    running.config.write_text(yaml.safe_dump(content))
    answer = running.post(f"{running.admin_url}/admin/reload")
    assert answer.status == 200, answer.body
