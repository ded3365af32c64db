"""MLflow's advice for people who log models, kept out of the log of a server that loads them.

Every load of a PythonModel whose `predict` has no type hints warns of that, and MLflow undoes filters of the
`warnings` module: so the function that shows warnings is asked to leave this one out. All others are shown.
"""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from typing import Any, Iterator

_ADVICE = "Add type hints to the `predict` method"


@contextmanager
def without_advice() -> Iterator[None]:
    """Around a load of a model."""
    shown = warnings.showwarning

    def show(message: Any, *args: Any, **kwargs: Any) -> None:
        if _ADVICE not in str(message):
            shown(message, *args, **kwargs)

    warnings.showwarning = show
    try:
        yield
    finally:
        if warnings.showwarning is show:
            warnings.showwarning = shown
