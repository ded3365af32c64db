"""What a worker serves: a service, where its entry or a script names one, else the model by itself."""

from __future__ import annotations

from ...protocol.worker_spec import WorkerSpec
from ..model.served import Served


def load(spec: WorkerSpec) -> Served:
    """What `spec` names, loaded. Raises LoadError, or whatever the model's own loading code raises."""
    if spec.service or spec.service_object:
        from ..services.adapter import adapt
        from ..services.find import find_service

        return adapt(find_service(spec), spec)
    from ..load import mlflow as loading

    return loading.load(spec)
