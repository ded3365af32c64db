"""SIGHUP before the server can take it: not its end, but a reload as soon as it can.

Imported first by `modelhub serve`: what it imports takes half a second, in which a reload may be asked for already.
"""

from __future__ import annotations

import signal

_early = False


def remember() -> None:
    """From now on SIGHUP is noted, until the server has a handler of its own. Not inherited by what is started."""
    signal.signal(signal.SIGHUP, _note)


def came() -> bool:
    """Has one come meanwhile?"""
    return _early


def _note(*_: object) -> None:
    global _early
    _early = True
