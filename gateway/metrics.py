"""What is counted: plain numbers while requests run, Prometheus' text when somebody asks.

`ModelStats` belongs to one model version and is only added to on the event loop; a scrape copies it there
(`Metrics.scrape`) and makes the text of the copy (`metrics_families.py`) in a thread. Unknown model names have
no ModelStats, so they make no series. Ordinary prometheus_client metrics go into `Metrics.registry`.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, cast

from prometheus_client import CollectorRegistry, Gauge, ProcessCollector
from prometheus_client.exposition import choose_encoder

from ..protocol.messages import InferReply
from .batch_stats import BatchStats
from .lifecycle import ModelState
from .metrics_families import GatewaySample, Scrape, sample_group, sample_version
from .metrics_of_models import OwnMetrics
from .metrics_processes import sample_fork_servers, sample_workers

if TYPE_CHECKING:
    from .bodies import Bodies
    from .fork_server import ForkServerLink
    from .model import ModelVersion

#: Upper bounds of the latency histograms, in nanoseconds; their labels are in seconds.
BOUNDS_NS = tuple(
    int(seconds * 1e9)
    for seconds in (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
)
#: Upper bounds of the histogram of batches, in requests.
BATCH_BOUNDS = (1, 2, 4, 8, 16, 32, 64, 128)
#: Seconds between two looks at the event loop's lag.
LAG_INTERVAL = 0.5
#: Seconds that a scrape waits for workers' own metrics; of one that is busy for longer, the last ones are shown.
OWN_METRICS_WAIT = 0.5


class Histogram:
    """`buckets[i]` counts the values up to bounds[i], the last one what is larger. By default durations in ns."""

    __slots__ = ("bounds", "buckets", "total")

    def __init__(self, bounds: tuple[int, ...] = BOUNDS_NS) -> None:
        self.bounds = bounds
        self.buckets = [0] * (len(bounds) + 1)
        self.total = 0

    def add(self, value: int) -> None:
        self.buckets[bisect_left(self.bounds, value)] += 1
        self.total += value

    @property
    def count(self) -> int:
        return sum(self.buckets)

    @property
    def seconds(self) -> float:
        """The sum of its durations."""
        return self.total / 1e9

    def copy(self) -> Histogram:
        copied = Histogram(self.bounds)
        copied.buckets, copied.total = self.buckets.copy(), self.total
        return copied

    def cumulative(self) -> list[tuple[str, float]]:
        """(upper bound, values up to it), as Prometheus wants them."""
        scale = 1e9 if self.bounds is BOUNDS_NS else 1.0
        running = 0
        found: list[tuple[str, float]] = []
        for label, count in zip((*(repr(bound / scale) for bound in self.bounds), "+Inf"), self.buckets, strict=True):
            running += count
            found.append((label, running))
        return found


class ModelStats:
    """The numbers of one model version. Durations are in nanoseconds.

    A successful request's time is the sum of `queue` (in the gateway), `batch_wait` (in the worker), `decode`,
    `predict`, `encode`, and `transfer`, which is the rest: between the processes, and the gateway's own work.
    """

    __slots__ = (
        "batch_size",
        "batch_stats",
        "batch_wait",
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
        "transfer",
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
        self.batch_size = Histogram(BATCH_BOUNDS)
        self.batch_stats = BatchStats()
        self.queue = Histogram()
        self.batch_wait = Histogram()
        self.decode = Histogram()
        self.predict = Histogram()
        self.encode = Histogram()
        self.transfer = Histogram()
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
        queue, wait = reply.queue_ns, reply.wait_ns
        decode, predict, encode = reply.decode_ns, reply.predict_ns, reply.encode_ns
        transfer = elapsed - queue - wait - decode - predict - encode
        self.total.add(elapsed)
        self.batch_size.add(reply.batch)
        self.batch_stats.add(reply)
        self.queue.add(queue)
        self.batch_wait.add(wait)
        self.decode.add(decode)
        self.predict.add(predict)
        self.encode.add(encode)
        self.transfer.add(transfer if transfer > 0 else 0)

    def fail(self, route: str, status: int, elapsed: int) -> None:
        """The answer was an error, or nobody waited for it any more."""
        self.requests[route, status] += 1
        self.failed += 1
        self.failed_ns += elapsed
        self.total.add(elapsed)


class Metrics:
    """All counters of the gateway."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        #: Status of HTTP, or name of a gRPC code -> answers that were errors, also for names of no known model.
        self.errors: Counter[int] = Counter()
        self.grpc_errors: Counter[str] = Counter()
        self.lag = Histogram()
        #: Says which fork servers run; filled in by the server.
        self.fork_servers: Callable[[], Iterable[ForkServerLink]] = tuple
        self._builds: dict[str, tuple[int, float]] = {}
        self._rolls: Counter[tuple[str, str]] = Counter()
        self._read = Gauge(
            "modelhub_config_last_reload_successful",
            "1 while the configuration that was read last is the one in force; 0: it was refused.",
            registry=self.registry,
        )
        self._read_at = Gauge(
            "modelhub_config_last_reload_success_timestamp_seconds",
            "When the configuration in force was read, in seconds since 1970.",
            registry=self.registry,
        )
        self.configured(taken=True)

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
        """An answer over HTTP was an error."""
        self.errors[status] += 1

    def grpc_error(self, code: str) -> None:
        """A gRPC call, or a request on a stream, ended with this code."""
        self.grpc_errors[code] += 1

    async def watch_loop(self) -> None:
        """Measure for ever how late the event loop runs what is due."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LAG_INTERVAL
            await asyncio.sleep(LAG_INTERVAL)
            self.lag.add(max(int((loop.time() - due) * 1e9), 0))

    def environment_built(self, result: str, seconds: float) -> None:
        """A build of an environment ended; `result` is built or failed."""
        count, total = self._builds.get(result, (0, 0.0))
        self._builds[result] = (count + 1, total + seconds)

    def rolled(self, model: str, result: str) -> None:
        """Another version was to serve a model; `result` is swapped or failed."""
        self._rolls[model, result] += 1

    def configured(self, *, taken: bool) -> None:
        """The configuration was read: at the start, or again; one that is refused changes nothing."""
        self._read.set(taken)
        if taken:
            self._read_at.set_to_current_time()

    def watch_bodies(self, bodies: Bodies) -> None:
        """Show how many bytes of requests' bodies are held, and how many may be."""
        held = Gauge(
            "modelhub_buffered_bytes", "Bytes of large requests' bodies that the gateway holds.", registry=self.registry
        )
        held.set_function(lambda: bodies.held)
        limit = Gauge(
            "modelhub_buffered_limit_bytes", "How many it may hold (server.max_buffered).", registry=self.registry
        )
        limit.set(bodies.most)

    async def scrape(self, versions: Iterable[ModelVersion], accept: str = "") -> tuple[bytes, str]:
        """Prometheus' text and its content type. Copies the numbers here, makes the text in a thread."""
        versions = _one_per_label(versions)
        await _ask_workers(versions)
        groups = {id(version.group): version.group for version in versions if version.group is not None}
        found = Scrape(
            gateway=GatewaySample(
                dict(self.errors), dict(self.grpc_errors), self.lag.copy(), dict(self._builds), dict(self._rolls)
            ),
            versions=[sample_version(version) for version in versions],
            groups=[sample_group(group) for group in groups.values()],
            workers=sample_workers(versions),
            fork_servers=sample_fork_servers(self.fork_servers()),
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
