"""The routes of the main port."""

from __future__ import annotations

from typing import Any

from modelhub.serving.gateway.dataplane.budget import Budget
from modelhub.serving.gateway.dataplane.control import Control
from modelhub.serving.gateway.dataplane.descriptions import Descriptions
from modelhub.serving.gateway.dataplane.inference import Inference
from modelhub.serving.gateway.http.app import make_app
from modelhub.serving.gateway.metrics.scrape import Metrics
from modelhub.serving.gateway.models.registry import Registry
from modelhub.serving.gateway.security.guard import guard_of
from modelhub.serving.gateway.telemetry.counters import Counters


def routes() -> list[str]:
    """`METHOD /path` of each, without HEAD."""
    registry, counters, budget, nobody = Registry(), Counters(), Budget(1, 1), None
    about = Descriptions(registry, nobody)  # type: ignore[arg-type]
    control = Control(nobody, nobody, guard_of("127.0.0.1", None))  # type: ignore[arg-type]
    app: Any = make_app(Inference(registry, budget), about, Metrics(counters, budget), counters, control)
    found = set()
    for resource in app.router.resources():
        for route in resource:
            if route.method not in ("HEAD", "*"):  # "*": 405, in MLflow's form
                found.add(f"{route.method} {resource.canonical}")
    return sorted(found)
