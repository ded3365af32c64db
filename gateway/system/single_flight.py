"""Work that several callers want at the same time is done once.

Used by the fetcher's client, the artifact store and environments: two requests that need the same model cause one
download, and it goes on when the request that caused it is cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

#: progress(done, total), in bytes; total 0 while it is not known.
Progress = Callable[[int, int], None]

T = TypeVar("T")


@dataclass
class _Flight(Generic[T]):
    task: asyncio.Task[T]
    watchers: list[Progress] = field(default_factory=list)


class SingleFlight:
    """Runs work once for all who want it at the same time; it outlives callers that are cancelled."""

    def __init__(self) -> None:
        self._flights: dict[Hashable, _Flight[Any]] = {}

    async def run(
        self, key: Hashable, work: Callable[[Progress], Coroutine[Any, Any, T]], progress: Progress | None = None
    ) -> T:
        """The result of the work with this key that is under way, else of `work(report)`, started now."""
        flight = self._flights.get(key)
        if flight is None:
            watchers: list[Progress] = []

            def report(done: int, total: int) -> None:
                for watcher in watchers:
                    watcher(done, total)

            flight = _Flight(asyncio.create_task(work(report), name=f"{key}"), watchers)
            self._flights[key] = flight
            flight.task.add_done_callback(lambda task: self._ended(key, task))
        if progress is not None:
            flight.watchers.append(progress)
        try:
            result: T = await asyncio.shield(flight.task)
            return result
        finally:
            if progress is not None:
                flight.watchers.remove(progress)

    def _ended(self, key: Hashable, task: asyncio.Task[Any]) -> None:
        del self._flights[key]
        if not task.cancelled():
            task.exception()  # seen, even when every caller has gone

    async def close(self) -> None:
        """Cancel what is under way."""
        tasks = [flight.task for flight in self._flights.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
