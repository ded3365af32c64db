"""The own metrics of models in the gateway's scrape: labelled, merged, bounded, and never able to break it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.core import Metric

from modelhub.serving.gateway.metrics.of_models import MAX_SERIES, OwnMetrics, merge


def own(text: bytes | str, model: str = "iris") -> OwnMetrics:
    labels = {"model": model, "version": "1", "replica": "0"}
    return OwnMetrics(labels, text.encode() if isinstance(text, str) else text)


def merged(*each: OwnMetrics, taken: frozenset[str] = frozenset()) -> dict[str, Metric]:
    return {family.name: family for family in merge(each, set(taken))}


def counted(**labels: str) -> bytes:
    registry = CollectorRegistry()
    counter = Counter("pages_seen", "Pages.", list(labels), registry=registry)
    (counter.labels(**labels) if labels else counter).inc(3)
    return generate_latest(registry)


def test_series_get_the_models_labels() -> None:
    (family,) = merged(own(counted(kind="scan"))).values()
    assert (family.name, family.type, family.documentation) == ("pages_seen", "counter", "Pages.")
    (sample,) = family.samples
    assert (sample.name, sample.value) == ("pages_seen_total", 3)
    assert sample.labels == {"model": "iris", "version": "1", "replica": "0", "kind": "scan"}


def test_a_label_of_the_same_name_is_kept_under_another() -> None:
    (family,) = merged(own(counted(model="theirs"))).values()
    assert family.samples[0].labels == {
        "model": "iris",
        "version": "1",
        "replica": "0",
        "exported_model": "theirs",
    }


def test_two_models_share_a_family_and_the_first_type_counts() -> None:
    registry = CollectorRegistry()
    Gauge("pages_seen", "Something else.", registry=registry).set(1)
    gauge = generate_latest(registry)
    found = merged(own(counted(), "a"), own(counted(), "b"), own(gauge, "c"))
    assert [sample.labels["model"] for sample in found["pages_seen"].samples] == ["a", "b"]


def test_names_of_ours_and_of_every_process_are_left_out() -> None:
    text = "process_cpu_seconds_total 1\npython_info 1\nmodelhub_requests_total 1\nmine 1\ntaken 1\n"
    assert set(merged(own(text), taken=frozenset({"taken"}))) == {"mine"}


def test_one_worker_may_have_so_many_series() -> None:
    text = "".join(f'mine{{user="{number}"}} 1\n' for number in range(MAX_SERIES * 2))
    found = merged(own(text, "greedy"), own("mine 1\n", "modest"))
    models = [sample.labels["model"] for sample in found["mine"].samples]
    assert models.count("greedy") == MAX_SERIES
    assert models.count("modest") == 1


@given(st.one_of(st.binary(max_size=300), st.text(max_size=300)))
def test_nonsense_is_left_out(text: bytes | str) -> None:
    found = merged(own(text), own("good 1\n", "other"))
    assert "good" in found
