"""A stream that its client does not take: the worker waits for it, and goes on when it has."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modelhub.serving import ModelhubModelService
from modelhub.serving.protocol.limits import MAX_BEHIND
from modelhub.serving.protocol.messages import (
    CancelRequest,
    ChunkReply,
    ErrorReply,
    InferReply,
    InferRequest,
    StatsReply,
    StatsRequest,
    TakenRequest,
)
from support.service_calls import served
from support.worker_link import WorkerLink

PIECE = 1 << 20
FULL = MAX_BEHIND // PIECE  # so many, and one more that goes over it
BODY = json.dumps({"text": "x"}).encode()


class Large(ModelhubModelService):
    """Yields twice as much as its client may be behind."""

    made = 0

    def predict_stream(self, request: Any, headers: Any = None) -> Iterator[str]:
        for _ in range(2 * FULL):
            self.made += 1
            yield "x" * PIECE


@pytest.mark.parametrize("concurrency", [1, 2])
@pytest.mark.parametrize("how", ["taken", "cancelled", "late"])
def test_a_stream_waits_for_its_client(tmp_path: Path, concurrency: int, how: str) -> None:
    service = Large("m", "")
    with WorkerLink(tmp_path, served(service), concurrency=concurrency) as link:  # type: ignore[arg-type]
        deadline = time.monotonic() + (1.0 if how == "late" else 60.0)
        link.send((InferRequest(id=1, kind="stream", content_type="application/json", deadline=deadline), BODY))
        chunks = 0
        while chunks < FULL:
            chunks += sum(isinstance(message, ChunkReply) for message, _ in link.receive())
        link.send((StatsRequest(), b""))
        ((said, _),) = link.receive()
        assert isinstance(said, StatsReply), "it waits, and answers what else is asked"
        assert chunks <= service.made <= FULL + 1
        if how == "taken":
            link.send((TakenRequest(1, 2 * MAX_BEHIND), b""))
        elif how == "cancelled":
            link.send((CancelRequest([1]), b""))
        end: Any = None
        while not isinstance(end, (InferReply, ErrorReply)):
            for end, _ in link.receive():
                chunks += isinstance(end, ChunkReply)
        if how == "taken":
            assert (type(end), chunks) == (InferReply, 2 * FULL)
        else:
            assert (end.code, chunks) == ("cancelled" if how == "cancelled" else "deadline_exceeded", FULL)
