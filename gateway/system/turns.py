"""Work on the event loop that grows with the number of models, done in turns with everything else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

#: Seconds that such work holds the event loop at a time.
TURN = 0.002


async def in_turns(make: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """`make` of each of the items that there are now; what else is due runs in between."""
    found: list[R] = []
    until = time.monotonic() + TURN
    for item in list(items):
        found.append(make(item))
        if time.monotonic() >= until:
            await asyncio.sleep(0)
            until = time.monotonic() + TURN
    return found
