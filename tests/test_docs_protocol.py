"""docs/protocol.md names every route and every pair of error codes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from modelhub.serving.gateway.dataplane.budget import Budget
from modelhub.serving.gateway.dataplane.control import Control
from modelhub.serving.gateway.dataplane.descriptions import Descriptions
from modelhub.serving.gateway.dataplane.inference import Inference
from modelhub.serving.gateway.grpc.service import SERVICE
from modelhub.serving.gateway.http.app import make_app
from modelhub.serving.gateway.metrics.scrape import Metrics
from modelhub.serving.gateway.models.registry import Registry
from modelhub.serving.gateway.security.guard import guard_of
from modelhub.serving.gateway.telemetry.counters import Counters
from modelhub.serving.protocol.statuses import STATUSES

TEXT = (Path(__file__).parents[1] / "docs/protocol.md").read_text(encoding="utf-8")
#: Parts of a page that /docs is made of.
LEFT_OUT = {"/docs/start.js", "/docs/{file}", "/v2/"}


def routes() -> list[str]:
    registry, counters, budget, nobody = Registry(), Counters(), Budget(1, 1), None
    about = Descriptions(registry, nobody)  # type: ignore[arg-type]
    control = Control(nobody, nobody, guard_of("127.0.0.1", None))  # type: ignore[arg-type]
    app: Any = make_app(Inference(registry, budget), about, Metrics(counters, budget), counters, control)
    found = set()
    for resource in app.router.resources():
        path = resource.canonical
        for route in resource:
            if route.method not in ("HEAD", "*") and path not in LEFT_OUT:  # "*": 405, in MLflow's form
                found.add(f"{route.method} {path}")
    return sorted(found)


@pytest.mark.parametrize("route", routes())
def test_every_route_is_there(route: str) -> None:
    route = route.replace("/versions/{version}", "")
    method, path = re.sub(r"/v2/models/\{model\}(?=/|$)", "…", route).split()
    unload = path.endswith("/unload") and "`…/unload`" in TEXT
    assert f"`{method} {path}`" in TEXT or unload


@pytest.mark.parametrize("method", [method.name for method in SERVICE.methods])
def test_every_grpc_method_is_there(method: str) -> None:
    assert re.search(rf"\| {method}[ ,]|, {method} ", TEXT)


@pytest.mark.parametrize("code", sorted(STATUSES))
def test_every_pair_of_codes_is_there(code: str) -> None:
    assert f"| {STATUSES[code].http} | {STATUSES[code].grpc} |" in TEXT
