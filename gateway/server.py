"""The gateway process, from start to end. `_serve` reads as its table of contents."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import resource
import shlex
import signal
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import uvloop
from aiohttp import web

from .. import __version__
from ..config.settings import ServerSettings, Settings
from ..protocol.errors import ConfigError
from ..workers.process import forbid_dumps
from .app import make_admin_app, make_app, make_runner
from .artifacts import ArtifactStore
from .channel import Channel
from .environments import Environments
from .fetch import Fetcher
from .fork_server import ForkServers, output_log
from .lifecycle import ModelState
from .log import configure
from .memory import INTERVAL, MemoryWatch, PodMemory
from .metrics import Metrics
from .model import ModelVersion
from .registry import Registry
from .resources import Resources
from .runtime import make_runtime_dir, remove_runtime_dir

log = logging.getLogger(__name__)

#: What a compressed body may become, in multiples of the largest body: more is a bomb.
INFLATE_FACTOR = 4
#: A curl line with an example longer than this many characters is not worth pasting.
MAX_CURL = 2000


def run(settings: Settings, warnings: Sequence[str] = ()) -> int:
    """Serve until SIGTERM or SIGINT. Returns the exit code."""
    configure(settings.server.log.level, settings.server.log.format)
    for warning in warnings:
        log.warning("%s", warning)
    forbid_dumps()
    _raise_descriptor_limit()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(settings))


def _raise_descriptor_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _serve(settings: Settings) -> int:
    stop = _stop_signals()
    async with AsyncExitStack() as stack:
        resources = await stack.enter_async_context(_resources(settings))
        registry = _registry(settings, resources)
        await stack.enter_async_context(_listening(settings.server, registry, resources))
        loads = [version.load() for version in registry.all()]
        watch = asyncio.create_task(_watch_memory(registry), name="memory")
        await stop.wait()
        watch.cancel()
        await _drain(registry, settings.server.shutdown_grace, stop)
        for load in loads:
            load.cancel()
    return 0


def _stop_signals() -> asyncio.Event:
    """Signals only set an event; the loop acts."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


@asynccontextmanager
async def _resources(settings: Settings) -> AsyncIterator[Resources]:
    server = settings.server
    runtime_dir = make_runtime_dir()
    state_dir = Path(server.state_dir)
    metrics = Metrics()
    fetcher = Fetcher(lambda line: output_log.info("%s", line, extra={"source": "fetcher"}))
    resources = Resources(
        runtime_dir=runtime_dir,
        channel=Channel(runtime_dir),
        fork_servers=ForkServers(dict(os.environ), runtime_dir),
        environments=Environments(
            state_dir,
            pythons=[Path(python) for python in server.pythons],
            build=server.environments.build,
            report=lambda line: log.info("%s", line),
        ),
        fetcher=fetcher,
        artifacts=ArtifactStore(state_dir, server.artifact_cache, fetcher, lambda line: log.info("%s", line)),
        metrics=metrics,
        max_inflated=server.max_body * INFLATE_FACTOR,
    )
    try:
        yield resources
    finally:
        await resources.fork_servers.close()
        await resources.artifacts.close()
        await fetcher.close()
        resources.channel.close()
        remove_runtime_dir(runtime_dir)


def _registry(settings: Settings, resources: Resources) -> Registry:
    registry = Registry(settings.server.readiness, strict=settings.server.readiness_strict)
    for entry in settings.entries:
        registry.add(ModelVersion(entry.model, entry.group, resources))
    return registry


@asynccontextmanager
async def _listening(server: ServerSettings, registry: Registry, resources: Resources) -> AsyncIterator[None]:
    """Open the ports, say where, and leave a note of it for `modelhub status`."""
    started = time.time()
    place = server.admin_place
    runners: list[web.AppRunner] = []
    note = Path(server.state_dir) / "gateways" / f"{os.getpid()}.json"
    try:
        app = make_app(registry, server, resources.metrics, admin=place == "same")
        url = await _listen(app, server.host, server.port, runners)
        admin_url = url if place == "same" else ""
        if isinstance(place, int):
            admin = make_admin_app(registry, server, resources.metrics)
            admin_url = await _listen(admin, "127.0.0.1", place, runners)
        note.parent.mkdir(parents=True, exist_ok=True)
        facts = {"pid": os.getpid(), "url": url, "admin_url": admin_url, "started": started}
        note.write_text(json.dumps(facts), encoding="utf-8")
        log.info("modelhub-serving %s listens on %s", __version__, url)
        if not server.is_loopback:
            log.warning(
                "%s is open to the network and there is no authentication: whoever reaches the port can use "
                "the models (--server.host=127.0.0.1 keeps it to this machine)",
                server.host,
            )
        resources.on_change = _announcer(url)
        yield
    finally:
        note.unlink(missing_ok=True)
        for runner in reversed(runners):
            await runner.cleanup()


async def _listen(app: web.Application, host: str, port: int, runners: list[web.AppRunner]) -> str:
    runner = make_runner(app)
    await runner.setup()
    runners.append(runner)
    site = web.TCPSite(runner, host, port, backlog=1024)
    try:
        await site.start()
    except OSError as error:
        hint = "choose another with --server.port, or 0 for any free one"
        raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror or error}; {hint}") from None
    address = runner.addresses[0]
    shown = "127.0.0.1" if host in ("0.0.0.0", "::") else host
    return f"http://{f'[{shown}]' if ':' in shown else shown}:{address[1]}"


def _announcer(url: str) -> Callable[[ModelVersion], None]:
    """One line per model as it becomes ready, with a curl to try it."""

    def announce(version: ModelVersion) -> None:
        if version.state is not ModelState.READY:
            return
        log.info(
            "%s is ready after %.2f s (environment %s, Python %s)",
            version.label,
            version.load_seconds,
            version.environment,
            version.python,
        )
        line = curl(url, version)
        if line:
            log.info("try it: %s", line)

    return announce


def curl(url: str, version: ModelVersion) -> str:
    """A line to paste into a shell, made from the model's own input example; "" where there is none."""
    if not version.example or len(version.example) > MAX_CURL:
        return ""
    body = version.example.decode()
    return f"curl -s {url}/v2/models/{version.name}/infer -H 'Content-Type: application/json' -d {shlex.quote(body)}"


async def _watch_memory(registry: Registry) -> None:
    watch = MemoryWatch(PodMemory())
    while True:
        await watch.look([replica for version in registry.all() for replica in version.replicas])
        await asyncio.sleep(INTERVAL)


async def _drain(registry: Registry, grace: float, stop: asyncio.Event) -> None:
    """Not ready any more, no new loads; requests in flight are answered; then the workers end."""
    registry.draining = True
    log.info("stopping: requests in flight have %g s to end", grace)
    started = time.monotonic()
    await asyncio.gather(*(version.unload(grace, "the server stops") for version in registry.all()))
    log.info("stopped after %.1f s", time.monotonic() - started)
