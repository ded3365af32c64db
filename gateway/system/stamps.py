"""Whether files and folders have changed: cheap to ask, before what was read of them is believed once more."""

from __future__ import annotations

import os
from collections.abc import Iterable

#: Nanoseconds of the last change (of a folder: of what lies in it), size and number of a file; None: it is not there.
Stamp = tuple[int, int, int] | None
#: Nanoseconds that file systems may take for one moment.
_COARSE = 50_000_000


def stamps(paths: Iterable[str]) -> dict[str, Stamp]:
    """Of each path. Blocks for a moment: for a thread."""
    found: dict[str, Stamp] = {}
    for path in paths:
        try:
            status = os.stat(path)
        except OSError:
            found[path] = None
        else:
            found[path] = status.st_mtime_ns, status.st_size, status.st_ino
    return found


def settled(found: dict[str, Stamp], since: int) -> bool:
    """Whether none of them was changed since then (nanoseconds since the epoch), or so shortly before that a second
    change would not show."""
    return all(stamp is None or stamp[0] < since - _COARSE for stamp in found.values())
