"""The life of a model version: one enum, and the moves between its members that are legal."""

from __future__ import annotations

import enum


class ModelState(enum.Enum):
    """What is stored. What clients are told (readiness, repository index) is derived from it."""

    UNLOADED = "UNLOADED"
    PREPARING = "PREPARING"  # artifacts are fetched, the environment is built
    LOADING = "LOADING"  # a worker process loads the model
    WARMING = "WARMING"  # the model's own input example goes through the whole path
    READY = "READY"
    DRAINING = "DRAINING"  # no new requests; those it has are answered
    FAILED = "FAILED"

    @property
    def loading(self) -> bool:
        """On its way to READY: requests may wait for it."""
        return self in _LOADING


_LOADING = frozenset({ModelState.PREPARING, ModelState.LOADING, ModelState.WARMING})

LEGAL: dict[ModelState, frozenset[ModelState]] = {
    ModelState.UNLOADED: frozenset({ModelState.PREPARING}),
    # back to UNLOADED when its group has no room
    ModelState.PREPARING: frozenset({ModelState.LOADING, ModelState.DRAINING, ModelState.FAILED, ModelState.UNLOADED}),
    ModelState.LOADING: frozenset({ModelState.WARMING, ModelState.READY, ModelState.DRAINING, ModelState.FAILED}),
    # back to LOADING when the worker dies while it is warmed and a successor starts
    ModelState.WARMING: frozenset({ModelState.LOADING, ModelState.READY, ModelState.DRAINING, ModelState.FAILED}),
    ModelState.READY: frozenset({ModelState.DRAINING, ModelState.FAILED}),
    ModelState.DRAINING: frozenset({ModelState.UNLOADED}),
    ModelState.FAILED: frozenset({ModelState.PREPARING, ModelState.DRAINING}),
}
