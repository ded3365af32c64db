"""A roll: a new version of an entry, loaded beside the one that serves until it takes over, or is not wanted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from ..system.timeouts import timeout
from ..telemetry.counters import Counters
from .states import ModelState
from .version import ModelVersion

log = logging.getLogger("modelhub.catalog")

#: Seconds until a new version that found no room in its group is tried again.
ROLL_RETRY = 10.0


class Roll:
    """One candidate on its way. `begin` it; it ends by itself when the candidate serves, or by `cancel`."""

    def __init__(
        self, serving: ModelVersion, candidate: ModelVersion, why: str, counters: Counters, swapped: Callable[[], None]
    ) -> None:
        """`swapped` is called in the step in which the candidate has taken over."""
        self.candidate = candidate
        self._serving = serving
        self._why = why
        self._counters = counters
        self._swapped = swapped
        self._task: asyncio.Task[None] | None = None
        candidate.stand_beside(serving)

    def begin(self) -> None:
        """At once where nothing of the old version runs, else when the candidate is READY."""
        if self._may_swap_unloaded():
            self._swap()
        else:
            self._task = asyncio.create_task(self._run(), name=f"roll {self.candidate.label}")

    def cancel(self) -> None:
        """It is not wanted any more; the candidate is the caller's to end."""
        if self._task is not None:
            self._task.cancel()

    async def ended(self) -> None:
        """Returns when the candidate has taken over, or does not any more."""
        if self._task is not None:
            await asyncio.wait({self._task})

    def _may_swap_unloaded(self) -> bool:
        """Nothing of the old one runs and nobody waits for it: its successor need not be loaded to take over."""
        old = self._serving
        away = old.on_demand or old.kept_unloaded
        return old.state in (ModelState.UNLOADED, ModelState.FAILED) and away and not old.queued

    async def _run(self) -> None:
        """Until it has taken over: what fails to load, or finds no room, is tried again."""
        candidate = self.candidate
        said = ""
        while not self._may_swap_unloaded():
            await asyncio.wait({candidate.load()})
            if candidate.state is ModelState.READY:
                break
            if not said:
                self._counters.rolled(candidate.name, "failed")
            if candidate.reason != said:
                said = candidate.reason
                self._say_failed(said)
            wait = ROLL_RETRY if candidate.retry_in is None else candidate.retry_in
            try:
                async with timeout(max(wait, 0.1)):
                    await candidate.until(ModelState.READY)
            except asyncio.TimeoutError:
                continue
        self._swap()

    def _say_failed(self, reason: str) -> None:
        log.error(
            "%s: the new version %s does not become ready, %s goes on serving: %s",
            self.candidate.name,
            self.candidate.version,
            self._serving.label,
            reason,
            extra=self.candidate.log_fields,
        )

    def _swap(self) -> None:
        """From here on the new version serves, in one step."""
        candidate = self.candidate
        candidate.take_over()
        self._swapped()
        self._counters.rolled(candidate.name, "swapped")
        log.info(
            "%s is now served by version %s, before by %s: %s",
            candidate.name,
            candidate.version,
            self._serving.version,
            self._why,
            extra=candidate.log_fields,
        )
