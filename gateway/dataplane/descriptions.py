"""What the gateway says about itself and its models when asked, whichever front asks: metadata, configuration, states.

Nothing here has a model answer. Metadata is the worker's word once a model was loaded; before, what its MLmodel says.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from ... import __version__
from ...protocol.errors import NotReady, ServingError
from ..artifacts.mlmodel import mlmodel_of, read_mlmodel
from ..artifacts.uris import local_path
from ..models.registry import Registry
from ..models.states import ModelState, brief
from ..models.version import ModelVersion
from ..supervision.replica import Replica
from ..system.timeouts import timeout
from ..system.turns import in_turns

#: What `GET /v2` lists: exactly what works.
EXTENSIONS = ["binary_tensor_data", "generate", "model_configuration", "statistics"]
#: And this where models can be loaded and unloaded too.
REPOSITORY = "model_repository"
#: And this over gRPC alone: the body of a REST request, where a client says its priority, is not read here.
SCHEDULE_POLICY = "schedule_policy"


class MetadataSource(Protocol):
    """Who reads a remote model's MLmodel: the cache, or the fetcher."""

    async def metadata(self, uri: str) -> str: ...


class Descriptions:
    """Asks the registry each time: nothing is stored but what never changes."""

    def __init__(self, registry: Registry, source: MetadataSource, *, control: bool = False) -> None:
        """`control`: loads and unloads are open where this is said."""
        self.registry = registry
        self._source = source
        self._control = control

    def open_to_control(self, opened: bool) -> Descriptions:
        """The same, for a front where loads and unloads are open, or not."""
        return Descriptions(self.registry, self._source, control=opened)

    def server(self, *more: str) -> dict[str, Any]:
        """`{"name", "version", "extensions"}`; `more`: extensions of one front."""
        extensions = [*EXTENSIONS, *more, *([REPOSITORY] if self._control else [])]
        return {"name": "modelhub-serving", "version": __version__, "extensions": extensions}

    async def model(self, name: str, version: str | None) -> dict[str, Any]:
        """V2 metadata: `{"name", "versions"?, "platform", "inputs", "outputs"}`. Raises NotFound and NotReady."""
        found = self.registry.find(name, version)
        metadata = await self.metadata(found)
        # one that is being replaced by another of the same version is there twice for a while
        versions = list(dict.fromkeys(each.version for each in self.registry.versions(found.name) if each.version))
        return {"name": found.name, **({"versions": versions} if versions else {}), **metadata}

    async def metadata(self, version: ModelVersion) -> dict[str, Any]:
        """Platform, inputs and outputs: the worker's word, else from the MLmodel file. Raises NotReady."""
        if version.known_metadata is not None:
            return version.known_metadata
        if not version.uri:
            raise NotReady(
                f"model {version.label} is a service that loads by itself: it has no metadata before", retry_after=5.0
            )
        try:
            path = local_path(version.uri)
            if path is not None:
                mlmodel = await asyncio.to_thread(read_mlmodel, path)
            else:
                async with timeout(version.timeout):
                    mlmodel = mlmodel_of(await self._source.metadata(version.uri), version.shown_uri)
            version.known_metadata = mlmodel.metadata()
        except (ServingError, asyncio.TimeoutError) as error:
            why = brief(str(error)) or "no answer in time"
            message = f"the metadata of model {version.label} cannot be read: {why}"
            raise NotReady(message, retry_after=5.0) from None
        return version.known_metadata

    async def config(self, name: str, version: str | None) -> dict[str, Any]:
        """A model's configuration as Triton's clients read it, which is also the JSON of inference.ModelConfig.

        perf_analyzer and tritonclient take from it the tensors' types and sizes. Our shapes hold the batch's dimension
        themselves, as the metadata's do, which Triton calls `max_batch_size: 0`. `decoupled`: over a gRPC stream a
        request has as many answers as the model yields; a worker says that its model streams once it is loaded.
        Raises NotFound and NotReady.
        """
        found = self.registry.find(name, version)
        metadata = await self.metadata(found)
        kind = "KIND_GPU" if found.entry.devices else "KIND_CPU"
        return {
            "name": found.name,
            "platform": metadata.get("platform", ""),
            "backend": "mlflow",
            "max_batch_size": 0,
            "input": [_config_tensor(each) for each in metadata["inputs"]],
            "output": [_config_tensor(each) for each in metadata["outputs"]],
            "instance_group": [{"name": found.name, "kind": kind, "count": found.entry.replicas}],
            "model_transaction_policy": {"decoupled": found.streams},
        }

    async def index(self, *, only_ready: bool = False) -> list[dict[str, Any]]:
        """The repository index: a row per version."""
        rows = await in_turns(index_row, self.registry.all())
        return [row for row in rows if row["state"] == "READY" or not only_ready]

    async def models(self) -> list[dict[str, Any]]:
        """The versions as entries of `/status`."""
        return await in_turns(status_row, self.registry.all())


def index_row(version: ModelVersion) -> dict[str, Any]:
    """One row of the repository index."""
    state, reason, seconds = version.report()
    reason = brief(reason)
    if state is ModelState.READY:
        known, reason = "READY", ""
    elif state.loading:
        known, reason = "LOADING", f"{state.value} for {seconds:.1f} s" + (f": {reason}" if reason else "")
    elif state is ModelState.DRAINING:
        known = "UNLOADING"
    else:
        known, reason = "UNAVAILABLE", reason or "not loaded"
    return {
        "name": version.name,
        **({"version": version.version} if version.version else {}),
        "state": known,
        "reason": reason,
    }


def status_row(version: ModelVersion) -> dict[str, Any]:
    """One entry of `/status`; seconds and bytes."""
    state, reason, seconds = version.report()
    return {
        "name": version.name,
        "version": version.version,
        "state": state.value,
        "phase_s": round(seconds, 3),
        "reason": reason,
        "stale": version.stale,
        "uri": version.shown_uri,
        "group": version.group.name if version.group is not None else None,
        "environment": version.environment,
        "python": version.python,
        "load_s": round(version.load_seconds, 3),
        "replicas": [_replica(replica) for replica in version.replicas],
        "requests": {
            "in_flight": version.in_flight,
            "queued": version.queued,
            "succeeded": version.stats.succeeded,
            "failed": version.stats.failed,
            "retried": version.retried,
        },
    }


def _replica(replica: Replica) -> dict[str, Any]:
    return {
        "index": replica.index,
        "generation": replica.generation,
        "pid": replica.pid,
        "state": replica.state,
        "restarts": replica.restarts,
        "memory_private": replica.memory.private,
        "memory_pss": replica.memory.pss,
        "batching": replica.batching,
    }


def _config_tensor(each: dict[str, Any]) -> dict[str, Any]:
    kind = "STRING" if each["datatype"] == "BYTES" else each["datatype"]
    return {"name": each["name"], "data_type": f"TYPE_{kind}", "dims": each["shape"]}
