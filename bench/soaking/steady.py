"""The base load, a program of its own: a fixed rate over kept connections, the VALUE of each answer checked.

One line of JSON on stdin begins it, the end of stdin ends it; each second it says on stdout what it has seen since the
last line: {"requests", "failures": [text], "ms": [latency]}. A latency counts from when its request was due.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from typing import Any

import aiohttp
import uvloop
from clients import JSON, body_of, values_of

#: Connections of one model.
CONNECTIONS = 4
#: Seconds that an answer may take; the gateway's own limit is 30.
TIMEOUT = 40
#: Seconds from the end of stdin on that requests under way are given.
LAST = 45


class Steady:
    def __init__(self, url: str, rate: float, pairs: list[tuple[list[float], int]]) -> None:
        """`rate`: requests a second of each model; `pairs`: rows and what iris answers to them."""
        self._url = url
        self._gap = 1 / rate
        self._pairs = pairs
        self._requests = 0
        self._failures: list[str] = []
        self._latencies: list[float] = []
        self._ending = False

    async def run(self) -> None:
        limit = aiohttp.ClientTimeout(TIMEOUT)
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=300)
        async with aiohttp.ClientSession(connector=connector, timeout=limit) as session:
            telling = asyncio.create_task(self._tell())
            loads = [
                asyncio.create_task(self._connection(session, model, first, begin))
                for begin in (time.monotonic(),)
                for model in ("identity", "iris")
                for first in range(CONNECTIONS)
            ]
            await asyncio.to_thread(sys.stdin.read)
            self._ending = True
            await asyncio.wait(loads, timeout=LAST)
            telling.cancel()
            self._say()

    async def _connection(self, session: aiohttp.ClientSession, model: str, first: int, begin: float) -> None:
        """Every CONNECTIONS-th request of this model, one after the other."""
        for number in itertools.count(first, CONNECTIONS):
            due = begin + number * self._gap
            await asyncio.sleep(max(due - time.monotonic(), 0))
            if self._ending:
                return
            row, wanted = self._question(model, number)
            self._requests += 1
            wrong = await self._ask(session, model, row, wanted)
            self._latencies.append((time.monotonic() - due) * 1000)
            if wrong:
                self._failures.append(f"{model}: {wrong}")

    def _question(self, model: str, number: int) -> tuple[list[float], list[float]]:
        """A row, and the only right answer to it."""
        if model == "identity":
            row = [float(number % (1 << 24)), 0.5, -1.0]
            return row, row
        row, kind = self._pairs[number % len(self._pairs)]
        return row, [kind]

    async def _ask(self, session: aiohttp.ClientSession, model: str, row: list[float], wanted: list[float]) -> str:
        """What was wrong; "": nothing."""
        url = f"{self._url}/v2/models/{model}/infer"
        try:
            async with session.post(url, data=body_of(*row), headers=JSON) as answer:
                body = await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return repr(error)
        if answer.status != 200:
            return f"{answer.status} {body[:300].decode(errors='replace')}"
        found = values_of(body)
        return "" if found == wanted else f"{row} is answered with {found}, not with {wanted}"

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(1)
            self._say()

    def _say(self) -> None:
        said: dict[str, Any] = {"requests": self._requests, "failures": self._failures, "ms": self._latencies}
        print(json.dumps(said), flush=True)
        self._requests, self._failures, self._latencies = 0, [], []


if __name__ == "__main__":
    settings = json.loads(sys.stdin.readline())
    uvloop.run(Steady(settings["url"], settings["rate"], settings["pairs"]).run())
