"""The numbers of one model version, plain ones while requests run: what its answers took, how its loads went.

Only added to on the event loop, by whoever ends a request (`dataplane/inference.py`) and by the version itself; a
scrape copies them there. Made by a version, ends with it: names that nobody serves have no numbers, so they make no
series.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter

from ...protocol.messages import InferReply
from .batch_stats import BatchStats

#: Upper bounds of the latency histograms, in nanoseconds; their labels are in seconds.
BOUNDS_NS = tuple(
    int(seconds * 1e9)
    for seconds in (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
)
#: Upper bounds of the histogram of batches, in requests.
BATCH_BOUNDS = (1, 2, 4, 8, 16, 32, 64, 128)


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
        #: State -> times that it was entered.
        self.changes: Counter[str] = Counter()
        #: How workers ended by themselves, one of few: exit_<code>, signal_<number>, memory, timeout, …
        self.restarts: Counter[str] = Counter()
        #: Seconds that the last load spent in each phase.
        self.loads: dict[str, float] = {}

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

    def begin_load(self) -> None:
        """Its phases are counted anew."""
        self.loads = {}

    def spent(self, phase: str, seconds: float) -> None:
        """A phase of a load is over."""
        self.loads[phase] = self.loads.get(phase, 0.0) + seconds
