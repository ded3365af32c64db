"""Were any workers lost between two looks? For suites that send what nobody should send."""

from __future__ import annotations

from typing import Any

from .gateway_process import Gateway


def workers(gateway: Gateway) -> dict[str, Any]:
    """Each model's state, and its workers' process ids and restarts."""
    status = gateway.get(f"{gateway.admin_url}/status").json()
    assert status["models"]
    return {
        model["name"]: (model["state"], [(each["pid"], each["restarts"]) for each in model["replicas"]])
        for model in status["models"]
    }
