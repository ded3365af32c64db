"""The flavour table: models of many flavours, each with a request and what `load_model(...).predict` says of it."""

from __future__ import annotations

from . import of_agents, of_boosting, of_deep, of_pyfunc, of_sklearn, of_statistics
from .parts import CASES, DEEP

__all__ = ["CASES", "DEEP", "of_agents", "of_boosting", "of_deep", "of_pyfunc", "of_sklearn", "of_statistics"]
