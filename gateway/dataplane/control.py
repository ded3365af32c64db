"""What changes the server, as every front offers it to operators: load, unload, reload, look at aliases now."""

from __future__ import annotations

from typing import Any

import orjson

from ...protocol.errors import InvalidRequest
from ..models.catalog import Catalog
from ..models.follow import Follower


class Control:
    """The catalog and the follower as operators reach them, over HTTP or gRPC."""

    def __init__(self, catalog: Catalog, follower: Follower) -> None:
        self._catalog = catalog
        self._follower = follower

    async def load(self, name: str, version: str | None, parameters: dict[str, Any]) -> None:
        """`parameters.config`: JSON text of keys that override the model's entry. Raises leaves of ServingError."""
        config = parameters.get("config")
        if config is not None:
            try:
                config = orjson.loads(config)
            except (orjson.JSONDecodeError, TypeError):
                config = None
            if not isinstance(config, dict):
                raise InvalidRequest("parameters.config must be the text of a JSON object with keys of a model's entry")
        await self._catalog.load(name, version, config)

    async def unload(self, name: str, version: str | None) -> None:
        await self._catalog.unload(name, version)

    async def reload(self) -> str:
        """What has changed, for people. Raises ConfigError, having changed nothing."""
        return str(await self._catalog.reload())

    def poke(self) -> None:
        """The registry has changed: look at the followed aliases now."""
        self._follower.poke()
