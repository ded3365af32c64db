"""Memory and CPU of workers and fork servers in a scrape, and whether the workers batch.

The memory of workers was measured by `memory.py` anyway; CPU time, and the few fork servers, are read from
/proc while the scrape is made, in its thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from .processes import Memory, cpu_seconds, read_memory

if TYPE_CHECKING:
    from .fork_server import ForkServerLink
    from .model import ModelVersion

_WORKER = ("model", "version", "replica")
_FORK_SERVER = ("environment",)


@dataclass(frozen=True)
class WorkerProcess:
    """One worker at the moment of a scrape."""

    labels: tuple[str, str, str]
    pid: int
    memory: Memory
    memory_limit: int
    #: What it said last of batching (`Replica.batching`).
    batching: dict[str, Any]


@dataclass(frozen=True)
class ForkServerProcess:
    """One fork server at the moment of a scrape."""

    environment: str
    pid: int


def sample_workers(versions: Iterable[ModelVersion]) -> list[WorkerProcess]:
    """The workers that are running now; on the event loop."""
    return [
        WorkerProcess(
            (version.name, version.version, str(replica.index)),
            replica.pid,
            replica.memory,
            replica.memory_limit,
            replica.batching,
        )
        for version in versions
        for replica in version.replicas
        if replica.pid
    ]


def sample_fork_servers(links: Iterable[ForkServerLink]) -> list[ForkServerProcess]:
    """The fork servers that are running now; on the event loop."""
    return [ForkServerProcess(link.environment.label, link.pid) for link in links]


def process_families(workers: Sequence[WorkerProcess], fork_servers: Sequence[ForkServerProcess]) -> Iterator[Metric]:
    """Reads /proc; call it in a thread."""
    yield from _families("worker", _WORKER, [(worker.labels, worker.pid, worker.memory) for worker in workers])
    limit = GaugeMetricFamily(
        "modelhub_worker_memory_limit_bytes", "Private memory at which it is replaced.", labels=_WORKER
    )
    for worker in workers:
        if worker.memory_limit:
            limit.add_metric(worker.labels, worker.memory_limit)
    yield limit
    yield from _batching(workers)
    known = {server.environment: server for server in fork_servers}.values()
    yield from _families(
        "fork_server", _FORK_SERVER, [((server.environment,), server.pid, read_memory(server.pid)) for server in known]
    )


def _batching(workers: Sequence[WorkerProcess]) -> Iterator[Metric]:
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
    kind: str, names: tuple[str, ...], found: Iterable[tuple[tuple[str, ...], int, Memory]]
) -> Iterator[Metric]:
    private = GaugeMetricFamily(
        f"modelhub_{kind}_memory_private_bytes", "Memory that ends with the process.", labels=names
    )
    pss = GaugeMetricFamily(
        f"modelhub_{kind}_memory_pss_bytes", "Memory with its share of what processes have in common.", labels=names
    )
    cpu = CounterMetricFamily(f"modelhub_{kind}_cpu_seconds", "CPU time, user and system.", labels=names)
    for labels, pid, memory in found:
        if memory.rss:
            private.add_metric(labels, memory.private)
            pss.add_metric(labels, memory.pss)
        seconds = cpu_seconds(pid)
        if seconds is not None:
            cpu.add_metric(labels, seconds)
    yield from (private, pss, cpu)
