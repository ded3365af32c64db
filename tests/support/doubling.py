"""A model that doubles each row, for the request loop's tests of batches; what is asked of it, and what it answers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from modelhub.serving.protocol.messages import (
    InferReply,
)
from modelhub.serving.protocol.signature import Field, Param, Signature
from modelhub.serving.workers.dialects.table import DIALECTS
from modelhub.serving.workers.model.served import ServedModel
from support.v2_client import parse, request, tensor
from support.worker_link import WorkerLink

COLUMN = Field("x", "column", "double", "FP64", (-1,))
SIGNATURE = Signature([COLUMN], [Field("y", "column", "double", "FP64", (-1,))], [Param("factor", "double", 1.0)])


class Doubles:
    """Doubles each row; notes how many rows each call had, and waits for `go` if there is one."""

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.go: threading.Event | None = None
        self.running = threading.Event()

        #: What must have happened before the next call ends; runs in the loop's thread.
        self.until: Callable[[], bool] = lambda: True

    def predict(self, data: pd.DataFrame, params: dict[str, Any] | None = None) -> Any:
        self.calls.append(len(data))
        self.running.set()
        if self.go is not None:
            assert self.go.wait(20)
            until, self.until = self.until, lambda: True
            assert until()
        return self.answer(data, params or {})

    def answer(self, data: pd.DataFrame, params: dict[str, Any]) -> Any:
        return pd.DataFrame({"y": data["x"] * 2 * params.get("factor", 1.0), "z": data["x"] + 1})


def made(model: Any, signature: Signature = SIGNATURE) -> ServedModel:
    return ServedModel(model, "own", "1", signature, dialects=DIALECTS)


def body(*values: float, **members: Any) -> bytes:
    return request(tensor("x", "FP64", [len(values)], list(values)), **members)


def values(reply: tuple[Any, bytes], name: str = "y") -> list[Any]:
    assert isinstance(reply[0], InferReply), reply
    return parse(reply[1], reply[0].json_size)[1][name].data


# ---- in a running worker ---------------------------------------------------------------------------


def proven(model: ServedModel, example: bytes, tmp_path: Path, **settings: Any) -> tuple[dict[str, Any], int]:
    """The state after the warm-up, and the credits that its answer tells."""
    with WorkerLink(tmp_path, model, **settings) as worker:
        ((reply, _),) = worker.ask(example, probe=True)
        return worker.batching(), reply.credits
