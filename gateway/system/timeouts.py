"""`timeout` of asyncio for Python 3.10 too, where it comes from the package that aiohttp brings."""

from __future__ import annotations

import sys

if sys.version_info >= (3, 11):
    from asyncio import timeout
else:
    from async_timeout import timeout

__all__ = ["timeout"]
