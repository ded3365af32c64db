"""`/status`: what operators see, and where it is."""

from __future__ import annotations

import os

from modelhub.serving import __version__
from modelhub.serving.gateway.models.states import ModelState
from support.http_front import Model, serving


async def test_the_server_and_every_model() -> None:
    failed = Model("digits", "2")
    failed.state, failed.reason = ModelState.FAILED, "no such file"
    async with serving(Model(), failed) as front:
        answer = await front.get("/status")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    status = answer.json()
    server = status["server"]
    assert (server["version"], server["pid"]) == (__version__, os.getpid())
    assert (server["ready"], server["reasons"]) == (False, {"digits/2": "FAILED: no such file"})
    assert 0 <= server["uptime_s"] < 60
    assert server["memory"]["rss"] > 1 << 20
    shown = [(each["name"], each["version"], each["state"], each["reason"]) for each in status["models"]]
    assert shown == [("iris", "1", "READY", ""), ("digits", "2", "FAILED", "no such file")]
    assert status["models"][0]["requests"] == {"in_flight": 2, "queued": 3, "succeeded": 0, "failed": 0, "retried": 0}


async def test_it_is_not_on_the_main_port_when_it_is_elsewhere() -> None:
    async with serving(Model(), admin=False) as front:
        (await front.get("/status")).assert_error(404)
        assert (await front.get("/metrics")).status == 200


async def test_a_port_of_its_own_has_nothing_else() -> None:
    async with serving(Model(), admin_only=True) as front:
        assert (await front.get("/status")).status == 200
        (await front.get("/v2/models/iris")).assert_error(404)
        (await front.post("/status")).assert_error(405, "GET")
