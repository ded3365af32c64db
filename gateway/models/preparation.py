"""What a model version needs before its workers can start: its files, its environment, and the plan for them."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, replace
from pathlib import Path

from ...config.settings import ModelSettings
from ...protocol.errors import NotReady, ServingError
from ...protocol.messages import FORK, SPAWN
from ...protocol.worker_spec import WorkerSpec
from ..artifacts.mlmodel import read_mlmodel
from ..artifacts.store import Artifact, ArtifactStore
from ..environments.environments import Environments
from ..places.place import Place, WorkerOrder
from ..places.preload import modules_for, why_not_fork
from ..places.script import Script
from ..supervision.plan import ReplicaPlan
from ..telemetry.display import Display

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


class Preparation:
    """Brings models to disk and makes their environments; one per gateway."""

    def __init__(
        self,
        artifacts: ArtifactStore,
        environments: Environments,
        local: Place,
        display: Display,
        *,
        max_inflated: int,
        max_answer: int,
        memory_limit: int = 0,
        script: Script | None = None,
        script_place: Place | None = None,
    ) -> None:
        """`memory_limit`: of a worker whose entry says none, 0: none.

        `script`: the user's script that this gateway was started by, and `script_place` its process.
        """
        self._artifacts = artifacts
        self._environments = environments
        self._local = local
        self._display = display
        self._max_inflated = max_inflated
        self._max_answer = max_answer
        self._memory_limit = memory_limit
        self._script = script
        self._script_place = script_place

    async def prepare(self, entry: ModelSettings, version: str, *, anew: bool = False) -> Prepared:
        """Bring a model to disk and make its environment. `version` is "" while only the registry knows it.

        `anew`: its files are fetched also where they are here. Raises leaves of ServingError.
        """
        if self._script is not None and self._script_place is not None and entry.name in self._script.services:
            return await self._service_of_script(entry, version, self._script, self._script_place)
        if not entry.uri:
            return await self._own_loader(entry, version)
        artifact = await self._fetched(entry, version, anew=anew)
        try:
            return await self._of_files(entry, version, artifact)
        except NotReady:
            raise
        except ServingError:  # its files make no sense: perhaps they are not what was fetched any more
            if not await artifact.mend():
                raise
        return await self._of_files(entry, version, await self._fetched(entry, version))

    async def _of_files(self, entry: ModelSettings, version: str, artifact: Artifact) -> Prepared:
        """What its files ask for. They are let go where that fails."""
        try:
            version = version or artifact.version or "1"
            mlmodel = await asyncio.to_thread(read_mlmodel, artifact.path)
            environment = await self._environments.ensure(artifact.path, entry.environment, entry.env)
        except BaseException:
            artifact.release()
            raise
        reason = _DEVICES if entry.devices else why_not_fork(mlmodel.flavors)
        start = SPAWN if reason else entry.start
        modules = modules_for(mlmodel.flavors) if start == FORK else []
        self._local.want(environment, modules)
        order = WorkerOrder(self._spec(entry, version), artifact, environment, start, modules, env_names=entry.env)
        return Prepared(self._plan(self._local, entry, order, reason), artifact, _content(artifact, entry), version)

    async def _own_loader(self, entry: ModelSettings, version: str) -> Prepared:
        """A service that names no model: its own `load()` gets what it needs."""
        version = version or "1"
        # no model: the shared environment, unless the entry names another
        environment = await self._environments.ensure(Path(os.devnull), entry.environment)
        reason = _DEVICES if entry.devices else ""
        start = SPAWN if reason else entry.start
        modules = modules_for(()) if start == FORK else []
        self._local.want(environment, modules)
        order = WorkerOrder(self._spec(entry, version), None, environment, start, modules, env_names=entry.env)
        return Prepared(self._plan(self._local, entry, order, reason), None, f"service {entry.service}", version)

    async def _service_of_script(self, entry: ModelSettings, version: str, script: Script, place: Place) -> Prepared:
        """A service of a user's script, whose process forks its workers."""
        service = script.services[entry.name]
        source, fetched = f"{entry.name} {entry.service}", None
        files = Artifact(Path(service.path)) if service.path else None
        if entry.uri and not service.loaded and files is None:
            files = fetched = await self._fetched(entry, version)
            source = _content(fetched, entry)
            version = version or fetched.version
        version = version or "1"
        spec = replace(self._spec(entry, version), service_object=entry.name)
        reason = _DEVICES if entry.devices else ""
        start = SPAWN if reason else entry.start
        order = WorkerOrder(spec, files, script.environment, start, env_names=script.env_names)
        return Prepared(self._plan(place, entry, order, reason), fetched, source, version)

    async def _fetched(self, entry: ModelSettings, version: str, *, anew: bool = False) -> Artifact:
        """The files of a model, held for the caller; a download is shown."""
        label = f"{entry.name}/{version}" if version else entry.name
        fields = {"model": entry.name, "version": version} if version else {"model": entry.name}
        with self._display.download(label, **fields) as progress:
            return await self._artifacts.ensure(entry.uri, progress, anew=anew)

    def _spec(self, entry: ModelSettings, version: str) -> WorkerSpec:
        """What every worker of this version is told; a replica and its place fill in what is their own."""
        return WorkerSpec(
            name=entry.name,
            version=version,
            replica=0,
            generation=0,
            token="",
            endpoint="",
            model_path="",
            journal="",
            cwd="",
            threads=entry.threads,
            concurrency=entry.limits.concurrency,
            max_inflated=self._max_inflated,
            max_answer=self._max_answer,
            model_type=entry.model_type,
            service=entry.service or "",
            pythonpath=[str(path) for path in entry.pythonpath],
            image=entry.image.model_dump(),
            pdf=entry.pdf.model_dump(),
            batching=entry.batching.model_dump(),
        )

    def _plan(self, place: Place, entry: ModelSettings, order: WorkerOrder, reason: str) -> ReplicaPlan:
        return ReplicaPlan(
            place=place,
            order=replace(order, threads=entry.threads, devices=entry.devices),
            start_reason=reason,
            timeout=entry.timeout,
            load_timeout=entry.load_timeout,
            memory_limit=entry.limits.memory or self._memory_limit,
            warmup=entry.warmup,
            credits=CREDITS_PER_SLOT * entry.limits.concurrency,
        )


def _content(artifact: Artifact, entry: ModelSettings) -> str:
    how = [entry.service, None if entry.model_type == "pyfunc" else entry.model_type]
    return " ".join([artifact.source, *filter(None, how)])
