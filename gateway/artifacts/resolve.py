"""What the entries of a configuration mean now: `modelhub check --resolve`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from ...protocol.errors import ServingError
from .fetcher import Fetcher, Resolved
from .uris import local_path, local_source


def resolve_all(settings: Any, log: Callable[[str], None] = lambda line: None) -> list[Resolved]:
    """Ask for every entry whether its URI exists and what it means now, in the order of the entries.

    Runs an event loop of its own. `settings.entries` have `name` and `uri`.
    """
    return asyncio.run(_resolve_entries([(entry.name, str(entry.uri)) for entry in settings.entries if entry.uri], log))


async def _resolve_entries(entries: Sequence[tuple[str, str]], log: Callable[[str], None]) -> list[Resolved]:
    fetcher = Fetcher(log)
    try:
        return list(await asyncio.gather(*(_resolve(fetcher, name, uri) for name, uri in entries)))
    finally:
        await fetcher.close()


async def _resolve(fetcher: Fetcher, name: str, uri: str) -> Resolved:
    try:
        path = local_path(uri)
        if path is not None:
            return Resolved(name, uri, source=await asyncio.to_thread(local_source, path))
        found = await fetcher.resolve(uri)
    except ServingError as error:
        return Resolved(name, uri, error=error.message)
    return Resolved(name, uri, found.version, found.source)
