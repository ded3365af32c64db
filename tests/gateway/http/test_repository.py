"""The repository index: every model version and its state, in the protocol's four words."""

from __future__ import annotations

import pytest

from modelhub.serving.gateway.models.states import ModelState
from support.http_front import Model, serving

INDEX = "/v2/repository/index"

WORDS = {
    ModelState.UNLOADED: ("UNAVAILABLE", "not loaded"),
    ModelState.PREPARING: ("LOADING", "PREPARING for 2.1 s"),
    ModelState.LOADING: ("LOADING", "LOADING for 2.1 s"),
    ModelState.WARMING: ("LOADING", "WARMING for 2.1 s"),
    ModelState.READY: ("READY", ""),
    ModelState.DRAINING: ("UNLOADING", "the server stops"),
    ModelState.FAILED: ("UNAVAILABLE", "no such file"),
}
REASONS = {ModelState.DRAINING: "the server stops", ModelState.FAILED: "no such file"}


def models() -> list[Model]:
    found = []
    for number, state in enumerate(ModelState, start=1):
        model = Model("iris", str(number))
        model.state, model.reason = state, REASONS.get(state, "")
        found.append(model)
    return found


@pytest.mark.parametrize("body", [b"", b" ", b"{}", b'{"ready": false}', b'{"other": 1}'])
async def test_all_versions_and_states(body: bytes) -> None:
    async with serving(*models(), Model("digits", "")) as front:
        answer = await front.post(INDEX, body)
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    rows = [
        {"name": "iris", "version": str(number), "state": WORDS[state][0], "reason": WORDS[state][1]}
        for number, state in enumerate(ModelState, start=1)
    ]
    assert answer.json() == [*rows, {"name": "digits", "state": "READY", "reason": ""}]


async def test_only_those_that_are_ready() -> None:
    async with serving(*models()) as front:
        rows = (await front.post(INDEX, b'{"ready": true}')).json()
    assert [(row["version"], row["state"]) for row in rows] == [("5", "READY")]


@pytest.mark.parametrize("body", [b"{", b"[]", b'"ready"', b'{"ready": 1}', b'{"ready": null}', b"\xff", b"[" * 60_000])
async def test_a_body_that_is_not_understood(body: bytes) -> None:
    async with serving(Model()) as front:
        (await front.post(INDEX, body)).assert_error(400, "body")


async def test_a_body_that_is_too_large_for_its_purpose() -> None:
    async with serving(Model()) as front:
        (await front.post(INDEX, b" " * (2 << 20))).assert_error(413)
