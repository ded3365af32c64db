"""The flavour table: models of many flavours, each with a request and what `load_model(...).predict` says of it."""

from __future__ import annotations

from . import of_boosting, of_pyfunc, of_sklearn, of_statistics
from .parts import CASES

__all__ = ["CASES", "of_boosting", "of_pyfunc", "of_sklearn", "of_statistics"]
