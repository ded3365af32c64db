"""A model's configuration as Triton's clients read it: `GET /v2/models/{m}/config` and gRPC's ModelConfig.

perf_analyzer and tritonclient take from it the tensors' types and sizes. Our shapes hold the batch's dimension
themselves, as the metadata's do, which Triton calls `max_batch_size: 0`. `decoupled`: over a gRPC stream a request has
as many answers as the model yields; a worker says that its model streams once it is loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .model import ModelVersion


async def model_config(version: ModelVersion) -> dict[str, Any]:
    """The JSON form, which is also that of the message inference.ModelConfig. Raises NotReady."""
    metadata = await version.metadata()
    kind = "KIND_GPU" if version.entry.devices else "KIND_CPU"
    return {
        "name": version.name,
        "platform": metadata.get("platform", ""),
        "backend": "mlflow",
        "max_batch_size": 0,
        "input": [_tensor(each) for each in metadata["inputs"]],
        "output": [_tensor(each) for each in metadata["outputs"]],
        "instance_group": [{"name": version.name, "kind": kind, "count": version.entry.replicas}],
        "model_transaction_policy": {"decoupled": version.streams},
    }


def _tensor(each: dict[str, Any]) -> dict[str, Any]:
    kind = "STRING" if each["datatype"] == "BYTES" else each["datatype"]
    return {"name": each["name"], "data_type": f"TYPE_{kind}", "dims": each["shape"]}
