"""What changes the server, as every front offers it to operators: load, unload, reload, look at aliases now.

Nobody gets there but through `Control.admit`, which asks the guard (`security/guard.py`): a front cannot forget it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from ...protocol.errors import InvalidRequest, NotSupported
from ..models.catalog import Catalog
from ..models.follow import Follower
from ..security.guard import Approach, ControlGuard


class Control:
    """The door to the operators' acts on one listener."""

    def __init__(self, catalog: Catalog, follower: Follower, guard: ControlGuard, *, is_open: bool = True) -> None:
        """`is_open` False: not on this listener; whoever asks is told so, if it may be told anything."""
        self._operator = Operator(catalog, guard)
        self._follower = follower
        self._guard = guard
        self.is_open = is_open

    def admit(self, approach: Approach) -> Operator:
        """For whoever may change the server. Raises Forbidden, Unauthenticated and NotSupported."""
        if not self.is_open:
            self._refuse(approach)
        self._guard.check(approach)
        return self._operator

    def admit_signed(self, approach: Approach) -> Callable[[], None]:
        """For a message that proves itself by its signature: what tells that the registry has changed.

        The aliases that are followed are looked at now. Raises Forbidden and NotSupported.
        """
        if not self.is_open:
            self._refuse(approach)
        self._guard.check_page(approach)
        return self._follower.poke

    def _refuse(self, approach: Approach) -> None:
        self._guard.check_page(approach)
        raise NotSupported("loading, unloading and reloading are not open on this port: see server.admin")


class Operator:
    """The catalog as operators reach it, over HTTP or gRPC."""

    def __init__(self, catalog: Catalog, guard: ControlGuard) -> None:
        self._catalog = catalog
        self._guard = guard

    async def load(self, name: str, version: str | None, parameters: dict[str, Any]) -> None:
        """`parameters.config`: JSON text of keys that override the model's entry; `parameters.fetch`: whether its files
        are fetched also where they are in the cache. Raises leaves of ServingError."""
        config = parameters.get("config")
        if config is not None:
            try:
                config = orjson.loads(config)
            except (orjson.JSONDecodeError, TypeError):
                config = None
            if not isinstance(config, dict):
                raise InvalidRequest("parameters.config must be the text of a JSON object with keys of a model's entry")
            self._guard.check_overrides(config)
        anew = parameters.get("fetch", False)
        if not isinstance(anew, bool):
            raise InvalidRequest("parameters.fetch must be true (its files are fetched again) or false")
        await self._catalog.load(name, version, config, anew=anew)

    async def unload(self, name: str, version: str | None) -> None:
        await self._catalog.unload(name, version)

    async def reload(self) -> str:
        """What has changed, for people. Raises ConfigError, having changed nothing."""
        return str(await self._catalog.reload())
