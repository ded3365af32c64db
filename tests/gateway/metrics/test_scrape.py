"""What a scrape says after requests, restarts and loads; parsed as Prometheus would."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from modelhub.serving.gateway.models.states import Life, ModelState
from modelhub.serving.gateway.telemetry.stats import BOUNDS_NS, Histogram, ModelStats
from modelhub.serving.protocol.messages import InferReply, InferRequest
from support.http_front import Front, Model, serving

IRIS = {"model": "iris", "version": "1"}


async def samples(front: Front) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    answer = await front.get("/metrics")
    assert (answer.status, answer.headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    found = {}
    for family in text_string_to_metric_families(answer.body.decode()):
        assert family.documentation, family.name
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found, "a series appears twice"
            found[key] = sample.value
    return found


def key(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset(labels.items())


async def test_requests_and_their_phases() -> None:
    async def answering(request: InferRequest, body: Any) -> tuple[InferReply, Any]:
        return InferReply(id=0, decode_ns=300_000, predict_ns=4_000_000, encode_ns=700_000_000, rows=5), b"{}"

    async with serving(Model(answering=answering)) as front:
        for header in ("0", "0", "no"):
            await front.post("/v2/models/iris/infer", b"", {"Inference-Header-Content-Length": header})
        found = await samples(front)
    assert found[key("modelhub_requests_total", **IRIS, route="infer", status="200")] == 2
    assert found[key("modelhub_requests_total", **IRIS, route="infer", status="400")] == 1
    assert found[key("modelhub_rows_total", **IRIS)] == 10
    assert found[key("modelhub_batches_total", **IRIS)] == 2
    assert found[key("modelhub_request_seconds_count", **IRIS)] == 3
    for phase, seconds in (("decode", 0.0006), ("predict", 0.008), ("encode", 1.4), ("queue", 0.0)):
        assert found[key("modelhub_request_phase_seconds_count", **IRIS, phase=phase)] == 2
        assert found[key("modelhub_request_phase_seconds_sum", **IRIS, phase=phase)] == pytest.approx(seconds)
    for bound, count in (("0.002", 0), ("0.005", 2), ("+Inf", 2)):
        assert found[key("modelhub_request_phase_seconds_bucket", **IRIS, phase="predict", le=bound)] == count


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/v2/models/iris/infer", "infer"),
        ("/v2/models/iris/infer_stream", "stream"),
        ("/v2/models/iris/generate", "generate"),
        ("/v2/models/iris/generate_stream", "generate_stream"),
        ("/v1/models/iris:predict", "v1_predict"),
        ("/models/iris/invocations", "invocations"),
        ("/invocations", "invocations"),
    ],
)
async def test_every_route_has_its_label(path: str, route: str) -> None:
    async with serving(Model()) as front:
        assert (await front.request("POST", path, b"{}")).status == 200
        found = await samples(front)
    asked = {dict(labels)["route"] for name, labels in found if name == "modelhub_requests_total"}
    assert asked == {route}


def lived(*states: ModelState) -> Life:
    """A version's life that has gone through these states, its numbers kept by `stats`."""
    life = Life("iris", "1", ModelStats(), on_demand=False, on_change=lambda: None)
    for state in states:
        life.move(state)
    return life


UP = (ModelState.PREPARING, ModelState.LOADING, ModelState.WARMING, ModelState.READY)


async def test_state_queue_and_what_happened_to_workers() -> None:
    model = Model()
    model.stats = lived(*UP)._stats
    model.stats.loads.update(PREPARING=1.5, LOADING=0.25, WARMING=0.125)
    async with serving(model) as front:
        for kind in ("signal_9", "exit_1", "exit_1", "memory"):
            model.stats.restarts[kind] += 1
        found = await samples(front)
    assert found[key("modelhub_model_ready", **IRIS)] == 1
    assert found[key("modelhub_queue_length", **IRIS)] == model.queued
    assert found[key("modelhub_in_flight", **IRIS)] == model.in_flight
    states = {state: found[key("modelhub_model_state", **IRIS, state=state.value)] for state in ModelState}
    assert states == {state: float(state is ModelState.READY) for state in ModelState}
    for state in UP:
        assert found[key("modelhub_state_changes_total", **IRIS, state=state.value)] == 1
    for phase, seconds in (("preparing", 1.5), ("loading", 0.25), ("warming", 0.125)):
        assert found[key("modelhub_load_seconds", **IRIS, phase=phase)] == seconds
    name = "modelhub_worker_restarts_total"
    restarts = {dict(labels)["reason"]: value for (each, labels), value in found.items() if each == name}
    assert restarts == {"signal_9": 1, "exit_1": 2, "memory": 1, "timeout": 0, "fork_server": 0, "signal_11": 0}


async def test_a_second_load_starts_its_phases_anew() -> None:
    life = lived(*UP)
    assert set(life._stats.loads) == {"PREPARING", "LOADING", "WARMING"}
    for state in (ModelState.DRAINING, ModelState.UNLOADED, ModelState.PREPARING):
        life.move(state)
    assert life._stats.loads == {}
    assert life._stats.changes["PREPARING"] == 2


async def test_names_that_are_not_served_make_no_series() -> None:
    async with serving(Model()) as front:
        before = await samples(front)
        for number in range(20):
            (await front.post(f"/v2/models/guess-{number}/infer", b"{}")).assert_error(404)
            (await front.get(f"/guess-{number}")).assert_error(404)
        after = await samples(front)
    new = set(after) - set(before)
    assert new == {key("modelhub_http_errors_total", status="404")}
    assert after[new.pop()] == 40


async def test_what_every_scrape_holds() -> None:
    async with serving() as front:
        found = await samples(front)
    names = {name for name, _ in found}
    assert {"modelhub_build_info", "modelhub_event_loop_lag_seconds_count", "process_resident_memory_bytes"} <= names


async def test_openmetrics_for_those_who_ask() -> None:
    async with serving(Model()) as front:
        answer = await front.get("/metrics", {"Accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert answer.body.endswith(b"# EOF\n")


@given(st.lists(st.integers(0, 100_000_000_000)))
def test_a_histogram_counts_each_duration_below_every_bound_that_holds_it(durations: list[int]) -> None:
    histogram = Histogram()
    for duration in durations:
        histogram.add(duration)
    bounds = [*BOUNDS_NS, float("inf")]
    for (label, count), bound in zip(histogram.cumulative(), bounds, strict=True):
        assert float(label) * 1e9 == pytest.approx(bound)
        assert count == sum(duration <= bound for duration in durations)
    assert (histogram.count, histogram.total) == (len(durations), sum(durations))


def test_a_copy_is_not_added_to() -> None:
    histogram = Histogram()
    copied = histogram.copy()
    histogram.add(1)
    assert (copied.count, copied.total) == (0, 0)
