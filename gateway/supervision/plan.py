"""What all replicas of a version have in common: made when the version is prepared, held by each of them."""

from __future__ import annotations

from dataclasses import dataclass

from ..environments.environments import Environment
from ..places.place import Place, WorkerOrder


@dataclass(frozen=True)
class ReplicaPlan:
    """Times in seconds."""

    place: Place
    order: WorkerOrder
    #: Why it is not forked, where the entry did not say so itself; "": it is as it was asked for.
    start_reason: str
    timeout: float
    load_timeout: float
    memory_limit: int  # bytes; 0: none
    warmup: str
    credits: int

    @property
    def label(self) -> str:
        return f"{self.order.spec.name}/{self.order.spec.version}"

    @property
    def environment(self) -> Environment:
        return self.order.environment
