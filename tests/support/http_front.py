"""The gateway's HTTP front on a real port, before models that are made for a test, spoken to byte by byte."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from aiohttp import web

from modelhub.serving.config.server import ServerSettings
from modelhub.serving.config.settings import ModelSettings
from modelhub.serving.gateway.dataplane.budget import Budget
from modelhub.serving.gateway.dataplane.control import Control
from modelhub.serving.gateway.dataplane.descriptions import Descriptions
from modelhub.serving.gateway.dataplane.inference import Inference
from modelhub.serving.gateway.http.app import make_admin_app, make_app
from modelhub.serving.gateway.http.runner import make_runner
from modelhub.serving.gateway.metrics.scrape import Metrics
from modelhub.serving.gateway.models.registry import Registry
from modelhub.serving.gateway.models.states import ModelState
from modelhub.serving.gateway.security.guard import guard_of
from modelhub.serving.gateway.telemetry.counters import Counters
from modelhub.serving.gateway.telemetry.stats import ModelStats
from modelhub.serving.protocol.errors import QueueFull
from modelhub.serving.protocol.messages import InferReply, InferRequest

Answering = Callable[[InferRequest, Any], Awaitable[tuple[InferReply, Any]]]


class Answer(NamedTuple):
    """What came back; header names are lower case, those that came twice are joined with commas."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    def assert_error(self, status: int, *words: str) -> None:
        """It is a V2 error of this status, whose message has these words."""
        assert self.status == status, self
        assert self.headers["content-type"] == "application/json"
        assert list(self.json()) == ["error"]
        for word in words:
            assert word in self.json()["error"]


async def echo(request: InferRequest, body: Any) -> tuple[InferReply, Any]:
    return InferReply(id=request.id), bytes(body)


class Model:
    """A model version without processes: `answering` is its worker."""

    def __init__(self, name: str = "iris", version: str = "1", answering: Answering = echo) -> None:
        self.name, self.version, self.label = name, version, f"{name}/{version}"
        self.uri = self.shown_uri = "./iris"
        self.group = None
        self.state = ModelState.READY
        self.serves, self.successor = True, None
        self.reason = self.stale = ""
        self.timeout = 30.0
        self.phase_seconds = 2.14
        self.wants_headers = self.streams = False
        self.environment = self.python = "shared"
        self.load_seconds, self.retried, self.example = 0.5, 0, b""
        self.queued, self.in_flight = 3, 2
        self.full = False  # its queue
        self.entry = ModelSettings(name="any", uri=self.uri)
        self.replicas: list[Any] = []
        self.stats = ModelStats()
        self.known_metadata: dict[str, Any] = {"platform": "mlflow_sklearn", "inputs": [], "outputs": []}
        self.answering = answering
        #: What `infer` was given, in order.
        self.was_taken: list[int] = []
        self.asked: list[tuple[InferRequest, Any]] = []

    @property
    def may_stream(self) -> bool:
        return self.streams or self.state is not ModelState.READY

    @property
    def ready(self) -> bool:
        return self.state is ModelState.READY

    def report(self) -> tuple[ModelState, str, float]:
        return self.state, self.reason, self.phase_seconds

    def taken(self, request: InferRequest, size: int) -> None:
        self.was_taken.append(size)

    def check_queue(self) -> None:
        if self.full:
            raise QueueFull("its queue is full", retry_after=2.0)

    async def infer(self, request: InferRequest, body: Any, chunk: Any = None) -> tuple[InferReply, Any]:
        self.asked.append((request, body))
        return await self.answering(request, body)


class Nothing:
    """The catalog and the follower behind these models, which have neither: keeps what was asked of them."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    async def load(self, *what: Any, anew: bool) -> None:
        self.asked.append(("load", *what, *(("anew",) if anew else ())))

    async def unload(self, *what: Any) -> None:
        self.asked.append(("unload", *what))

    async def reload(self) -> str:
        self.asked.append(("reload",))
        return "nothing has changed"

    def poke(self) -> None:
        self.asked.append(("poke",))


class Front:
    """A listening front; `send` and `request` each make a connection of their own."""

    def __init__(self, port: int, counters: Counters, budget: Budget, operators: Nothing) -> None:
        self.port = port
        self.operators = operators
        self.counters = counters
        self.budget = budget

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            yield reader, writer
        finally:
            writer.close()
            await asyncio.gather(writer.wait_closed(), return_exceptions=True)

    async def send(self, raw: bytes, *, head: bool = False) -> Answer:
        """The answer to these very bytes; `head`: it has no body."""
        async with self.connection() as (reader, writer):
            writer.write(raw)
            return await read_answer(reader, head=head)

    async def request(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Answer:
        return await self.send(to_bytes(method, path, body, headers), head=method == "HEAD")

    async def get(self, path: str, headers: dict[str, str] | None = None) -> Answer:
        return await self.request("GET", path, None, headers)

    async def post(self, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Answer:
        return await self.request("POST", path, body, headers)


def to_bytes(method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> bytes:
    """A request as bytes: Host, Content-Length where there is a body, and nothing that is not in `headers`."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


async def read_answer(reader: asyncio.StreamReader, *, head: bool = False) -> Answer:
    """One answer from a connection that may stay open."""
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        name = name.lower()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    body = b"" if head else await reader.readexactly(int(headers.get("content-length", "0")))
    return Answer(int(first.split()[1]), headers, body)


@asynccontextmanager
async def serving(
    *models: Model, admin_only: bool = False, admin: bool = True, token: str | None = None, **settings: Any
) -> AsyncIterator[Front]:
    """A front before these models, with these server settings, until the end of the block.

    `token`: what operators must show; None: nothing.
    """
    registry = Registry()
    for model in models:
        registry.add(model)  # type: ignore[arg-type]
    counters = Counters()
    server = ServerSettings(**{"shutdown_grace": 1, **settings})
    budget = Budget(server.max_body, server.max_buffered or 1 << 30)
    about: Any = Descriptions(registry, None, control=admin)  # type: ignore[arg-type]
    guard = guard_of("127.0.0.1", token, hosts=server.admin_hosts, overrides=server.load_overrides)
    operators = Nothing()
    control = Control(operators, operators, guard, is_open=admin)  # type: ignore[arg-type]
    if admin_only:
        app = make_admin_app(about, control)
    else:
        metrics = Metrics(counters, budget)
        app = make_app(Inference(registry, budget), about, metrics, counters, control)
    grace, limit = server.shutdown_grace, server.max_connections
    patience = server.write_timeout
    runner = make_runner(
        app,
        grace=grace,
        max_connections=limit,
        count=counters.error,
        write_timeout=patience,
        max_headers=server.max_headers,
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield Front(runner.addresses[0][1], counters, budget, operators)
    finally:
        await runner.cleanup()
