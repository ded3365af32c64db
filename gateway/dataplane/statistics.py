"""The statistics extension of the V2 protocol: what models have counted, as Triton's clients ask for it."""

from __future__ import annotations

from typing import Any

from ..models.registry import Registry
from ..models.version import ModelVersion
from ..system.turns import in_turns
from ..telemetry.stats import Histogram


async def statistics(registry: Registry, name: str | None = None, version: str | None = None) -> dict[str, Any]:
    """`{"model_stats": […]}` of all models, of all versions of one, or of one version. Raises NotFound.

    Counts are since the gateway's start; durations are `{"count", "ns"}`.
    """
    if name is None:
        versions = list(registry.all())
    elif version is None:
        versions = registry.versions(name)
    else:
        versions = [registry.find(name, version)]
    return {"model_stats": await in_turns(_of_version, versions)}


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
