"""What a model version needs before its workers can start: its files, its environment, and the plan for them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from ..config.settings import ModelSettings
from ..protocol.worker_spec import WorkerSpec
from .artifacts import Artifact
from .environments import Environment
from .mlmodel import read_mlmodel
from .preload import modules_for, why_not_fork
from .replica import ReplicaPlan
from .resources import Resources
from .script_services import Script

#: Requests that a worker holds for each one that it can run: that one, and the next.
CREDITS_PER_SLOT = 2
_DEVICES = "it uses devices, and these cannot be shared with a forked process"


@dataclass(frozen=True)
class Prepared:
    """All that a load begins with."""

    plan: ReplicaPlan
    #: Held for the caller, who releases it; None for a service that loads by itself.
    artifact: Artifact | None
    #: Names the content and how it is loaded: what takes as much memory.
    source: str
    version: str


async def prepare(entry: ModelSettings, version: str, resources: Resources) -> Prepared:
    """Bring a model to disk and make its environment. `version` is "" while only the registry knows it.

    Raises leaves of ServingError.
    """
    script = resources.script
    if script is not None and entry.name in script.services:
        return await _prepare_service(entry, version, resources, script)
    if not entry.uri:
        return await _prepare_own_loader(entry, version, resources)
    artifact = await resources.artifacts.ensure(entry.uri)
    try:
        version = version or artifact.version or "1"
        mlmodel = await asyncio.to_thread(read_mlmodel, artifact.path)
        environment = await resources.environments.ensure(artifact.path, entry.environment)
    except BaseException:
        artifact.release()
        raise
    reason = _DEVICES if entry.devices else why_not_fork(mlmodel)
    start = "spawn" if reason else entry.start
    modules = modules_for(mlmodel) if start == "fork" else []
    resources.fork_servers.want(environment, modules)
    spec = _spec(entry, version, str(artifact.path), resources)
    return Prepared(
        _plan(entry, spec, environment, modules, start, reason, entry.env), artifact, _content(artifact, entry), version
    )


async def _prepare_own_loader(entry: ModelSettings, version: str, resources: Resources) -> Prepared:
    """A service that names no model: its own `load()` gets what it needs."""
    version = version or "1"
    # a folder without a model: the shared environment, unless the entry names another
    environment = await resources.environments.ensure(resources.runtime_dir, entry.environment)
    reason = _DEVICES if entry.devices else ""
    start = "spawn" if reason else entry.start
    modules = modules_for({}) if start == "fork" else []
    resources.fork_servers.want(environment, modules)
    spec = _spec(entry, version, "", resources)
    return Prepared(
        _plan(entry, spec, environment, modules, start, reason, entry.env), None, f"service {entry.service}", version
    )


async def _prepare_service(entry: ModelSettings, version: str, resources: Resources, script: Script) -> Prepared:
    """A service of a user's script, whose process forks its workers."""
    service = script.services[entry.name]
    artifact, source, model_path = None, f"{entry.name} {entry.service}", service.path
    if entry.uri and not service.loaded and not model_path:
        artifact = await resources.artifacts.ensure(entry.uri)
        source, model_path = _content(artifact, entry), str(artifact.path)
        version = version or artifact.version
    version = version or "1"
    spec = replace(_spec(entry, version, model_path, resources), service_object=entry.name)
    reason, names = _DEVICES if entry.devices else "", script.env_names(resources.environ)
    start = "spawn" if reason else entry.start
    return Prepared(_plan(entry, spec, script.environment, [], start, reason, names), artifact, source, version)


def _content(artifact: Artifact, entry: ModelSettings) -> str:
    how = [entry.service, None if entry.model_type == "pyfunc" else entry.model_type]
    return " ".join([artifact.source, *filter(None, how)])


def _plan(
    entry: ModelSettings,
    spec: WorkerSpec,
    environment: Environment,
    modules: list[str],
    start: str,
    start_reason: str,
    env_names: tuple[str, ...],
) -> ReplicaPlan:
    return ReplicaPlan(
        label=f"{spec.name}/{spec.version}",
        spec=spec,
        environment=environment,
        modules=modules,
        start=start,
        start_reason=start_reason,
        env_names=env_names,
        threads=entry.threads,
        devices=entry.devices,
        timeout=entry.timeout,
        load_timeout=entry.load_timeout,
        memory_limit=entry.limits.memory or 0,
        warmup=entry.warmup,
        credits=CREDITS_PER_SLOT * entry.limits.concurrency,
    )


def _spec(entry: ModelSettings, version: str, model_path: str, resources: Resources) -> WorkerSpec:
    """What every worker of this version is told; a replica fills in what is its own."""
    return WorkerSpec(
        name=entry.name,
        version=version,
        replica=0,
        generation=0,
        token="",
        endpoint=resources.channel.endpoint,
        model_path=model_path,
        journal="",
        cwd="",
        threads=entry.threads,
        concurrency=entry.limits.concurrency,
        max_inflated=resources.max_inflated,
        model_type=entry.model_type,
        service=entry.service or "",
        pythonpath=[str(path) for path in entry.pythonpath],
        image=entry.image.model_dump(),
        pdf=entry.pdf.model_dump(),
        batching=entry.batching.model_dump(),
    )
