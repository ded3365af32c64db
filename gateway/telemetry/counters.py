"""What is counted once for the whole gateway: plain numbers, which a scrape copies (`metrics/scrape.py`)."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

from .stats import Histogram

#: Seconds between two looks at the event loop's lag.
LAG_INTERVAL = 0.5


class Counters:
    """One per gateway; only added to on the event loop."""

    def __init__(self) -> None:
        #: Status of HTTP, or name of a gRPC code -> answers that were errors, also for names of no known model.
        self.errors: Counter[int] = Counter()
        self.grpc_errors: Counter[str] = Counter()
        self.lag = Histogram()
        #: Result (built, failed) -> (environments, seconds).
        self.builds: dict[str, tuple[int, float]] = {}
        #: (model, result) -> changes of the version that serves.
        self.rolls: Counter[tuple[str, str]] = Counter()
        #: Whether the configuration that was read last is in force, and when that one was read (unix seconds).
        self.config_taken = True
        self.config_read_at = time.time()

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
        count, total = self.builds.get(result, (0, 0.0))
        self.builds[result] = (count + 1, total + seconds)

    def rolled(self, model: str, result: str) -> None:
        """Another version was to serve a model; `result` is swapped or failed."""
        self.rolls[model, result] += 1

    def configured(self, *, taken: bool) -> None:
        """The configuration was read again; one that is refused changes nothing."""
        self.config_taken = taken
        if taken:
            self.config_read_at = time.time()
