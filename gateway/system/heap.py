"""How this process treats its memory: set once, when what it needs for its whole life is there. Called by `server.py`.

Both settings trade a little memory for time. Full collections of garbage looked at everything that was ever imported,
for tens of milliseconds, again and again; and bodies of a megabyte were given back to the kernel and faulted in anew,
page by page, for every request.
"""

from __future__ import annotations

import ctypes
import gc

#: Of glibc's malloc.h. Blocks up to this size come from the heap, and so much of it is kept when it is free.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_REUSED = 16 << 20
_KEPT = 64 << 20


def settle() -> None:
    """What is there now stays; what comes and goes is looked at less often, and its memory is used again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return  # another C library
    mallopt(_M_MMAP_THRESHOLD, _LARGEST_REUSED)
    mallopt(_M_TRIM_THRESHOLD, _KEPT)
