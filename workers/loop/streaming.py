"""One request answered piece by piece: each item that the model or service yields is a ChunkReply.

A stream comes from a service's `predict_stream`, from the model's own (a PythonModel may have one), or from a
`predict` that returns a generator; anything else is a stream of one item. Called by the loops of `loop.py`
in the place of a batch; the worker stops when the client goes (`cancelled`) or the deadline passes.
"""

from __future__ import annotations

import threading
import time
from typing import Callable, Dict, Optional

from ...protocol.errors import Cancelled, DeadlineExceeded, ServingError
from ...protocol.kinds import STREAMS
from ...protocol.limits import MAX_BEHIND
from ...protocol.messages import ChunkReply, InferReply
from ..model.call import Answer
from ..model.served import Served
from .runner import Held, Reply, Runner


class Flow:
    """How many bytes of each stream its client has not taken yet: one that is too far behind is waited for.

    Told by the thread that reads the socket, asked by the one that runs the stream.
    """

    def __init__(self) -> None:
        self._behind: Dict[int, int] = {}
        self._changed = threading.Condition()

    def sent(self, number: int, size: int) -> bool:
        """So many bytes more; whether the client is to be waited for."""
        with self._changed:
            self._behind[number] = self._behind.get(number, 0) + size
            return self._behind[number] > MAX_BEHIND

    def taken(self, number: int, size: int) -> None:
        with self._changed:
            if number in self._behind:
                self._behind[number] -= size
                self._changed.notify_all()

    def full(self, number: int) -> bool:
        return self._behind.get(number, 0) > MAX_BEHIND

    def wait(self, number: int, seconds: float) -> None:
        """Returns when the client has caught up, or after so many seconds."""
        with self._changed:
            self._changed.wait_for(lambda: not self.full(number), seconds)

    def ended(self, number: int) -> None:
        with self._changed:
            self._behind.pop(number, None)


def is_stream(held: Held) -> bool:
    """Is this request to be answered piece by piece? Asked before it is decoded."""
    return held.call is None and held.request.kind in STREAMS


def run_stream(
    model: Served, runner: Runner, held: Held, emit: Callable[[Reply], None], cancelled: Callable[[], bool]
) -> Reply:
    """Answer with chunks through `emit`; returns what ends the stream, an InferReply without a body or an error. Where
    the first item says a `statusCode` of 400 or more, the InferReply is all there is, and has that item as its body.

    `cancelled` is asked after every chunk: whether nobody listens any more.
    """
    request = held.request
    request.accept_encoding = ""  # events are text
    failed = runner.decode(held)
    if failed is not None or held.call is None:
        return failed or runner.failure(held, ServingError("the request could not be decoded"))
    call, start = held.call, time.monotonic_ns()
    chunks = 0
    refusal: Optional[Answer] = None
    try:
        items = model.stream(call)
        try:
            for item in items:
                answer = model.encode(call, item)
                if answer.status >= 400 and not chunks:
                    refusal = answer  # before the first event: it is an answer with a status of its own
                    break
                emit((ChunkReply(request.id, answer.json_size), answer.body))
                chunks += 1
                if cancelled():
                    raise Cancelled("the client went away")
                if call.deadline and time.monotonic() > call.deadline:
                    raise DeadlineExceeded(f"the deadline of this request passed after {chunks} events")
        finally:
            close = getattr(items, "close", None)
            if close is not None:
                close()
    except Exception as error:
        return runner.failure(held, error)
    runner.served += 1
    reply = InferReply(id=request.id, decode_ns=held.decode_ns, rows=call.rows)
    reply.wait_ns = max(start - held.arrived - held.decode_ns, 0)
    reply.predict_ns = time.monotonic_ns() - start
    if refusal is None:
        return reply, b""
    reply.status, reply.content_type = refusal.status, refusal.content_type
    return reply, refusal.body
