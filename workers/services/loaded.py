"""A service loaded by its own `load`, in a user's script as in a worker."""

from __future__ import annotations

import inspect
from typing import Any

from ...protocol.errors import LoadError, ServingError
from .async_executor import result_of
from .base import ModelhubModelService


def loaded(service: ModelhubModelService) -> ModelhubModelService:
    """The service after its own `load`, unless it is loaded. Raises LoadError if it says that it is not ready."""
    if service.ready:
        return service
    result: Any = service.load()
    if inspect.isawaitable(result):
        result = result_of(result)
    if result is False:
        raise LoadError(f"load() of {type(service).__name__} returned False")
    service.ready = True  # a load() of the user's own need not say so
    return service


def describe(error: BaseException) -> str:
    """One line for people about a load that failed."""
    return error.message if isinstance(error, ServingError) else f"{type(error).__name__}: {error}"
