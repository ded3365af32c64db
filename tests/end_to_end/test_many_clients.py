"""Nobody's answer depends on who else asks: clients in loops, with different rows, of models of many outputs.

`make test-batches` asks each model for 10,000 answers; an ordinary run for some hundreds.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from support.gateway_process import Gateway
from support.many_outputs import MANY_OUTPUTS, rows_of, save_many_outputs
from support.v2_client import tensor

ANSWERS = int(os.environ.get("BATCH_ANSWERS") or 240)
CLIENTS = (2, 3, 8, 32)
DOORS = ("v2", "data", "v1")


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory, module_gateway: Callable[..., Gateway]) -> Gateway:
    """Every second one has an input example; those with `-delay` wait for others."""
    folder = tmp_path_factory.mktemp("many_outputs")
    entries: list[dict[str, Any]] = []
    for at, kind in enumerate(MANY_OUTPUTS):
        save_many_outputs(kind, folder / kind, **({"input_example": rows_of(3)} if at % 2 else {}))
        entries.append({"name": kind, "uri": str(folder / kind)})
    entries.append({"name": "delay", "uri": str(folder / "random_forest"), "batching": {"max_delay": "20ms"}})
    running = module_gateway({"defaults": {"environment": "shared"}, "models": entries})
    running.wait_ready()
    return running


def asked(door: str, model: str, rows: Any) -> tuple[str, dict[str, Any]]:
    if door == "v1":
        return f"/v1/models/{model}:predict", {"instances": rows.to_dict(orient="records")}
    if door == "data":
        return f"/v2/models/{model}/infer", {"data": rows.to_dict(orient="records")}
    inputs = [tensor(name, "FP64", [len(rows)], rows[name].tolist()) for name in rows.columns]
    return f"/v2/models/{model}/infer", {"inputs": inputs}


async def wrong_answers(url: str, questions: list[tuple[str, dict[str, Any]]], clients: int, answers: int) -> int:
    """Each client asks its own question in a loop; how many answers differ from what it got alone."""
    left = itertools.count()

    async def ask(session: aiohttp.ClientSession, at: int) -> bytes:
        path, document = questions[at % len(questions)]
        async with session.post(url + path, json=document) as response:
            assert response.status == 200, await response.text()
            return await response.read()

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        alone = [await ask(session, at) for at in range(min(clients, len(questions)))]

        async def loop(at: int) -> int:
            wrong = 0
            while next(left) < answers:
                wrong += await ask(session, at) != alone[at % len(alone)]
            return wrong

        return sum(await asyncio.gather(*map(loop, range(clients))))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("model", [*MANY_OUTPUTS, "delay"])
def test_clients_in_a_loop_get_what_they_get_alone(many: Gateway, model: str) -> None:
    rows = rows_of(40)
    each = -(-ANSWERS // (len(CLIENTS) * len(DOORS)))
    for clients, door in itertools.product(CLIENTS, DOORS):
        questions = [asked(door, model, rows[at : at + 1 + at % 3 // 2]) for at in range(16)]
        wrong = asyncio.run(wrong_answers(many.url, questions, clients, each))
        assert wrong == 0, f"{wrong} of {each} answers to {clients} clients by {door}"


def test_and_they_were_batched(many: Gateway, models: Path) -> None:
    """What these tests are about took place."""
    rows, calls = 0.0, 0.0
    for clients in (8, 32):
        questions = [asked("v2", "delay", rows_of(40)[at : at + 1]) for at in range(16)]
        assert asyncio.run(wrong_answers(many.url, questions, clients, 200)) == 0
    for line in many.get("/metrics").body.decode().splitlines():
        if 'model="delay"' in line:
            rows += float(line.rsplit(" ", 1)[1]) if line.startswith("modelhub_rows_total") else 0
            calls += float(line.rsplit(" ", 1)[1]) if line.startswith("modelhub_batches_total") else 0
    assert rows > 2 * calls
