"""A served model asked in this process: a client's bytes in, an answer's bytes out. And short signatures."""

from __future__ import annotations

from typing import Any

import numpy as np

from modelhub.serving.protocol.messages import InferRequest
from modelhub.serving.workers.model.call import Answer
from modelhub.serving.workers.model.served import ServedModel

from .v2_client import Tensor, parse, request


def ask(model: ServedModel, body: bytes, json_size: int | None = None, **header: Any) -> Answer:
    call = model.decode(InferRequest(id=1, json_size=json_size, **header), body)
    return model.encode(call, model.predict(call))


def outputs(model: ServedModel, *inputs: dict[str, Any], **members: Any) -> dict[str, Tensor]:
    answer = ask(model, request(*inputs, **members))
    return parse(bytes(answer.body), answer.json_size)[1]


def columns(**types: str) -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    return ModelSignature(Schema([ColSpec(kind, name) for name, kind in types.items()]))


def tensors(*specs: tuple[str, tuple[int, ...], str | None]) -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    return ModelSignature(Schema([TensorSpec(np.dtype(dtype), shape, name) for dtype, shape, name in specs]))


def loaded_from(flavour: Any, model: Any, folder: Any, signature: Any, **options: Any) -> ServedModel:
    """A model saved by its flavour of mlflow and loaded again."""
    import warnings

    from modelhub.serving.protocol.worker_spec import WorkerSpec
    from modelhub.serving.workers.load.mlflow import load

    with warnings.catch_warnings(record=True):
        warnings.simplefilter("ignore")
        flavour.save_model(
            model,
            folder,
            signature=signature,
            serialization_format="cloudpickle",
            pip_requirements=["mlflow"],
            **options,
        )
        return load(WorkerSpec(folder.name, "3", 0, 0, "", "", str(folder), "", "/"))
