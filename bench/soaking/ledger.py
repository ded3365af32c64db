"""What a soak has counted: events, requests and failures by kind, the base load's latencies, what broke the rule."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

#: Texts that are kept of each kind.
KEPT = 20


class Ledger:
    def __init__(self) -> None:
        self.events: Counter[str] = Counter()
        self.requests: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        #: The first of each kind, for people.
        self.texts: dict[str, list[str]] = defaultdict(list)
        self.latencies: list[float] = []
        self.probes: Counter[str] = Counter()
        self.unanswered: Counter[str] = Counter()
        #: Times that everything was asked, and single answers to that which came too late to count.
        self.looks = self.late = 0
        self.violations: list[str] = []
        self.lag = 0.0

    def count(self, kind: str, wrong: str = "", requests: int = 1) -> None:
        """So many requests of a kind, and what was wrong with them; "": nothing."""
        self.requests[kind] += requests
        if wrong:
            self.fail(kind, wrong)

    def fail(self, kind: str, wrong: str) -> None:
        self.failed[kind] += 1
        if len(self.texts[kind]) < KEPT:
            self.texts[kind].append(wrong[:400])

    def steady(self, said: dict[str, Any]) -> None:
        """A line of steady.py."""
        self.requests["base"] += said["requests"]
        self.latencies += said["ms"]
        for wrong in said["failures"]:
            self.fail("base", wrong)

    def watched(self, said: dict[str, Any]) -> None:
        """A line of watch.py."""
        self.probes.update(said["probes"])
        self.unanswered.update(said["unanswered"])
        self.looks += said["looks"]
        self.late += said["late"]
        self.lag = max(self.lag, said["lag"])
        self.violations += said["violations"]
        self.requests["looks"] += said["looks"]
        for wrong in said["errors"]:
            self.fail("looks", wrong)

    def latency(self, part: float) -> float:
        """Milliseconds of the base load that this part of it stayed below."""
        ordered = sorted(self.latencies)
        return ordered[min(int(len(ordered) * part), len(ordered) - 1)] if ordered else 0.0
