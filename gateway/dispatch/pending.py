"""A request on its way, and a worker as the dispatcher sees it: what its queue and its decisions are about."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from ...protocol.codec import Body
from ...protocol.messages import ChunkReply, InferReply, InferRequest

#: Told of every chunk of a stream.
OnChunk = Callable[[ChunkReply, Body], None]


class WorkerLink:
    """A live worker as the dispatcher sees it: a way to send, and how much it may hold."""

    __slots__ = ("answered", "bytes", "credits", "held", "kept", "label", "least", "overdue", "send")

    def __init__(
        self, label: str, credits: int, send: Callable[[Any, Body], None], overdue: Callable[[int], None]
    ) -> None:
        self.label = label
        self.credits = credits
        self.least = credits  # so many requests it may hold, however large they are
        self.bytes = 0  # of the bodies that it holds
        self.kept = 0  # credits that it gets back with the answer to what it runs alone
        self.answered = 0
        self.send = send
        self.overdue = overdue  # called with the number of a request that passed its deadline in the worker
        self.held: dict[int, Pending] = {}


class Pending:
    """One client's request, from its arrival to its answer."""

    __slots__ = ("answer", "body", "chunk", "death", "expired", "left", "request", "sent", "worker")

    def __init__(
        self,
        request: InferRequest,
        body: Body,
        answer: asyncio.Future[tuple[InferReply, Body]],
        chunk: OnChunk | None,
    ) -> None:
        self.request = request
        self.body = body
        self.answer = answer
        self.chunk = chunk
        self.worker: WorkerLink | None = None
        self.expired = False
        self.left = 0  # bytes that its worker holds for nobody
        self.sent = 0.0
        self.death = ""  # how the worker that had begun it before ended
