"""Models whose result is a list of outputs: batched, and everybody gets what is theirs."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import orjson
import pytest

from modelhub.serving.protocol.messages import InferReply, InferRequest
from modelhub.serving.protocol.worker_spec import WorkerSpec
from modelhub.serving.workers.load.mlflow import load
from support.many_outputs import MANY_OUTPUTS, rows_of, save_many_outputs
from support.v2_client import request, tensor
from support.worker_link import WorkerLink


def bodies(rows: Any) -> dict[str, bytes]:
    """One question in V2, in our own form and in V1."""
    inputs = [tensor(name, "FP64", [len(rows)], rows[name].tolist()) for name in rows.columns]
    return {
        "infer": request(*inputs),
        "legacy": orjson.dumps({"data": rows.to_dict(orient="records")}),
        "v1_predict": orjson.dumps({"instances": rows.to_numpy().tolist()}),
    }


@pytest.mark.filterwarnings("ignore:divide by zero")
@pytest.mark.parametrize("example", [False, True], ids=["no example", "example"])
@pytest.mark.parametrize("kind", MANY_OUTPUTS)
def test_each_client_of_a_model_of_many_outputs_gets_its_own(
    tmp_path: Path, mlflow_imported: None, kind: str, example: bool
) -> None:
    """As many clients as outputs too; learned from the example, or by the first batch."""
    with warnings.catch_warnings(record=True):
        save_many_outputs(kind, tmp_path / "model", **({"input_example": rows_of(3)} if example else {}))
        model = load(WorkerSpec("own", "1", 0, 0, "", "", str(tmp_path / "model"), "", "/"))
    rows = rows_of(40)
    asked: list[tuple[str, bytes]] = []
    for at in range(32):
        asked += bodies(rows[at : at + 1 + at % 2]).items()
    alone: list[Any] = []
    for door, body in asked:
        call = model.decode(InferRequest(id=1, kind="infer" if door == "legacy" else door), body)
        alone.append(model.encode(call, model.predict(call)).body)
    batches = set()
    with WorkerLink(tmp_path, model) as worker:
        assert worker.batching()["enabled"] is True
        if example:
            worker.ask(model.example, probe=True)
        for together, last in ((2, 12), (3, 12), (8, 24), (96, 96)):
            for start in range(0, last, together):
                sent = range(start, min(start + together, 96))
                kinds = {at: "infer" if asked[at][0] == "legacy" else asked[at][0] for at in sent}
                worker.send(*((InferRequest(id=at + 1, kind=kinds[at]), asked[at][1]) for at in sent))
                for number, (message, body) in worker.answers(len(sent)).items():
                    assert isinstance(message, InferReply), message
                    assert body == alone[number - 1]
                    batches.add(message.batch)
        assert worker.batching()["enabled"] is True
    assert max(batches) > 8
