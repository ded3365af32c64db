"""Services asked as a worker's loop would ask them, without a process."""

from __future__ import annotations

import json
from typing import Any

from modelhub.serving import ModelhubModelService
from modelhub.serving.protocol.messages import InferRequest
from modelhub.serving.protocol.worker_spec import WorkerSpec
from modelhub.serving.workers.services.adapter import ServiceAdapter, adapt


class Model:
    """Returns what it is given, and says of which type that was."""

    def predict(self, data: Any, params: Any = None) -> Any:
        return {"type": type(data).__name__, "value": data}


def spec(**changes: Any) -> WorkerSpec:
    plain: dict[str, Any] = {"name": "m", "version": "7", "replica": 0, "generation": 0}
    return WorkerSpec(**plain, token="", endpoint="", journal="", cwd="", **{"model_path": "", **changes})


def served(service: ModelhubModelService) -> ServiceAdapter:
    """With the model that it has loaded, or else with a `Model`."""
    service.loaded_model = service.loaded_model or Model()
    service.ready = True
    return adapt(service, spec())


def ask(adapter: ServiceAdapter, body: Any, **request: Any) -> tuple[int, Any]:
    """Status (0: success) and the answer's JSON; failures as the loop would answer them."""
    message = InferRequest(id=1, **{"content_type": "application/json", **request})
    call = adapter.decode(message, body if isinstance(body, bytes) else json.dumps(body).encode())
    answer = adapter.encode(call, adapter.predict(call))
    return answer.status, json.loads(bytes(answer.body))


def ask_stream(adapter: ServiceAdapter, body: Any, kind: str = "stream") -> list[Any]:
    """The JSON of each event."""
    call = adapter.decode(InferRequest(id=1, kind=kind, content_type="application/json"), json.dumps(body).encode())
    return [json.loads(bytes(adapter.encode(call, item).body)) for item in adapter.stream(call)]
