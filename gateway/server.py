"""The gateway process, from start to end. `_serve` reads as its table of contents."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import resource
import shlex
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import uvloop

from ..config.settings import Settings
from ..protocol.errors import ConfigError
from ..workers.process import forbid_dumps
from . import hangup, heap, tracing
from .artifacts import ArtifactStore
from .catalog import Catalog
from .channel import Channel
from .environments import Environments
from .fetch import Fetcher
from .folder_watch import FolderWatch
from .follow import Follower
from .fork_server import ForkServers, output_log
from .lifecycle import ModelState
from .listen import listening
from .log import configure
from .memory import INTERVAL, MemoryWatch, PodMemory
from .memory_book import MemoryBook
from .metrics import Metrics
from .model import ModelVersion
from .orphans import reap_orphans
from .progress import Display
from .registry import Registry
from .resources import Resources
from .routes_control import Control
from .runtime import make_runtime_dir, remove_runtime_dir
from .script_services import Script

log = logging.getLogger("modelhub.server")

#: What a compressed body may become, in multiples of the largest body: more is a bomb.
INFLATE_FACTOR = 4
#: Seconds between two writes of the sizes that were learnt.
SAVE_EVERY = 30
#: A curl line with an example longer than this many characters is not worth pasting.
MAX_CURL = 2000


def run(
    settings: Settings,
    warnings: Sequence[str] = (),
    *,
    read_again: Callable[[], Settings] | None = None,
    script: Script | None = None,
) -> int:
    """Serve until SIGTERM or SIGINT. Returns the exit code.

    `read_again` reads the configuration anew, for a reload; `script`: whose services these are, if any.
    """
    display = Display()
    configure(settings.server.log.level, settings.server.log.format, display.stream)
    for warning in warnings:
        log.warning("%s", warning)
    forbid_dumps()
    _raise_descriptor_limit()
    try:
        return int(uvloop.run(_serve(settings, read_again, script, display)))
    finally:
        display.close()


def _raise_descriptor_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _serve(
    settings: Settings, read_again: Callable[[], Settings] | None, script: Script | None, display: Display
) -> int:
    server = settings.server
    stop = StopSignals()
    await asyncio.to_thread(_make_state_dir, Path(server.state_dir))
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(_traces())
        resources = await stack.enter_async_context(_resources(settings, script, display))
        registry = Registry(server.readiness, strict=server.readiness_strict)
        book = MemoryBook(Path(server.state_dir))
        catalog = Catalog(settings, registry, resources, book, read_again)
        follower = Follower(catalog, resources.fetcher)
        control = Control(catalog, follower)
        url = await stack.enter_async_context(listening(server, registry, resources.metrics, control))
        resources.on_change = _announcer(url)
        catalog.load_eager()
        heap.settle()
        watchers = [
            asyncio.create_task(follower.run(), name="follow"),
            asyncio.create_task(FolderWatch(catalog).run(), name="folders"),
            asyncio.create_task(_each_second(catalog, registry, book), name="each second"),
            asyncio.create_task(_reload_on_hangup(catalog), name="reload"),
            asyncio.create_task(reap_orphans(), name="orphans"),
        ]
        await stop.asked.wait()
        for watcher in watchers:
            watcher.cancel()
        await _drain(catalog, registry, server.shutdown_grace, stop.hurry)
        await asyncio.to_thread(book.save)
    return 0


def _make_state_dir(path: Path) -> None:
    """Raises ConfigError where nothing can be kept."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise ConfigError(
            f"nothing can be written to server.state_dir, {path}: {error.strerror or error}; name another folder with "
            "--server.state_dir or MODELHUB_SERVER_STATE_DIR"
        ) from None


class StopSignals:
    """SIGTERM and SIGINT only set an event; the loop acts. A second one means: now."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.hurry = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._on_signal)

    def _on_signal(self) -> None:
        (self.hurry if self.asked.is_set() else self.asked).set()


@asynccontextmanager
async def _traces() -> AsyncIterator[None]:
    await asyncio.to_thread(tracing.start)
    yield
    await asyncio.to_thread(tracing.stop)


@asynccontextmanager
async def _resources(settings: Settings, script: Script | None, display: Display) -> AsyncIterator[Resources]:
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
            report=display.step,
            tail=display.tail,
            built=metrics.environment_built,
        ),
        fetcher=fetcher,
        artifacts=ArtifactStore(state_dir, server.artifact_cache, fetcher, lambda line: log.info("%s", line)),
        metrics=metrics,
        max_inflated=server.max_body * INFLATE_FACTOR,
        display=display,
        script=script,
    )
    metrics.fork_servers = resources.fork_servers.running
    if script is not None:
        resources.fork_servers.adopt(script.environment, script.descriptor)
    try:
        yield resources
    finally:
        await resources.fork_servers.close()
        await resources.environments.close()
        await resources.artifacts.close()
        await fetcher.close()
        resources.channel.close()
        remove_runtime_dir(runtime_dir)


def _announcer(url: str) -> Callable[[ModelVersion], None]:
    """One line per model as it becomes ready; the first time with a curl to try it."""
    shown: set[str] = set()

    def announce(version: ModelVersion) -> None:
        if version.state is not ModelState.READY:
            return
        log.info(
            "%s is ready after %.2f s (environment %s, Python %s)",
            version.label,
            version.load_seconds,
            version.environment,
            version.python,
            extra=version.log_fields,
        )
        line = curl(url, version)
        if line and version.name not in shown:
            shown.add(version.name)
            log.info("try it: %s", line)

    return announce


def curl(url: str, version: ModelVersion) -> str:
    """A line to paste into a shell, made from the model's own input example; "" where there is none."""
    if not version.example or len(version.example) > MAX_CURL:
        return ""
    body = version.example.decode()
    return f"curl -s {url}/v2/models/{version.name}/infer -H 'Content-Type: application/json' -d {shlex.quote(body)}"


async def _each_second(catalog: Catalog, registry: Registry, book: MemoryBook) -> None:
    """Measure the workers, enforce limits and budgets, and now and then write down what was learnt."""
    watch = MemoryWatch(PodMemory(), catalog.evict_one)
    for turn in itertools.count(1):
        try:
            await watch.look([replica for version in registry.all() for replica in version.replicas])
            await catalog.tick()
        except Exception:
            log.exception("the memory watch failed this time")
        if turn % SAVE_EVERY == 0:
            await asyncio.to_thread(book.save)
        await asyncio.sleep(INTERVAL)


async def _reload_on_hangup(catalog: Catalog) -> None:
    """SIGHUP reads the configuration again."""
    asked = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, asked.set)
    if hangup.came():
        asked.set()
    while True:
        await asked.wait()
        asked.clear()
        try:
            await catalog.reload()
        except ConfigError:
            continue  # said in the log; what was configured goes on
        except Exception:
            log.exception("the configuration was not reloaded")


async def _drain(catalog: Catalog, registry: Registry, grace: float, hurry: asyncio.Event) -> None:
    """Not ready any more, no new loads; requests in flight are answered; then the workers end."""
    registry.draining = True
    log.info("stopping: requests in flight have %g s to end", grace)
    started = time.monotonic()
    closing = asyncio.create_task(catalog.close(grace))
    hurried = asyncio.create_task(hurry.wait())
    await asyncio.wait({closing, hurried}, return_when=asyncio.FIRST_COMPLETED)
    if hurry.is_set():
        log.warning("asked again: stopping now")
        await catalog.close(0)
    hurried.cancel()
    await closing
    log.info("stopped after %.1f s", time.monotonic() - started)
