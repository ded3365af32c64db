"""Whether a user's script runs once more only for its definitions: nothing is loaded or started then."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Iterator


class StartReached(BaseException):
    """ModelServer.start() was called while the script runs once more: it has said what it has to say."""


class _Rerun:
    active = False


def rerunning() -> bool:
    """Is the script being run once more?"""
    return _Rerun.active


@contextmanager
def once_more() -> Iterator[None]:
    """Around a script's run for its definitions; `StartReached` ends it."""
    _Rerun.active = True
    try:
        yield
    except StartReached:
        pass
    finally:
        _Rerun.active = False
