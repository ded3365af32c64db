"""Another process's clock, which may be another machine's: when was what it has sent just now, by one's own?

Every message says when it was sent, by its sender's clock. The difference to the time of its arrival is the difference
of the clocks and the time on the way, in a socket's buffer included; the least of the last minutes is, but for the
fastest way there is, that of the clocks. What waited in the buffer of a busy worker is thereby known to have waited.
"""

from __future__ import annotations

import time
from typing import Callable

#: Seconds for which a least difference is believed: clocks of two machines drift apart by some milliseconds meanwhile.
WINDOW = 60.0


class PeerClock:
    """One per socket; `here` is asked with each message that arrives."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._least = self._before = float("inf")
        self._until = float("-inf")

    def here(self, sent: float) -> float:
        """The time of one's own clock at which the message was sent that says `sent`; never later than now."""
        now = self._clock()
        if now >= self._until:
            self._before, self._least, self._until = self._least, float("inf"), now + WINDOW
        difference = now - sent
        if difference < self._least:
            self._least = difference
        return sent + min(self._least, self._before)
