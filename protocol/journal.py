"""The journal page: what a worker has begun, readable by the gateway even after the worker's death.

A file of SIZE bytes in the gateway's private runtime directory, mapped by the worker and read by the gateway: if that
mapped it too, a model's code that cuts the file short would end it (SIGBUS). Before a worker runs requests it writes
their numbers here, so that the gateway knows, without one message more, which requests a dead worker had begun (retried
once, alone) and which it had not (simply sent again), and since when one has been running. Entries are not cleared: an
answer may be lost with its worker after it was given, and such a request counts as begun.

    SLOTS × (uint64 request number, uint64 CLOCK_MONOTONIC nanoseconds), little-endian, a ring; 0 = unused
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from typing import Dict, Iterable, Optional

SLOTS = 1024
_SLOT = struct.Struct("<QQ")
SIZE = SLOTS * _SLOT.size


class Journal:
    """Written by the worker (`begin`), read by the gateway (`begun`)."""

    def __init__(self, path: str, *, create: bool = False) -> None:
        flags = os.O_RDWR | os.O_CLOEXEC | ((os.O_CREAT | os.O_EXCL) if create else 0)
        descriptor = os.open(path, flags, 0o600)
        try:
            if create:
                # Its blocks are taken now: on a full disk this fails, while touching the mapped page would be SIGBUS.
                os.posix_fallocate(descriptor, 0, SIZE)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        self._page: Optional[mmap.mmap] = None
        self._next = 0

    def begin(self, ids: Iterable[int]) -> None:
        """Note that these requests begin now. One thread at a time."""
        if self._page is None:
            self._page = mmap.mmap(self._descriptor, SIZE)
        now = time.monotonic_ns()
        for number in ids:
            _SLOT.pack_into(self._page, self._next * _SLOT.size, number, now)
            self._next = (self._next + 1) % SLOTS

    @property
    def whole(self) -> bool:
        """Whether nobody has cut it short: else it says nothing about what was not begun."""
        return os.fstat(self._descriptor).st_size >= SIZE

    def begun(self) -> Dict[int, float]:
        """The numbers of the last SLOTS requests that were begun, and when last: seconds of CLOCK_MONOTONIC."""
        found: Dict[int, int] = {}
        content = os.pread(self._descriptor, SIZE, 0)
        now = time.monotonic_ns()
        for number, at in _SLOT.iter_unpack(content[: len(content) // _SLOT.size * _SLOT.size]):
            if number and at > found.get(number, 0):
                found[number] = min(at, now)
        return {number: at / 1e9 for number, at in found.items()}

    def close(self) -> None:
        if self._page is not None:
            self._page.close()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
