"""One scrape as Prometheus' metric families: the numbers that `Metrics` has copied, and how they are called.

Made in a thread. A version that never had a request shows its state and little else, so that five hundred
lazy models are a scrape of some hundred kilobytes.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from ... import __version__
from ..models.group import Group
from ..models.states import ModelState
from ..models.version import ModelVersion
from ..places.place import Starter
from ..system.container import PodMemory
from ..telemetry.stats import Histogram
from .of_models import OwnMetrics, merge
from .processes import WorkerSample, process_families

_MODEL = ("model", "version")
_GROUP = ("group",)
#: Of the ages that evicted models had: one that is small says that the budget is too.
_QUANTILES = (0.1, 0.5, 0.9)
#: Shown as 0 before they happen: Prometheus' increase() misses the first of what appears from nowhere.
_USUAL_ENDS = ("exit_1", "fork_server", "memory", "signal_9", "signal_11", "timeout")
PHASES = ("queue", "batch_wait", "decode", "predict", "encode", "transfer")


@dataclass(frozen=True)
class VersionSample:
    """One model version at the moment of a scrape."""

    labels: tuple[str, str]
    state: ModelState
    ready: bool
    stale: bool
    queued: int
    queue_limit: int
    in_flight: int
    requests: dict[tuple[str, int], int]
    rows: int
    batches: float
    total: Histogram
    batch_size: Histogram
    phases: dict[str, Histogram]
    changes: dict[str, int]
    restarts: dict[str, int]
    loads: dict[str, float]

    @property
    def used(self) -> bool:
        """Whether anybody has ever asked it anything."""
        return bool(self.requests or self.queued or self.in_flight)


def sample_version(version: ModelVersion) -> VersionSample:
    """Copy the numbers; on the event loop."""
    stats = version.stats
    return VersionSample(
        labels=(version.name, version.version),
        state=version.report()[0],
        ready=version.ready,
        stale=bool(version.stale),
        queued=version.queued,
        queue_limit=version.entry.limits.queue,
        in_flight=version.in_flight,
        requests=dict(stats.requests),
        rows=stats.rows,
        batches=stats.batches,
        total=stats.total.copy(),
        batch_size=stats.batch_size.copy(),
        phases={name: getattr(stats, name).copy() for name in PHASES},
        changes=dict(stats.changes),
        restarts=dict(stats.restarts),
        loads=dict(stats.loads),
    )


@dataclass(frozen=True)
class GroupSample:
    """One group at the moment of a scrape; sizes in bytes, ages in seconds."""

    name: str
    budget: int
    used: int
    loaded: int
    members: int
    evictions: int
    thrashing: int
    ages: list[float]


def sample_group(group: Group) -> GroupSample:
    """Copy the numbers; on the event loop."""
    return GroupSample(
        name=group.name,
        budget=group.settings.memory_budget or 0,
        used=group.used(),
        loaded=group.loaded(),
        members=len(group.members),
        evictions=group.evictions,
        thrashing=group.thrashing,
        ages=list(group.ages),
    )


@dataclass(frozen=True)
class GatewaySample:
    """What is counted once for the whole gateway."""

    errors: dict[int, int]
    grpc_errors: dict[str, int]
    lag: Histogram
    #: result ("built", "failed") -> (environments, seconds)
    builds: dict[str, tuple[int, float]]
    #: (model, result) -> changes of the version that serves
    rolls: dict[tuple[str, str], int]
    #: lines of the log
    log_dropped: int


@dataclass(frozen=True)
class Scrape(Collector):
    """Everything of one scrape."""

    gateway: GatewaySample
    versions: list[VersionSample]
    groups: list[GroupSample]
    workers: list[WorkerSample]
    starters: list[Starter]
    own: list[OwnMetrics]
    registry: CollectorRegistry

    def collect(self) -> Iterator[Metric]:
        yield from self._gateway()
        yield from self._requests()
        yield from self._states()
        yield from self._groups()
        yield from process_families(self.workers, self.starters)
        yield from self._container()
        ours = list(self.registry.collect())
        yield from ours
        yield from merge(self.own, taken={family.name for family in ours})

    def _gateway(self) -> Iterator[Metric]:
        sample = self.gateway
        build = GaugeMetricFamily(
            "modelhub_build_info", "Version of the gateway and its Python.", labels=("version", "python")
        )
        build.add_metric([__version__, platform.python_version()], 1)
        errors = CounterMetricFamily(
            "modelhub_http_errors", "Answers over HTTP that were errors, on any route, for any name.", labels=["status"]
        )
        for status, count in sorted(sample.errors.items()):
            errors.add_metric([str(status)], count)
        grpc_errors = CounterMetricFamily(
            "modelhub_grpc_errors", "Answers over gRPC that were errors, of any method, for any name.", labels=["code"]
        )
        for code, count in sorted(sample.grpc_errors.items()):
            grpc_errors.add_metric([code], count)
        lag = HistogramMetricFamily("modelhub_event_loop_lag_seconds", "How late the event loop ran what was due.")
        lag.add_metric([], sample.lag.cumulative(), sample.lag.seconds)
        builds = CounterMetricFamily("modelhub_environment_builds", "Environments built, or not.", labels=["result"])
        spent = CounterMetricFamily(
            "modelhub_environment_build_seconds", "Seconds spent on building environments.", labels=["result"]
        )
        for result in ("built", "failed"):
            count, seconds = sample.builds.get(result, (0, 0.0))
            builds.add_metric([result], count)
            spent.add_metric([result], seconds)
        rolls = CounterMetricFamily(
            "modelhub_rolls", "Changes of a model's serving version: swapped, or failed.", labels=["model", "result"]
        )
        for (model, result), count in sorted(sample.rolls.items()):
            rolls.add_metric([model, result], count)
        dropped = CounterMetricFamily(
            "modelhub_log_lines_dropped", "Lines of the log that standard error was read too slowly for."
        )
        dropped.add_metric([], sample.log_dropped)
        yield from (build, errors, grpc_errors, lag, builds, spent, rolls, dropped)

    def _requests(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "modelhub_requests", "Requests to a model, by HTTP status.", labels=[*_MODEL, "route", "status"]
        )
        rows = CounterMetricFamily("modelhub_rows", "Rows (batch elements) predicted.", labels=_MODEL)
        batches = CounterMetricFamily("modelhub_batches", "Calls of the model's predict.", labels=_MODEL)
        sizes = HistogramMetricFamily(
            "modelhub_batch_requests", "How many requests were predicted together with each request.", labels=_MODEL
        )
        total = HistogramMetricFamily(
            "modelhub_request_seconds", "From a request's arrival to its answer.", labels=_MODEL
        )
        phases = HistogramMetricFamily(
            "modelhub_request_phase_seconds",
            "Parts of successful requests: queue in the gateway, batch_wait, decode, predict and encode in the worker, "
            "and transfer, which is the rest.",
            labels=[*_MODEL, "phase"],
        )
        queued = GaugeMetricFamily("modelhub_queue_length", "Requests that wait in the gateway.", labels=_MODEL)
        limit = GaugeMetricFamily("modelhub_queue_limit", "Requests that may wait in the gateway.", labels=_MODEL)
        flying = GaugeMetricFamily("modelhub_in_flight", "Requests that a worker holds.", labels=_MODEL)
        for sample in self.versions:
            if not sample.used:
                continue
            for (route, status), count in sorted(sample.requests.items()):
                requests.add_metric([*sample.labels, route, str(status)], count)
            rows.add_metric(sample.labels, sample.rows)
            batches.add_metric(sample.labels, sample.batches)
            total.add_metric(sample.labels, sample.total.cumulative(), sample.total.seconds)
            if sample.batches:
                sizes.add_metric(sample.labels, sample.batch_size.cumulative(), sample.batch_size.total)
                for phase, histogram in sample.phases.items():
                    phases.add_metric([*sample.labels, phase], histogram.cumulative(), histogram.seconds)
            queued.add_metric(sample.labels, sample.queued)
            limit.add_metric(sample.labels, sample.queue_limit)
            flying.add_metric(sample.labels, sample.in_flight)
        yield from (requests, rows, batches, sizes, total, phases, queued, limit, flying)

    def _states(self) -> Iterator[Metric]:
        state = GaugeMetricFamily("modelhub_model_state", "1 for the state that it is in.", labels=[*_MODEL, "state"])
        ready = GaugeMetricFamily("modelhub_model_ready", "1 when the model says that it is ready.", labels=_MODEL)
        stale = GaugeMetricFamily(
            "modelhub_model_stale",
            "1 while it is what its URI meant last: the registry could not be asked what it means now.",
            labels=_MODEL,
        )
        changes = CounterMetricFamily(
            "modelhub_state_changes", "Times that a state was entered.", labels=[*_MODEL, "state"]
        )
        restarts = CounterMetricFamily(
            "modelhub_worker_restarts", "Workers that ended by themselves.", labels=[*_MODEL, "reason"]
        )
        loads = GaugeMetricFamily(
            "modelhub_load_seconds", "Seconds of the last load, by phase.", labels=[*_MODEL, "phase"]
        )
        for sample in self.versions:
            for each in ModelState:
                state.add_metric([*sample.labels, each.value], each is sample.state)
            ready.add_metric(sample.labels, sample.ready)
            stale.add_metric(sample.labels, sample.stale)
            for entered, count in sample.changes.items():
                changes.add_metric([*sample.labels, entered], count)
            usual = dict.fromkeys(_USUAL_ENDS, 0) if sample.changes else {}
            for reason, count in sorted((usual | sample.restarts).items()):
                restarts.add_metric([*sample.labels, reason], count)
            for phase, seconds in sample.loads.items():
                loads.add_metric([*sample.labels, phase.lower()], seconds)
        yield from (state, ready, stale, changes, restarts, loads)

    def _groups(self) -> Iterator[Metric]:
        budget = GaugeMetricFamily("modelhub_group_memory_budget_bytes", "What its models may use.", labels=_GROUP)
        used = GaugeMetricFamily(
            "modelhub_group_memory_used_bytes", "Private memory of its workers, measured or reserved.", labels=_GROUP
        )
        loaded = GaugeMetricFamily("modelhub_group_models_loaded", "Models of it that are loaded.", labels=_GROUP)
        members = GaugeMetricFamily("modelhub_group_models", "Models of it.", labels=_GROUP)
        evictions = CounterMetricFamily("modelhub_group_evictions", "Models unloaded to make room.", labels=_GROUP)
        reloads = CounterMetricFamily(
            "modelhub_group_early_reloads", "Loads within a minute of the model's eviction.", labels=_GROUP
        )
        ages = Metric(
            "modelhub_group_eviction_age_seconds", "How long evicted models had been loaded, the last 1000.", "summary"
        )
        for sample in self.groups:
            label = [sample.name]
            if sample.budget:
                budget.add_metric(label, sample.budget)
            used.add_metric(label, sample.used)
            loaded.add_metric(label, sample.loaded)
            members.add_metric(label, sample.members)
            evictions.add_metric(label, sample.evictions)
            reloads.add_metric(label, sample.thrashing)
            ages.samples += _quantiles(ages.name, sample)
        yield from (budget, used, loaded, members, evictions, reloads, ages)

    def _container(self) -> Iterator[Metric]:
        used, limit = PodMemory().used_and_limit()
        if not limit:
            return
        yield GaugeMetricFamily("modelhub_container_memory_used_bytes", "Memory of the gateway's cgroup.", value=used)
        yield GaugeMetricFamily("modelhub_container_memory_limit_bytes", "Limit of the gateway's cgroup.", value=limit)


def _quantiles(name: str, sample: GroupSample) -> list[Sample]:
    """Samples of a summary, as prometheus_client's own family cannot make them."""
    found = Metric(name, "", "summary")
    ages = sorted(sample.ages)
    for quantile in _QUANTILES if ages else ():
        age = ages[min(int(quantile * len(ages)), len(ages) - 1)]
        found.add_sample(name, {"group": sample.name, "quantile": str(quantile)}, age)
    found.add_sample(f"{name}_count", {"group": sample.name}, sample.evictions)
    return found.samples
