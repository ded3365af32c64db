"""A load generator: one line of JSON and the request's body on stdin, what it saw as JSON on stdout.

With a rate, request number n is due at n / rate seconds; it takes the first free connection, and its latency
counts from when it was due (so a stall of the server is felt by all that were due meanwhile: "coordinated
omission" corrected). Without one, each connection sends as soon as it has its answer. Run by `load.py`.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import deque
from typing import Any
from urllib.parse import urlsplit

import uvloop


class Connection(asyncio.Protocol):
    """One keep-alive connection with one request under way at most."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._buffer = bytearray()
        self._wanted = -1  # bytes of the answer under way; -1: its head has not arrived
        self._status = ""
        self.due = 0.0

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def send(self, due: float) -> None:
        self.due = due
        self._transport.write(self._load.message)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._wanted < 0:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self._buffer[:end]).decode("latin-1").lower()
            self._status = head[9:12]
            length = next((line[15:] for line in head.split("\r\n") if line.startswith("content-length:")), "0")
            self._wanted = end + 4 + int(length)
        if len(self._buffer) >= self._wanted:
            self._buffer.clear()
            self._wanted = -1
            self._load.answered(self, self._status)

    def connection_lost(self, error: Exception | None) -> None:
        self._load.lost(self)


class Load:
    """The schedule, the free connections, and what came back."""

    def __init__(self, settings: dict[str, Any], body: bytes) -> None:
        place = urlsplit(settings["url"])
        self._host, self._port = place.hostname or "", place.port or 80
        headers = {"Host": place.netloc, **settings["headers"], "Content-Length": str(len(body))}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self.message = f"POST {place.path} HTTP/1.1\r\n{lines}\r\n".encode() + body
        self._rate = float(settings["rate"])
        self._seconds = float(settings["seconds"])
        self._connections = int(settings["connections"])
        self._free: deque[Connection] = deque()
        self._late: deque[float] = deque()
        self._latencies: dict[str, list[float]] = {}
        self._sent = self._done = 0
        self._sending = True
        self._finished = asyncio.Event()

    async def run(self) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        for _ in range(self._connections):
            _, connection = await loop.create_connection(lambda: Connection(self), self._host, self._port)
            self._free.append(connection)
        self._start = start = time.perf_counter()
        if self._rate:
            await self._on_schedule(start)
        else:
            for _ in range(len(self._free)):
                self._send(time.perf_counter())
            await asyncio.sleep(self._seconds)
        self._sending = False
        seconds = time.perf_counter() - start
        if self._done < self._sent:
            await asyncio.wait_for(self._finished.wait(), 60)
        return {"requests": self._done, "seconds": seconds, "statuses": self._summary()}

    async def _on_schedule(self, start: float) -> None:
        number, total = 0, int(self._rate * self._seconds)
        while number < total:
            now = time.perf_counter()
            while number < total and start + number / self._rate <= now:
                self._send(start + number / self._rate)
                number += 1
            if number < total:
                await asyncio.sleep(max(start + number / self._rate - time.perf_counter(), 0))

    def _send(self, due: float) -> None:
        self._sent += 1
        if self._free:
            self._free.popleft().send(due)
        else:
            self._late.append(due)

    def answered(self, connection: Connection, status: str) -> None:
        now = time.perf_counter()
        self._latencies.setdefault(status, []).append(now - connection.due)
        self._done += 1
        connection.due = 0.0
        if self._late:
            connection.send(self._late.popleft())
        elif self._sending and not self._rate:
            self._sent += 1
            connection.send(now)
        else:
            self._free.append(connection)
        if not self._sending and self._done == self._sent:
            self._finished.set()

    def lost(self, connection: Connection) -> None:
        """The server closed it: its request is lost, and so is the connection."""
        if connection.due:
            self._latencies.setdefault("lost", []).append(time.perf_counter() - connection.due)
            self._done += 1
        elif connection in self._free:
            self._free.remove(connection)

    def _summary(self) -> dict[str, dict[str, float]]:
        found = {}
        for status, latencies in self._latencies.items():
            latencies.sort()
            last = len(latencies) - 1
            found[status] = {
                "count": len(latencies),
                **{f"p{100 * part:g}": 1000 * latencies[round(part * last)] for part in (0.5, 0.99, 0.999)},
                "max": 1000 * latencies[-1],
            }
        return found


async def main() -> None:
    settings = json.loads(sys.stdin.buffer.readline())
    json.dump(await Load(settings, sys.stdin.buffer.read()).run(), sys.stdout)


if __name__ == "__main__":
    uvloop.run(main())
