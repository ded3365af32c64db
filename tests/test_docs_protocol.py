"""docs/protocol.md names every route and every pair of error codes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from modelhub.serving.gateway.grpc.service import SERVICE
from modelhub.serving.protocol.statuses import STATUSES
from support.routes import routes

TEXT = (Path(__file__).parents[1] / "docs/protocol.md").read_text(encoding="utf-8")
#: Parts of a page that /docs is made of.
LEFT_OUT = {"/docs/start.js", "/docs/{file}", "/v2/"}


@pytest.mark.parametrize("route", [each for each in routes() if each.split()[1] not in LEFT_OUT])
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
