"""Processes that tests start: they end with the test session, whoever ends it, and none is left behind.

`adopt_orphans` makes this process the parent of every process whose own parent died below it: `descendants`
then sees a gateway's workers even after the gateway is gone.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from threading import Event
from typing import TypeVar

import psutil

T = TypeVar("T")
PR_SET_CHILD_SUBREAPER = 36
HERE = Path(__file__).parent


def adopt_orphans() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)


def guarded(command: list[str], *, whole_group: bool = False) -> list[str]:
    """The command line that runs `command` so that it is killed when its parent ends.

    With `whole_group` a small process stays above it and kills everything that it started, too.
    """
    return [sys.executable, str(HERE / "guard.py"), "group" if whole_group else "exec", *command]


def alive(process: psutil.Process) -> bool:
    """Whether it runs: a zombie does not, nor does another process that was given its id."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def descendants(pid: int | None = None) -> list[psutil.Process]:
    """The running processes below `pid` (default: this one); multiprocessing's own helper is not counted."""
    try:
        found = psutil.Process(pid or os.getpid()).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return [process for process in found if alive(process) and "resource_tracker" not in describe(process)]


def describe(process: psutil.Process) -> str:
    """`pid: command line`, for messages."""
    try:
        return f"{process.pid}: {' '.join(process.cmdline()).strip() or process.name()}"[:200]
    except psutil.Error:
        return f"{process.pid}: ended"


def survivors(processes: Iterable[psutil.Process], timeout: float) -> list[psutil.Process]:
    """Those that still run after at most `timeout` seconds."""
    remaining = [process for process in processes if alive(process)]
    try:
        until(lambda: not any(alive(process) for process in remaining), timeout)
    except TimeoutError:
        pass
    return [process for process in remaining if alive(process)]


def until(condition: Callable[[], T], timeout: float = 30, what: str = "the condition") -> T:
    """The first true value of `condition`, asked every 20 ms; TimeoutError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    pause = Event()
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout:g} s")
        pause.wait(0.02)
