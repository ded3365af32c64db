"""Every route says which method it takes, whatever else its path could be."""

from __future__ import annotations

import pytest

from support.http_front import Model, serving
from support.routes import routes

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


def paths() -> dict[str, set[str]]:
    """The methods of each path, a model's and a version's name put in."""
    found: dict[str, set[str]] = {}
    for route in routes():
        method, path = route.split()
        filled = path.replace("{model}", "iris").replace("{version}", "1").replace("{file}", "start.js")
        found.setdefault(filled, set()).add(method)
    return found


@pytest.mark.parametrize(("path", "methods"), paths().items())
async def test_any_other_method_is_told_the_right_one(path: str, methods: set[str]) -> None:
    allowed = methods | ({"HEAD"} if "GET" in methods else set())
    async with serving(Model()) as front:
        for method in METHODS:
            if method in methods:
                continue
            answer = await front.request(method, path)
            assert answer.status == 405, (method, answer)
            assert {each.strip() for each in answer.headers["allow"].split(",")} == allowed
            document = answer.json()
            sentence = document.get("error") or document["message"]
            assert sentence.startswith(f"{path} takes "), sentence
            assert all(each in sentence for each in allowed)
            assert sentence.endswith(f", not {method}")


@pytest.mark.parametrize("path", ["/v1/models/iris:predict", "/v1/models/nobody:predict", "/v1/models/iris:explain"])
async def test_kserves_verbs_are_no_names_of_models(path: str) -> None:
    async with serving(Model()) as front:
        (await front.get(path)).assert_error(405, f"{path} takes POST, not GET")
        (await front.request("POST", path.replace(":", ":un"))).assert_error(404, "there is nothing at")
        (await front.get("/v1/models/nobody")).assert_error(404, "nobody")
