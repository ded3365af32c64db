"""The gateway process, from start to end. `_serve` reads as its table of contents."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import resource
import signal
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import uvloop

from .. import limits_set_here
from ..config.quantities import human_size
from ..config.server import ServerSettings
from ..config.settings import Settings
from ..protocol.errors import ConfigError
from ..protocol.model_cache import make_state_dir
from ..workers.linux import forbid_dumps
from .artifacts.fetcher import Fetcher
from .artifacts.store import ArtifactStore
from .dataplane.budget import Budget, max_buffered
from .dataplane.control import Control
from .dataplane.descriptions import Descriptions
from .dataplane.inference import Inference
from .dispatch.channel import Channel
from .environments.environments import Environments
from .metrics.scrape import Metrics
from .models.announcer import Announcer
from .models.catalog import Catalog
from .models.folder_watch import FolderWatch
from .models.follow import Follower
from .models.freshness import Freshness
from .models.preparation import Preparation
from .models.registry import Registry
from .models.resources import Resources
from .models.sizes import Sizes
from .places.fork_servers import ForkServers, ScriptServer
from .places.local import LocalPlace, Servers
from .places.output import output_log
from .places.place import Starter
from .places.script import Script
from .ports import Doors, Ports, listening
from .supervision.memory_watch import INTERVAL, MemoryWatch
from .system import hangup, heap
from .system.container import PodMemory, default_worker_limit
from .system.orphans import reap_orphans
from .system.runtime_dir import RuntimeDir
from .system.service_manager import ServiceManager
from .system.sockets import passed_by_systemd
from .system.surroundings import settle
from .telemetry import stderr, tracing
from .telemetry.counters import Counters
from .telemetry.display import Display
from .telemetry.log import configure

log = logging.getLogger("modelhub.server")

#: What a compressed body may become, in multiples of the largest body: more is a bomb.
INFLATE_FACTOR = 4
#: Seconds between two looks whether the last request has ended.
LOOK_EVERY = 0.05
#: Seconds between two writes of the sizes that were learnt.
SAVE_EVERY = 30


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
    with stderr.opened() as out:
        display = Display(out)
        configure(settings.server.log.level, settings.server.log.format, display.stream)
        for warning in warnings:
            log.warning("%s", warning)
        forbid_dumps()
        _raise_descriptor_limit()
        started_by = StartedBy(ServiceManager(os.environ), passed_by_systemd(os.environ))
        try:
            return int(uvloop.run(_serve(settings, read_again, script, display, started_by)))
        finally:
            display.close()


def _raise_descriptor_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class StartedBy(NamedTuple):
    """Who is told how this service is, and the sockets that it was started with, by their names."""

    manager: ServiceManager
    sockets: dict[str, list[socket.socket]]


async def _serve(
    settings: Settings,
    read_again: Callable[[], Settings] | None,
    script: Script | None,
    display: Display,
    started_by: StartedBy,
) -> int:
    server, manager = settings.server, started_by.manager
    stop = StopSignals()
    for line in await asyncio.to_thread(_settle, Path(server.state_dir)):
        log.info("%s", line)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(_traces())
        budget = Budget(server.max_body, await asyncio.to_thread(max_buffered, server))
        parts = await stack.enter_async_context(_parts(settings, script, display, budget))
        registry = Registry(server.readiness, strict=server.readiness_strict)
        book = Sizes(Path(server.state_dir))
        announcer = Announcer()
        catalog = Catalog(settings, registry, parts.resources, book, read_again, announcer.changed)
        follower = Follower(catalog, parts.fetcher)
        doors = Doors(
            Inference(registry, budget),
            Descriptions(registry, parts.artifacts),
            Metrics(parts.counters, budget, parts.starters),
            parts.counters,
            lambda guard, is_open: Control(catalog, follower, guard, is_open=is_open),
        )
        ports = await stack.enter_async_context(listening(server, doors, started_by.sockets))
        announcer.url = ports.url
        stack.callback(asyncio.create_task(manager.feed_watchdog(), name="watchdog").cancel)
        catalog.load_eager()
        heap.settle()
        watchers = [
            asyncio.create_task(follower.run(), name="follow"),
            asyncio.create_task(Freshness(catalog, parts.fetcher).run(), name="ask again"),
            asyncio.create_task(FolderWatch(catalog).run(), name="folders"),
            asyncio.create_task(_each_second(catalog, registry, book, parts), name="each second"),
            asyncio.create_task(_reload_on_hangup(catalog), name="reload"),
            asyncio.create_task(reap_orphans(), name="orphans"),
            asyncio.create_task(manager.tell_when_ready(lambda: _waits_for(registry)), name="ready"),
        ]
        await stop.asked.wait()
        for watcher in watchers:
            watcher.cancel()
        manager.tell("STOPPING=1", "STATUS=requests in flight have their time to end")
        await _drain(catalog, registry, ports, server, stop.hurry)
        await asyncio.to_thread(book.save)
    return 0


def _waits_for(registry: Registry) -> str:
    """What is not ready yet; "" once the server is."""
    readiness = registry.readiness()
    if readiness.ready:
        return ""
    states = [f"{name} is {reason.partition(' ')[0].rstrip(':')}" for name, reason in readiness.reasons.items()]
    return f"not ready: {', '.join(states)}"


def _settle(path: Path) -> list[str]:
    """Make the state directory, and the variables of this process whole; lines for the log.

    Raises ConfigError where nothing can be kept.
    """
    try:
        make_state_dir(str(path))
        with tempfile.TemporaryFile(dir=path):
            pass
        return settle(os.environ, str(path))
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


class MeetingPlace:
    """Where workers and gateway meet: a private directory, and in it the socket of the channel."""

    def __init__(self, largest: int) -> None:
        """`largest`: bytes of one answer."""
        self.directory = RuntimeDir()
        self.channel = Channel(largest)
        self._endpoint = self.channel.bind(self.directory.path / "workers.sock")

    def keep(self) -> str:
        """Make anew what was removed of it; where workers connect."""
        self.directory.keep()
        self.channel.keep()
        return self._endpoint

    def close(self) -> None:
        self.channel.close()
        self.directory.remove()


class Parts(NamedTuple):
    """What models are served with: made first, closed last."""

    resources: Resources
    fetcher: Fetcher
    artifacts: ArtifactStore
    counters: Counters
    #: The processes that start workers and run now.
    starters: Callable[[], list[Starter]]
    meeting: MeetingPlace
    #: Ends one of them that has no worker.
    spare: Callable[[], bool]


@asynccontextmanager
async def _parts(settings: Settings, script: Script | None, display: Display, budget: Budget) -> AsyncIterator[Parts]:
    server = settings.server
    state_dir = Path(server.state_dir)
    counters = Counters()
    async with AsyncExitStack() as stack:
        meeting = MeetingPlace(budget.most)
        stack.callback(meeting.close)
        channel, runtime_dir = meeting.channel, meeting.directory.path
        fetcher = Fetcher(lambda line: output_log.info("%s", line, extra={"source": "fetcher"}))
        stack.push_async_callback(fetcher.close)
        artifacts = ArtifactStore(state_dir, server.artifact_cache, fetcher, lambda line: log.info("%s", line))
        stack.push_async_callback(artifacts.close)
        environments = Environments(
            state_dir,
            pythons=[Path(python) for python in server.pythons],
            build=server.environments.build,
            variables=server.environments.variables,
            report=display.step,
            warn=lambda line: log.warning("%s", line),
            tail=display.tail,
            built=counters.environment_built,
        )
        stack.push_async_callback(environments.close)
        environ = {name: value for name, value in os.environ.items() if name not in limits_set_here}

        def place(servers: Servers) -> LocalPlace:
            made = LocalPlace(runtime_dir, meeting.keep, environ, servers)
            stack.push_async_callback(made.close)
            return made

        learned = state_dir / "learned" if server.environments.preload == "learned" else None
        local = place(ForkServers(environ, runtime_dir, learned))
        limit = await asyncio.to_thread(default_worker_limit)
        log.info("a worker may use %s of memory where limits.memory says nothing else", human_size(limit))
        preparation = Preparation(
            artifacts,
            environments,
            local,
            display,
            max_inflated=server.max_body * INFLATE_FACTOR,
            max_answer=budget.most,
            memory_limit=limit,
            script=script,
            script_place=place(ScriptServer(script.environment, script.descriptor)) if script is not None else None,
        )
        resources = Resources(channel, counters, preparation.prepare, budget.left_behind)
        yield Parts(resources, fetcher, artifacts, counters, lambda: list(local.starters()), meeting, local.spare)


async def _each_second(catalog: Catalog, registry: Registry, book: Sizes, parts: Parts) -> None:
    """Keep what workers connect to, measure them, enforce limits and budgets; save at times what was learnt."""
    watch = MemoryWatch(PodMemory(), catalog.evict_one, parts.spare)
    for turn in itertools.count(1):
        try:
            parts.meeting.keep()
            await watch.look([replica for version in registry.all() for replica in version.replicas])
            await catalog.tick()
        except Exception:
            log.exception("the look of each second failed this time")
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


async def _drain(
    catalog: Catalog, registry: Registry, ports: Ports, server: ServerSettings, hurry: asyncio.Event
) -> None:
    """Not ready from the first moment; what comes is answered for a while, what runs is; then the workers end."""
    registry.draining = True
    delay, grace = server.drain_delay, server.shutdown_grace
    after = f", after {delay:g} s in which new ones are answered" if delay else ""
    log.info("stopping: requests in flight have %g s to end%s", grace, after)
    started = time.monotonic()
    hurried = asyncio.create_task(hurry.wait())
    ports.let_go()
    await asyncio.wait({hurried}, timeout=delay)
    await ports.refuse()
    until = time.monotonic() + grace
    while time.monotonic() < until and not hurry.is_set() and (ports.busy or _serving(registry)):
        await asyncio.wait({hurried}, timeout=LOOK_EVERY)
    closing = asyncio.create_task(catalog.close(max(until - time.monotonic(), 0)))
    await asyncio.wait({closing, hurried}, return_when=asyncio.FIRST_COMPLETED)
    if hurry.is_set():
        log.warning("asked again: stopping now")
        await catalog.close(0)
    hurried.cancel()
    await closing
    log.info("stopped after %.1f s", time.monotonic() - started)


def _serving(registry: Registry) -> bool:
    """Whether a request waits, or a worker holds one."""
    return any(version.queued or version.in_flight for version in registry.all())
