"""What may happen as often as somebody likes is said now and then, with how often it was not."""

from __future__ import annotations

import logging
import time

#: Seconds between two events of one kind.
EVERY = 10.0


class Seldom:
    """One kind of event; `say` writes it, or counts it."""

    def __init__(self, log: logging.Logger, level: int = logging.ERROR, every: float = EVERY) -> None:
        self._log = log
        self._level = level
        self._every = every
        self._next = 0.0
        self._unsaid = 0

    def say(self, message: str, *arguments: object, exc_info: bool = False) -> None:
        now = time.monotonic()
        if now < self._next:
            self._unsaid += 1
            return
        if self._unsaid:
            message, arguments = f"{message} (and %d more like it before)", (*arguments, self._unsaid)
        self._next, self._unsaid = now + self._every, 0
        self._log.log(self._level, message, *arguments, exc_info=exc_info)
