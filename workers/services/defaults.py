"""What a service does by default: it loads the model that its URI names, and lets that answer.

Called by the methods of `base.py` that a service does not override, in a user's script as in a worker.
"""

from __future__ import annotations

import os
from typing import Any, Dict, List, Optional, Protocol

from ...protocol.errors import LoadError
from ...protocol.signature import MLMODEL, Signature, signature_from_mlmodel
from ...protocol.worker_spec import WorkerSpec
from ..convert.images import ImageOptions, PixelBudget, open_image
from ..convert.kinds import V2
from ..convert.pdf import PdfOptions, render
from ..dialects.legacy import params_of
from ..dialects.table import DIALECTS
from ..fetch.local import ensure_local
from ..load.mlflow import load_pyfunc, read_mlmodel, served_from
from ..load.native import NATIVE, as_pyfunc, load_native
from ..load.windows import with_slashes
from ..model.call import Call
from ..model.served import ServedModel
from .rerun import rerunning
from .v2 import default_v2

#: Where a service keeps its model with the default ways in and out.
INNER = "_defaults"


class Loadable(Protocol):
    """What is asked of a service here."""

    name: str
    run_uri: str
    model_type: str
    ready: bool
    loaded_model: Any
    model_path: str
    version: str


def load_service(service: Loadable) -> None:
    """Bring the service's model here, load it, make the service ready. Nothing while a script is run once more."""
    if rerunning():
        return
    if not service.run_uri and not service.model_path:
        raise LoadError(f"model {service.name} has no URI: give run_uri, or override load() to load something else")
    if not service.model_path or not os.path.isdir(service.model_path):
        found = ensure_local(service.run_uri)
        service.model_path, service.version = found.path, found.version or service.version
    service.__dict__.pop(INNER, None)
    service.loaded_model = _load_model(service.model_path, service.model_type)
    service.ready = True


def _load_model(path: str, model_type: str) -> Any:
    """The native estimator (sklearn), the pipeline (transformer), or, for any other type, the pyfunc model."""
    if model_type in NATIVE:
        return load_native(with_slashes(path, read_mlmodel(path)), model_type)
    return _taking_text(load_pyfunc(path), path)


def _taking_text(model: Any, path: str) -> Any:
    """The pyfunc model; where its signature is one named column of strings, `predict` takes plain text as well.

    Services call `loaded_model.predict("…")`, and MLflow takes that only where the column has no name.
    """
    signature = signature_from_mlmodel(read_mlmodel(path))
    columns = signature.inputs if signature is not None else []
    if len(columns) != 1 or columns[0].kind != "column" or columns[0].type != "string" or not columns[0].named:
        return model
    name, predict = columns[0].name, model.predict

    def predict_text_too(data: Any, *args: Any, **kwargs: Any) -> Any:
        texts = [data] if isinstance(data, str) else data
        if isinstance(texts, list) and texts and all(isinstance(each, str) for each in texts):
            import pandas as pd

            data = pd.DataFrame({name: texts})
        return predict(data, *args, **kwargs)

    model.predict = predict_text_too
    return model


def served_by(service: Loadable, spec: Optional[WorkerSpec]) -> ServedModel:
    """The service's loaded model with the ways in and out that it would have without a class around it."""
    model = as_pyfunc(service.loaded_model, service.model_type)
    known = spec or WorkerSpec(service.name, service.version or "1", 0, 0, "", "", "", "", "")
    if service.model_path and os.path.isfile(os.path.join(service.model_path, MLMODEL)):
        return served_from(model, service.model_path, known)
    return ServedModel(
        model,
        known.name,
        known.version,
        Signature(),
        "modelhub_service",
        max_inflated=known.max_inflated,
        image=known.image,
        pdf=known.pdf,
        dialects=DIALECTS,
    )


def inner_of(service: Loadable) -> ServedModel:
    """What `adapt` has set; made here in a process that serves nothing (a test, a notebook)."""
    found: Optional[ServedModel] = service.__dict__.get(INNER)
    if found is None:
        found = service.__dict__[INNER] = served_by(service, None)
    return found


def default_answer(service: Loadable, kind: str, request: Dict[str, Any]) -> Any:
    """What the model itself answers to a request's fields: the methods that a service does not override."""
    inner = inner_of(service)
    if kind == V2:
        return default_v2(inner, request)
    found = inner.fields.make(kind, request)
    params = inner.adapter.params(params_of(request))
    return {"statusCode": 200, "data": inner.predict(Call(kind, found.inputs, params, None, data=found.data))}


def images_of(service: Loadable, request: Dict[str, Any]) -> List[Any]:
    """Every image of a request as PIL images; see ImageModelService.images_of."""
    inner = inner_of(service)
    options = ImageOptions.from_spec(inner.image)
    budget = PixelBudget(options)
    files = [request["image"]] if "image" in request else []
    found = [open_image(each, budget) for each in [*files, *request.get("images", ())]]
    for name in ("pdf_file", "byte_stream"):
        if name in request:
            found.extend(render(request[name], PdfOptions.from_spec(inner.pdf), budget))
    return found
