"""Files that may be open, and how many of them connections may take: workers must start when everybody has come."""

from __future__ import annotations

import resource

#: Kept for everything but connections, at the least: workers' pipes and sockets, models, logs; of many, a quarter.
OTHERS, OTHERS_MOST = 256, 4096


def files_for_connections(kinds: int = 1) -> int:
    """So many connections of each of so many kinds (HTTP, gRPC)."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max((files - max(OTHERS, min(files // 4, OTHERS_MOST))) // kinds, 1)
