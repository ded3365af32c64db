"""Whether a batch waits for the clients that were just answered, because they are about to ask again.

Clients that wait for each answer before they ask again settle into halves: while one half is predicted, the other is
on its way, and each call of the model serves one half. Where a call costs about the same for twice the requests, a
moment's wait after an answer, until those who got it are back, serves all of them in one call: more answers per
second, and each of them sooner. Where it costs twice as much, the wait is lost. So it is not guessed but tried, again
and again:

    1. one window of batches is predicted without waits,
    2. one with them: a batch waits for as many requests as were answered and had arrived meanwhile, but not for long;
    3. what answered more per second holds for a window, and for twice as many each time that the same is found again.

Requests that come at random, and not as echoes of answers, would only wait longer: two waits in vain end them at once.
"""

from __future__ import annotations

import time
from typing import Callable

#: A window is so many batches at least, and so many seconds; before it, so many batches do not count.
WINDOW, SECONDS, SETTLING = 16, 0.1, 2
#: A finding holds for so many windows at most.
LONGEST_HOLD = 64
#: Waits must make for so much more requests per second.
BETTER = 1.05
#: A wait takes so many times as long as the last call at most, and never more than so many seconds.
LONGEST_WAIT, LONGEST_SECONDS = 1.5, 0.1
#: Calls shorter than this, in seconds, are over before anybody could be back.
SHORTEST = 0.001
#: So many waits in vain in a row end them.
IN_VAIN = 2


class Patience:
    """Of one loop whose requests are batched; told of every batch's answers, asked before the next."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        #: Whether batches wait at present, to try it or because it was found to be worth it.
        self.waits = False
        self._worth = False  # what was found last
        self._hold = 1
        self._left = 0  # windows that it still holds; 0: it is being tried
        self._rate = 0.0  # requests per second of the window without waits
        self._batches = -SETTLING
        self._requests = 0
        self._since = 0.0
        self._vain = 0
        self._waited = False
        self._expected = 0
        self._call = 0.0
        self._answered = 0.0

    def answered(self, requests: int, seconds: float, waiting: int) -> None:
        """A call of so many requests took `seconds`; its answers leave now, and `waiting` other requests are there."""
        self._answered = self._clock()
        self._call = seconds
        self._expected = requests + waiting

    def left(self, gathered: int, deadline: float = 0.0) -> float:
        """Seconds that a batch of so many requests may wait for the next one; 0: it is to begin.

        `deadline`: the earliest of theirs, by the clock; 0: none. Two more calls fit in before it, or it begins.
        """
        if not self.waits or gathered >= self._expected or self._call < SHORTEST:
            return 0.0
        left = self._answered + min(LONGEST_WAIT * self._call, LONGEST_SECONDS) - self._clock()
        if left <= 0 or (deadline and self._clock() + left + 2 * self._call > deadline):
            return 0.0
        self._waited = True
        return left

    def begins(self, gathered: int, *, full: bool) -> None:
        """A batch of so many requests begins; `full`: it can take no more."""
        now = self._clock()
        if self._waited:
            self._waited = False
            self._vain = 0 if full or gathered >= self._expected else self._vain + 1
            if self._vain == IN_VAIN:
                self._found(False)
        if now - self._answered > 2 * LONGEST_WAIT * self._call:  # nobody was there: a rate would say nothing
            self._batches = -SETTLING
        # an even number of batches: they may alternate between a large and a small one
        if self._batches >= WINDOW and not self._batches % 2 and now - self._since >= SECONDS:
            self._judge(self._requests / (now - self._since))
        if self._batches == 0:
            self._since, self._requests = now, 0
        self._batches += 1
        self._requests += gathered

    def _judge(self, rate: float) -> None:
        """A window is over."""
        self._batches = -SETTLING
        if self._left:
            self._left -= 1
            if not self._left:
                self.waits = False
        elif not self.waits:
            self._rate = rate
            self.waits = True
        else:
            self._found(rate > self._rate * BETTER)

    def _found(self, worth: bool) -> None:
        self._hold = min(2 * self._hold, LONGEST_HOLD) if worth == self._worth else 2
        self._left = self._hold
        self.waits = self._worth = worth
        self._batches, self._vain = -SETTLING, 0
