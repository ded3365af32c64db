"""What is counted: plain numbers while requests run, Prometheus' text when somebody asks.

`ModelStats` belongs to one model version and is only added to on the event loop; a scrape copies it there
(`Metrics.scrape`) and formats the copy in a thread. Unknown model names have no ModelStats, so they make
no series. Ordinary prometheus_client metrics of the rest of the gateway go into `Metrics.registry`.
"""

from __future__ import annotations

import asyncio
import platform
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from .. import __version__
from ..protocol.messages import InferReply
from .lifecycle import ModelState

if TYPE_CHECKING:
    from .model import ModelVersion

#: Upper bounds of the latency histograms: nanoseconds, and the same in seconds as labels.
BOUNDS_NS = tuple(
    int(seconds * 1e9)
    for seconds in (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
)
_BOUND_LABELS = (*(repr(bound / 1e9) for bound in BOUNDS_NS), "+Inf")
#: Seconds between two looks at the event loop's lag.
LAG_INTERVAL = 0.5


class Histogram:
    """Durations in nanoseconds: `buckets[i]` counts those up to BOUNDS_NS[i], the last one what is longer."""

    __slots__ = ("buckets", "total")

    def __init__(self) -> None:
        self.buckets = [0] * (len(BOUNDS_NS) + 1)
        self.total = 0

    def add(self, duration: int, bounds: tuple[int, ...] = BOUNDS_NS) -> None:
        self.buckets[bisect_left(bounds, duration)] += 1
        self.total += duration

    @property
    def count(self) -> int:
        return sum(self.buckets)

    def copy(self) -> Histogram:
        copied = Histogram()
        copied.buckets, copied.total = self.buckets.copy(), self.total
        return copied

    def cumulative(self) -> list[tuple[str, float]]:
        """(upper bound, observations up to it), as Prometheus wants them."""
        running = 0
        found: list[tuple[str, float]] = []
        for label, count in zip(_BOUND_LABELS, self.buckets, strict=True):
            running += count
            found.append((label, running))
        return found


class ModelStats:
    """The numbers of one model version. Durations are in nanoseconds.

    `queue` is all of a successful request that is not decode, predict or encode: its wait in the gateway and for
    its batch in the worker, and the transfer between them.
    """

    __slots__ = (
        "batches",
        "changes",
        "decode",
        "encode",
        "failed",
        "failed_ns",
        "last_inference",
        "loads",
        "predict",
        "queue",
        "requests",
        "restarts",
        "rows",
        "succeeded",
        "total",
    )

    def __init__(self) -> None:
        #: (route, status) -> answers
        self.requests: Counter[tuple[str, int]] = Counter()
        self.succeeded = 0
        self.failed = 0
        self.failed_ns = 0
        self.rows = 0
        #: Calls of the model's predict; a batch of n requests is a n-th of a call for each.
        self.batches = 0.0
        #: Unix time of the last success, in milliseconds; 0: none.
        self.last_inference = 0
        self.total = Histogram()
        self.queue = Histogram()
        self.decode = Histogram()
        self.predict = Histogram()
        self.encode = Histogram()
        self.changes: Counter[ModelState] = Counter()
        self.restarts: Counter[str] = Counter()
        #: Seconds that the last load spent in each phase.
        self.loads: dict[ModelState, float] = {}

    def succeed(self, route: str, status: int, elapsed: int, reply: InferReply) -> None:
        """A worker answered; `elapsed` is from the request's arrival to its answer's."""
        self.requests[route, status] += 1
        self.succeeded += 1
        self.rows += reply.rows
        self.batches += 1 / reply.batch if reply.batch > 1 else 1
        self.last_inference = time.time_ns() // 1_000_000
        decode, predict, encode = reply.decode_ns, reply.predict_ns, reply.encode_ns
        queue = elapsed - decode - predict - encode
        self.total.add(elapsed)
        self.queue.add(queue if queue > 0 else 0)
        self.decode.add(decode)
        self.predict.add(predict)
        self.encode.add(encode)

    def fail(self, route: str, status: int, elapsed: int) -> None:
        """The answer was an error, or nobody waited for it any more."""
        self.requests[route, status] += 1
        self.failed += 1
        self.failed_ns += elapsed
        self.total.add(elapsed)


@dataclass(frozen=True)
class _Sample:
    """One model version at the moment of a scrape."""

    labels: tuple[str, str]
    state: ModelState
    ready: bool
    queued: int
    in_flight: int
    requests: dict[tuple[str, int], int]
    rows: int
    batches: float
    total: Histogram
    phases: dict[str, Histogram]
    changes: dict[ModelState, int]
    restarts: dict[str, int]
    loads: dict[ModelState, float]


def _sample(version: ModelVersion) -> _Sample:
    stats = version.stats
    return _Sample(
        labels=(version.name, version.version),
        state=version.state,
        ready=version.ready,
        queued=version.queued,
        in_flight=version.in_flight,
        requests=dict(stats.requests),
        rows=stats.rows,
        batches=stats.batches,
        total=stats.total.copy(),
        phases={name: getattr(stats, name).copy() for name in ("queue", "decode", "predict", "encode")},
        changes=dict(stats.changes),
        restarts=dict(stats.restarts),
        loads=dict(stats.loads),
    )


class Metrics:
    """All counters of the gateway."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        #: Status -> answers that were errors, those of requests that named no known model included.
        self.errors: Counter[int] = Counter()
        self.lag = Histogram()

    # ---- models --------------------------------------------------------------------------------

    def model(self, version: ModelVersion) -> ModelStats:
        """The numbers of a new model version; they are kept by it and end with it."""
        return ModelStats()

    def state_changed(self, version: ModelVersion, before: ModelState, seconds: float) -> None:
        """The version, now in its new state, was `seconds` in `before`."""
        stats = version.stats
        stats.changes[version.state] += 1
        if version.state is ModelState.PREPARING:
            stats.loads = {}
        if before.loading:
            stats.loads[before] = stats.loads.get(before, 0.0) + seconds

    def restarted(self, version: ModelVersion, kind: str) -> None:
        """A worker ended by itself; `kind` is one of few: exit_<code>, signal_<number>, memory, timeout, …"""
        version.stats.restarts[kind] += 1

    # ---- the gateway ---------------------------------------------------------------------------

    def error(self, status: int) -> None:
        """An answer was an error."""
        self.errors[status] += 1

    async def watch_loop(self) -> None:
        """Measure for ever how late the event loop runs what is due."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LAG_INTERVAL
            await asyncio.sleep(LAG_INTERVAL)
            self.lag.add(max(int((loop.time() - due) * 1e9), 0))

    def scrape(self, versions: Iterable[ModelVersion], accept: str = "") -> tuple[Callable[[], bytes], str]:
        """(how to make the text, its content type). Copies the numbers now; the text may be made in a thread."""
        samples = [_sample(version) for version in versions]
        everything = _Scrape(samples, dict(self.errors), self.lag.copy(), self.registry)
        encode, content_type = choose_encoder(accept)
        return lambda: encode(everything), content_type


class _Scrape(Collector):
    """The numbers of one scrape as Prometheus' metric families."""

    def __init__(
        self, samples: list[_Sample], errors: dict[int, int], lag: Histogram, registry: CollectorRegistry
    ) -> None:
        self._samples = samples
        self._errors = errors
        self._lag = lag
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        yield from self._gateway()
        yield from self._requests()
        yield from self._states()
        yield from self._registry.collect()

    def _gateway(self) -> Iterator[Metric]:
        build = GaugeMetricFamily("modelhub_build_info", "Version of the gateway and its Python.", labels=_BUILD)
        build.add_metric([__version__, platform.python_version()], 1)
        yield build
        errors = CounterMetricFamily(
            "modelhub_http_errors", "Answers that were errors, on any route and for any name.", labels=["status"]
        )
        for status, count in sorted(self._errors.items()):
            errors.add_metric([str(status)], count)
        yield errors
        lag = HistogramMetricFamily("modelhub_event_loop_lag_seconds", "How late the event loop ran what was due.")
        lag.add_metric([], self._lag.cumulative(), self._lag.total / 1e9)
        yield lag

    def _requests(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "modelhub_requests", "Requests to a model, by HTTP status.", labels=[*_MODEL, "route", "status"]
        )
        rows = CounterMetricFamily("modelhub_rows", "Rows (batch elements) predicted.", labels=_MODEL)
        batches = CounterMetricFamily("modelhub_batches", "Calls of the model's predict.", labels=_MODEL)
        total = HistogramMetricFamily(
            "modelhub_request_seconds", "From a request's arrival to its answer.", labels=_MODEL
        )
        phases = HistogramMetricFamily(
            "modelhub_request_phase_seconds",
            "Parts of successful requests: decode, predict and encode in the worker, and queue, which is the rest.",
            labels=[*_MODEL, "phase"],
        )
        for sample in self._samples:
            for (route, status), count in sorted(sample.requests.items()):
                requests.add_metric([*sample.labels, route, str(status)], count)
            rows.add_metric(sample.labels, sample.rows)
            batches.add_metric(sample.labels, sample.batches)
            total.add_metric(sample.labels, sample.total.cumulative(), sample.total.total / 1e9)
            for phase, histogram in sample.phases.items():
                phases.add_metric([*sample.labels, phase], histogram.cumulative(), histogram.total / 1e9)
        yield from (requests, rows, batches, total, phases)

    def _states(self) -> Iterator[Metric]:
        state = GaugeMetricFamily("modelhub_model_state", "1 for the state that it is in.", labels=[*_MODEL, "state"])
        ready = GaugeMetricFamily("modelhub_model_ready", "1 when the model says that it is ready.", labels=_MODEL)
        queued = GaugeMetricFamily("modelhub_queue_length", "Requests that wait in the gateway.", labels=_MODEL)
        flying = GaugeMetricFamily("modelhub_in_flight", "Requests that a worker holds.", labels=_MODEL)
        changes = CounterMetricFamily(
            "modelhub_state_changes", "Times that a state was entered.", labels=[*_MODEL, "state"]
        )
        restarts = CounterMetricFamily(
            "modelhub_worker_restarts", "Workers that ended by themselves.", labels=[*_MODEL, "reason"]
        )
        loads = GaugeMetricFamily(
            "modelhub_load_seconds", "Seconds of the last load, by phase.", labels=[*_MODEL, "phase"]
        )
        for sample in self._samples:
            for each in ModelState:
                state.add_metric([*sample.labels, each.value], each is sample.state)
            ready.add_metric(sample.labels, sample.ready)
            queued.add_metric(sample.labels, sample.queued)
            flying.add_metric(sample.labels, sample.in_flight)
            for entered, count in sample.changes.items():
                changes.add_metric([*sample.labels, entered.value], count)
            for reason, count in sorted(sample.restarts.items()):
                restarts.add_metric([*sample.labels, reason], count)
            for phase, seconds in sample.loads.items():
                loads.add_metric([*sample.labels, phase.value.lower()], seconds)
        yield from (state, ready, queued, flying, changes, restarts, loads)


_MODEL = ("model", "version")
_BUILD = ("version", "python")
