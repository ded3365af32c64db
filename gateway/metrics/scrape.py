"""A scrape: the numbers of the gateway and its models, copied on the event loop, made into text in a thread.

What is counted while requests run stands in `telemetry/stats.py` and `telemetry/counters.py`, which know nothing of
this. Ordinary prometheus_client metrics go into `Metrics.registry`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Protocol, cast

from prometheus_client import CollectorRegistry, Gauge, ProcessCollector
from prometheus_client.exposition import choose_encoder

from ..models.states import ModelState
from ..models.version import ModelVersion
from ..places.place import Starter
from ..system.turns import in_turns
from ..telemetry import stderr
from ..telemetry.counters import Counters
from .families import GatewaySample, Scrape, sample_group, sample_version
from .of_models import OwnMetrics
from .processes import sample_workers

#: Seconds that a scrape waits for workers' own metrics; of one that is busy for longer, the last ones are shown.
OWN_METRICS_WAIT = 0.5


class Budget(Protocol):
    """The bytes of requests' bodies: those that are held, and how many may be."""

    held: int
    most: int


class Metrics:
    """What `/metrics` shows; `starters`: the processes that start workers and run now."""

    def __init__(self, counters: Counters, budget: Budget, starters: Callable[[], list[Starter]] = list) -> None:
        self.registry = CollectorRegistry()
        self._counters = counters
        self._starters = starters
        ProcessCollector(registry=self.registry)
        self._gauge(
            "modelhub_config_last_reload_successful",
            "1 while the configuration that was read last is the one in force; 0: it was refused.",
            lambda: float(counters.config_taken),
        )
        self._gauge(
            "modelhub_config_last_reload_success_timestamp_seconds",
            "When the configuration in force was read, in seconds since 1970.",
            lambda: counters.config_read_at,
        )
        self._gauge(
            "modelhub_buffered_bytes", "Bytes of large requests' bodies that the gateway holds.", lambda: budget.held
        )
        self._gauge("modelhub_buffered_limit_bytes", "How many it may hold (server.max_buffered).", lambda: budget.most)

    def _gauge(self, name: str, meaning: str, value: Callable[[], float]) -> None:
        Gauge(name, meaning, registry=self.registry).set_function(value)

    async def scrape(self, versions: Iterable[ModelVersion], accept: str = "") -> tuple[bytes, str]:
        """Prometheus' text and its content type. Copies the numbers here, makes the text in a thread."""
        versions = _one_per_label(versions)
        await _ask_workers(versions)
        groups = {id(version.group): version.group for version in versions if version.group is not None}
        counters = self._counters
        samples = await in_turns(sample_version, versions)
        found = Scrape(
            gateway=GatewaySample(
                dict(counters.errors),
                dict(counters.grpc_errors),
                counters.lag.copy(),
                dict(counters.builds),
                dict(counters.rolls),
                stderr.dropped(),
            ),
            versions=samples,
            groups=[sample_group(group) for group in groups.values()],
            workers=sample_workers(versions),
            starters=self._starters(),
            own=_own_metrics(versions),
            registry=self.registry,
        )
        encode, content_type = choose_encoder(accept)
        text = await asyncio.to_thread(encode, cast("CollectorRegistry", found))
        return text, content_type


def _one_per_label(versions: Iterable[ModelVersion]) -> list[ModelVersion]:
    """An entry that is being replaced by one of the same version is there twice for a while; a series may not be."""
    found: dict[tuple[str, str], ModelVersion] = {}
    for version in versions:
        key = (version.name, version.version)
        if key not in found or version.state is ModelState.READY:
            found[key] = version
    return list(found.values())


async def _ask_workers(versions: Iterable[ModelVersion]) -> None:
    asked = [replica.ask_metrics() for version in versions for replica in version.replicas if replica.answers]
    if asked:
        await asyncio.wait(asked, timeout=OWN_METRICS_WAIT)


def _own_metrics(versions: Iterable[ModelVersion]) -> list[OwnMetrics]:
    return [
        OwnMetrics(
            {"model": version.name, "version": version.version, "replica": str(replica.index)}, replica.own_metrics
        )
        for version in versions
        for replica in version.replicas
        if replica.own_metrics
    ]
