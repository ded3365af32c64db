"""Memory and CPU of workers and fork servers in a scrape, and whether the workers batch.

The memory of workers was measured by the memory watch anyway; CPU time, and what the few fork servers use, is asked of
their place while the scrape is made, in its thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from ..models.version import ModelVersion
from ..places.place import StartedWorker, Starter
from ..system.processes import Memory

_WORKER = ("model", "version", "replica")
_FORK_SERVER = ("environment",)


@dataclass(frozen=True)
class WorkerSample:
    """One worker at the moment of a scrape."""

    labels: tuple[str, str, str]
    worker: StartedWorker
    memory: Memory
    memory_limit: int
    #: What it said last of batching (`Replica.batching`).
    batching: dict[str, Any]


def sample_workers(versions: Iterable[ModelVersion]) -> list[WorkerSample]:
    """The workers that are running now; on the event loop."""
    return [
        WorkerSample(
            (version.name, version.version, str(replica.index)),
            replica.worker,
            replica.memory,
            replica.memory_limit,
            replica.batching,
        )
        for version in versions
        for replica in version.replicas
        if replica.worker is not None
    ]


def process_families(workers: Sequence[WorkerSample], starters: Sequence[Starter]) -> Iterator[Metric]:
    """Asks the processes' places, which may block: call it in a thread."""
    running = [(each.labels, each.worker.cpu_seconds, each.memory) for each in workers]
    yield from _families("worker", _WORKER, running)
    limit = GaugeMetricFamily(
        "modelhub_worker_memory_limit_bytes", "Private memory at which it is replaced.", labels=_WORKER
    )
    for worker in workers:
        if worker.memory_limit:
            limit.add_metric(worker.labels, worker.memory_limit)
    yield limit
    yield from _batching(workers)
    known = {starter.environment.label: starter for starter in starters}
    yield from _families(
        "fork_server",
        _FORK_SERVER,
        [((label,), starter.cpu_seconds, starter.read_memory()) for label, starter in known.items()],
    )


def _batching(workers: Sequence[WorkerSample]) -> Iterator[Metric]:
    enabled = GaugeMetricFamily(
        "modelhub_batching_enabled", "1 when it may predict several requests together.", labels=_WORKER
    )
    most = GaugeMetricFamily("modelhub_batching_max_rows", "Rows of a batch at most.", labels=_WORKER)
    for worker in workers:
        if worker.batching:
            enabled.add_metric(worker.labels, bool(worker.batching.get("enabled")))
            most.add_metric(worker.labels, worker.batching.get("max_size", 0))
    yield from (enabled, most)


def _families(
    kind: str, names: tuple[str, ...], found: Iterable[tuple[tuple[str, ...], Callable[[], float | None], Memory]]
) -> Iterator[Metric]:
    private = GaugeMetricFamily(
        f"modelhub_{kind}_memory_private_bytes", "Memory that ends with the process.", labels=names
    )
    pss = GaugeMetricFamily(
        f"modelhub_{kind}_memory_pss_bytes", "Memory with its share of what processes have in common.", labels=names
    )
    cpu = CounterMetricFamily(f"modelhub_{kind}_cpu_seconds", "CPU time, user and system.", labels=names)
    for labels, cpu_seconds, memory in found:
        if memory.rss:
            private.add_metric(labels, memory.private)
            pss.add_metric(labels, memory.pss)
        seconds = cpu_seconds()
        if seconds is not None:
            cpu.add_metric(labels, seconds)
    yield from (private, pss, cpu)
