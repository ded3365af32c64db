"""The restart policy of one worker slot: at once, then with backoff, then not at all.

What ends a worker in the midst of a request is that request's doing, as far as anybody can tell: others must not go
unanswered for it. Such deaths delay the next start by little, and never make it the last.
"""

from __future__ import annotations

FIRST_DELAY = 0.1  # seconds; the first restart is immediate, the second waits this long, then it doubles
MAX_DELAY = 30.0
STABLE_AFTER = 10.0  # a worker that stayed up this long clears the count,
STABLE_ANSWERS = 100  # and so does one that answered this many requests: it works, something else kills it
BUDGET = 5  # exits in a row, none of them stable, until the version is FAILED
MAX_REQUEST_DELAY = 1.0  # after deaths in a row that requests have caused, none of whose workers answered anything


class RestartPolicy:
    """Told of every exit; answers with the delay before the next start, or None when the budget is spent."""

    def __init__(self) -> None:
        self.exits = 0
        self._fruitless = 0

    def after_exit(self, uptime: float, answered: int, *, in_request: bool = False) -> float | None:
        """`uptime`: seconds that the worker was READY, 0 if it never was; `answered`: requests it answered.

        `in_request`: it ran one when it ended.
        """
        if uptime and in_request:
            return self._after_request(answered)
        if uptime >= STABLE_AFTER or answered >= STABLE_ANSWERS:
            self.exits = 0
        self.exits += 1
        if self.exits >= BUDGET:
            return None
        if self.exits == 1:
            return 0.0
        return float(min(FIRST_DELAY * 2 ** (self.exits - 2), MAX_DELAY))

    def _after_request(self, answered: int) -> float:
        """At once, unless one request after the other ends its worker: those may not keep the machine busy."""
        self._fruitless = 0 if answered else self._fruitless + 1
        if self._fruitless <= 1:
            return 0.0
        return float(min(FIRST_DELAY * 2 ** (self._fruitless - 2), MAX_REQUEST_DELAY))
