"""How many bytes of requests' bodies and of answers the gateway holds at once, and how large one may be; for all ports.

Small ones are not counted: they are refused for no other's sake. Any other body is, from before it is read until its
request is answered: it is kept so long, because another worker may have to be asked. A client that leaves frees nothing
as long as a worker holds what it has sent. An answer is counted until it is written.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from ...config.quantities import format_size
from ...config.server import ServerSettings
from ...protocol.errors import QueueFull, TooLarge
from ..system.container import PodMemory

#: Bytes of a body that is not counted.
SMALL = 64 << 10
#: One part in so many of the memory, where `server.max_buffered` is not set.
PART = 4


class Budget:
    """`largest`: bytes of one body at most (server.max_body); `most`: of all together (server.max_buffered)."""

    def __init__(self, largest: int, most: int) -> None:
        self.largest = largest
        self.most = most
        #: Bytes that are held, or have been announced.
        self.held = 0

    def left_behind(self, size: int) -> None:
        """So many bytes more (or less) are held by workers whose clients have left."""
        self.held += size

    def check(self, length: int) -> None:
        """Before a body of so many bytes has come: raises TooLarge and QueueFull."""
        if length > self.largest:
            raise self.too_large()
        Share(self).check(length)

    @contextmanager
    def holding(self, size: int) -> Iterator[Share]:
        """So many bytes are held until the end of the block. Raises QueueFull."""
        share = Share(self)
        share.grow(size)
        try:
            yield share
        finally:
            share.release()

    def take(self, size: int) -> Share:
        """So many bytes of an answer are held until its `release`. Raises QueueFull."""
        share = Share(self)
        share.grow(size)
        return share

    def too_large(self) -> TooLarge:
        """What a larger body is refused with."""
        most = format_size(self.largest)
        return TooLarge(f"the request's body is larger than {most}, the limit of this server (max_body)")


class Share:
    """What one request has of all that is held: `size` bytes, 0 as long as it is small."""

    def __init__(self, budget: Budget) -> None:
        self.size = 0
        self._budget = budget

    def check(self, size: int) -> None:
        """Raises QueueFull where so many bytes would be too many."""
        if size > SMALL and self._budget.held - self.size + size > self._budget.most:
            most = format_size(self._budget.most)
            raise QueueFull(
                f"this server holds as many bytes of requests and answers as it may, {most} (max_buffered): try again "
                "later",
                retry_after=1.0,
            )

    def grow(self, size: int) -> None:
        """So many bytes altogether, if that is more than there were. Raises QueueFull."""
        if size > max(self.size, SMALL):
            self.check(size)
            self._budget.held += size - self.size
            self.size = size

    def hold(self, size: int) -> None:
        """So many bytes altogether, whether or not there is room: others are refused for them."""
        self._budget.held += size - self.size
        self.size = size

    def release(self) -> None:
        """None any more."""
        self.hold(0)


def max_buffered(settings: ServerSettings) -> int:
    """The setting, or a part of what this container may use, or of what the machine has. Reads files."""
    if settings.max_buffered is not None:
        return settings.max_buffered
    _, limit = PodMemory().used_and_limit()
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(min(limit or machine, machine) // PART, settings.max_body)
