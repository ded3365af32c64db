"""The statistics and the model configuration extensions of the V2 protocol, as Triton's clients ask for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiohttp import web
from aiohttp.web_request import Request

from .errors import json_response
from .model_config import model_config

if TYPE_CHECKING:
    from .metrics import Histogram
    from .model import ModelVersion
    from .registry import Registry


class StatsRoutes:
    """Handlers of `/stats` and `/config`; `table` names the paths."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def table(self) -> list[web.RouteDef]:
        return [
            web.get("/v2/models/{model}/stats", self.stats),
            web.get("/v2/models/{model}/versions/{version}/stats", self.stats),
            web.get("/v2/models/stats", self.all_stats),
            web.get("/v2/models/{model}/config", self.config),
            web.get("/v2/models/{model}/versions/{version}/config", self.config),
        ]

    async def stats(self, request: Request) -> web.Response:
        match = request.match_info
        return json_response(statistics(self._registry, match["model"], match.get("version")))

    async def all_stats(self, request: Request) -> web.Response:
        return json_response(statistics(self._registry))

    async def config(self, request: Request) -> web.Response:
        match = request.match_info
        return json_response(await model_config(self._registry.find(match["model"], match.get("version"))))


def statistics(registry: Registry, name: str | None = None, version: str | None = None) -> dict[str, Any]:
    """`{"model_stats": […]}` of all models, of all versions of one, or of one version. Raises NotFound.

    Counts are since the gateway's start; durations are `{"count", "ns"}`.
    """
    if name is None:
        versions = list(registry.all())
    elif version is None:
        versions = registry.versions(name)
    else:
        versions = [registry.find(name, version)]
    return {"model_stats": [_of_version(each) for each in versions]}


def _of_version(version: ModelVersion) -> dict[str, Any]:
    stats = version.stats
    nothing = {"count": 0, "ns": 0}
    memory = sum(replica.memory.private for replica in version.replicas)
    return {
        "name": version.name,
        "version": version.version,
        "last_inference": stats.last_inference,
        "inference_count": stats.rows,
        "execution_count": round(stats.batches),
        "inference_stats": {
            "success": {"count": stats.succeeded, "ns": stats.total.total - stats.failed_ns},
            "fail": {"count": stats.failed, "ns": stats.failed_ns},
            "queue": {"count": stats.queue.count, "ns": stats.queue.total + stats.batch_wait.total},
            "compute_input": _duration(stats.decode),
            "compute_infer": _duration(stats.predict),
            "compute_output": _duration(stats.encode),
            "cache_hit": nothing,
            "cache_miss": nothing,
        },
        "batch_stats": stats.batch_stats.as_json(),
        "memory_usage": [{"type": "CPU", "id": 0, "byte_size": memory}] if version.replicas else [],
    }


def _duration(histogram: Histogram) -> dict[str, int]:
    return {"count": histogram.count, "ns": histogram.total}
