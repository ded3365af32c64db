"""Memory, files and threads of the gateway, and the number of processes, each second; and whether they stay flat."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import linear_regression, median

import psutil

MIB = 1 << 20
#: What the median of the last minute may be above that of the minute after the warm-up: a part of it, and so much. Of
#: bodies that were let go the gateway's allocator keeps up to 64 MiB, or nothing (gateway/system/heap.py).
BOUNDS = {"rss": (0.05, 64.0), "fds": (0.0, 16.0), "threads": (0.0, 2.0), "processes": (0.0, 2.0)}
UNITS = {"rss": "RSS, MiB", "fds": "descriptors", "threads": "threads", "processes": "processes"}


@dataclass(frozen=True)
class Sample:
    at: float  # seconds since the begin
    rss: float  # MiB
    fds: float
    threads: float
    processes: float  # the gateway and all below it
    cpu: float  # seconds that the gateway has used


class Samples:
    """`run` takes them until it is cancelled."""

    def __init__(self, pid: int) -> None:
        self.all: list[Sample] = []
        self._process = psutil.Process(pid)
        self._begin = time.monotonic()

    async def run(self) -> None:
        while True:
            with contextlib.suppress(psutil.Error, OSError):
                self.all.append(self._take())
            await asyncio.sleep(1)

    def _take(self) -> Sample:
        process = self._process
        return Sample(
            at=time.monotonic() - self._begin,
            rss=process.memory_info().rss / MIB,
            fds=len(os.listdir(Path("/proc", str(process.pid), "fd"))),
            threads=process.num_threads(),
            processes=1 + len(process.children(recursive=True)),
            cpu=sum(process.cpu_times()[:2]),
        )

    def median(self, what: str, begin: float, end: float) -> float | None:
        """Of the samples between two seconds; None: there is none."""
        found = [getattr(sample, what) for sample in self.all if begin <= sample.at < end]
        return median(found) if found else None

    def slope(self, what: str, begin: float) -> float:
        """Growth per minute from this second on, by least squares."""
        found = [(sample.at / 60, getattr(sample, what)) for sample in self.all if sample.at >= begin]
        return linear_regression(*zip(*found, strict=True)).slope if len(found) > 1 else 0.0

    def grown(self, warm_up: float, seconds: float) -> list[str]:
        """What is not flat: the minute after the warm-up beside the last one, where they do not overlap."""
        if seconds < warm_up + 120:
            return []
        wrong = []
        for what, (part, more) in BOUNDS.items():
            first, last = self.median(what, warm_up, warm_up + 60), self.median(what, seconds - 60, seconds)
            if first is None or last is None:
                wrong.append(f"{UNITS[what]}: not measured")
            elif last > first * (1 + part) + more:
                wrong.append(f"{UNITS[what]}: {first:.0f} after the warm-up, {last:.0f} in the last minute")
        return wrong
