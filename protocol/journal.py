"""The journal page: what a worker is doing now, readable by the gateway after the worker's death.

A file of SIZE bytes in the gateway's private runtime directory, mapped by both. Before a worker runs
a batch it writes the requests' numbers here, and zero behind it, so that the gateway knows, without
one message more, which requests a dead worker had begun (retried once, alone) and which it had not
(simply sent again).

    offset 0   SLOTS × uint64 little-endian: request number, 0 = free
"""

from __future__ import annotations

import mmap
import os
import struct
from typing import Iterable, List

SLOTS = 512
SIZE = SLOTS * 8
_SLOT = struct.Struct("<Q")


class Journal:
    """Written by the worker (`begin`, `end`), read by the gateway (`begun`)."""

    def __init__(self, path: str, *, create: bool = False) -> None:
        flags = os.O_RDWR | os.O_CLOEXEC | ((os.O_CREAT | os.O_EXCL) if create else 0)
        descriptor = os.open(path, flags, 0o600)
        try:
            if create:
                os.ftruncate(descriptor, SIZE)
            self._page = mmap.mmap(descriptor, SIZE)
        finally:
            os.close(descriptor)

    def begin(self, ids: Iterable[int], first_slot: int = 0) -> None:
        """Note that these requests are being run, in consecutive slots from `first_slot`."""
        for offset, number in enumerate(ids, first_slot):
            _SLOT.pack_into(self._page, offset * 8, number)

    def end(self, count: int, first_slot: int = 0) -> None:
        """Free `count` slots from `first_slot`."""
        self._page[first_slot * 8 : (first_slot + count) * 8] = bytes(count * 8)

    def begun(self) -> List[int]:
        """The numbers of the requests that are being run, or were when the worker died."""
        return [number for (number,) in _SLOT.iter_unpack(self._page[:]) if number]

    def close(self) -> None:
        self._page.close()
