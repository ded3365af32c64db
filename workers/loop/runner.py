"""What happens to one request, or to a group that shares a prediction: decode, predict, encode, or an error.

Called by the loops of `loop.py`, which decide what runs when; knows neither sockets nor the journal.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from typing import Any, Callable, List, Optional, Tuple

from ...protocol.codec import Body
from ...protocol.errors import DeadlineExceeded, ModelError, ServingError
from ...protocol.messages import ErrorReply, InferReply, InferRequest, Message
from ..model.call import Answer, Call
from ..model.promises import promise
from ..model.served import Served
from .batching import Batching
from .stacking import stack

Reply = Tuple[Message, Body]

#: Frames of the files below this package's folder say nothing about a model.
_OURS = os.path.join(sys.modules["modelhub.serving.workers"].__path__[0], "")


class Held:
    """A request that the worker holds: as it came, and decoded once its turn is near."""

    __slots__ = ("alone", "arrived", "begun", "body", "call", "decode_ns", "key", "request", "size")

    def __init__(self, request: InferRequest, body: Body, arrived: int) -> None:
        self.request = request
        self.body = body
        self.arrived = arrived  # nanoseconds of CLOCK_MONOTONIC, as all here
        self.call: Optional[Call] = None
        self.decode_ns = 0
        #: Bytes of its body, and of its inputs once it is decoded.
        self.size = len(body)
        self.begun = False  # noted in the journal in an earlier turn
        self.alone = False  # it was in a batch that failed
        self.key: Any = None

    @property
    def kind(self) -> str:
        """Of a decoded one, that which it was found to be."""
        return self.request.kind if self.call is None else self.call.kind

    @property
    def deadline(self) -> float:
        """In seconds of CLOCK_MONOTONIC; 0: none. Of a decoded one, that of its own `timeout` if that is earlier."""
        return self.request.deadline if self.call is None else self.call.deadline

    def late(self) -> bool:
        """Whether its deadline has passed."""
        return bool(self.deadline) and time.monotonic() > self.deadline

    def group_key(self) -> Any:
        """Equal for requests that can share a prediction; of a decoded one."""
        if self.key is None and self.call is not None:
            self.key = self.call.group_key()
        return self.key


class Runner:
    """Runs requests of one model. Its methods may be called by several threads."""

    def __init__(self, model: Served, batching: Batching, concurrency: int = 1) -> None:
        self._model = model
        self._batching = batching
        self._concurrency = concurrency
        self.served = 0

    def decode(self, held: Held) -> Optional[Reply]:
        """Makes `held.call`; or the answer to a request that cannot be decoded, or whose deadline has passed."""
        start = time.monotonic_ns()
        try:
            if held.request.deadline and start > held.request.deadline * 1e9:
                raise DeadlineExceeded("the deadline of this request passed before the worker began it")
            held.call = self._model.decode(held.request, held.body)
        except Exception as error:
            return self.failure(held, error)
        held.size += sum([array.nbytes for array in held.call.inputs.values()])
        held.decode_ns = time.monotonic_ns() - start
        return None

    def run(self, group: List[Held], say: Callable[[Reply], None]) -> List[Held]:
        """Answers a group through `say`; returns those of it that have to be run again, each by itself."""
        ready: List[Tuple[Held, Call]] = []
        now = time.monotonic_ns()
        for held in group:
            if held.call is None:
                failed = self.decode(held)
                if failed is not None:
                    say(failed)
            call = held.call
            if call is not None and call.deadline and now > call.deadline * 1e9:
                late = DeadlineExceeded("the deadline of this request passed before the model ran it")
                say(self.failure(held, late))
            elif call is not None:
                ready.append((held, call))
        if len(ready) == 1:
            say(self._single(*ready[0]))
        elif ready and not self._together(ready, say):
            for held, _ in ready:
                held.alone = True
            return [held for held, _ in ready]
        return []

    def failure(self, held: Held, error: Exception) -> Reply:
        """The answer to a request that failed, in the form of its dialect where that has one."""
        request = held.request
        if isinstance(error, ServingError):
            if isinstance(error, ModelError):
                _print_cause(error)
            answer = self._model.failure(held.kind, error)
            if answer is not None:
                reply = _reply(request, answer)
                reply.code = error.code
                return reply, answer.body
            return ErrorReply(request.id, error.code, error.message, error.retry_after), b""
        traceback.print_exception(type(error), error, error.__traceback__)
        message = f"the worker failed on this request: {type(error).__name__}: {error}"
        return ErrorReply(request.id, ServingError.code, message), b""

    def _single(self, held: Held, call: Call) -> Reply:
        """One request by itself. The warm-up's also shows what the outputs are, and whether requests may be batched."""
        proof = stack([call]) if held.request.probe and self._batching.unproven and call.inputs else None
        start = time.monotonic_ns()
        try:
            result = self._model.predict(call)
            message, body = self._encoded(held, call, result, start, time.monotonic_ns(), 1)
        except Exception as error:
            return self.failure(held, error)
        if held.request.probe and call.inputs:
            message.outputs = promise(self._model, call, result)
        if proof is None:
            self._batching.saw(call, result)
        else:
            self._batching.prove(self._model, proof)
            message.credits = self._batching.credits(self._concurrency)
        return message, body

    def _together(self, ready: List[Tuple[Held, Call]], say: Callable[[Reply], None]) -> bool:
        """A batch; false, and nothing is answered, where it fails as a batch."""
        first, call = ready[0]
        start = time.monotonic_ns()
        try:
            result = self._model.predict(stack([call for _, call in ready]))
            predicted = time.monotonic_ns()
            parts = self._batching.part(
                first.group_key()[1:],
                [call.rows for _, call in ready],
                result,
                lambda: self._model.predict(stack([call])),
            )
        except Exception as error:
            self._batching.failed(len(ready), error)
            return False
        if parts is None:
            return False
        for (held, call), part in zip(ready, parts):
            try:
                reply: Reply = self._encoded(held, call, part, start, predicted, len(ready))
            except Exception as error:
                reply = self.failure(held, error)
            say(reply)
        return True

    def _encoded(
        self, held: Held, call: Call, result: Any, start: int, predicted: int, batch: int
    ) -> Tuple[InferReply, Body]:
        began = time.monotonic_ns() if batch > 1 else predicted
        answer = self._model.encode(call, result)
        self.served += 1
        reply = _reply(held.request, answer)
        reply.decode_ns = held.decode_ns
        reply.wait_ns = max(start - held.arrived - held.decode_ns, 0)
        reply.predict_ns = predicted - start
        reply.encode_ns = time.monotonic_ns() - began
        reply.batch = batch
        return reply, answer.body


def _reply(request: InferRequest, answer: Answer) -> InferReply:
    return InferReply(
        id=request.id,
        status=answer.status,
        content_type=answer.content_type,
        content_encoding=answer.content_encoding,
        json_size=answer.json_size,
        rows=answer.rows,
    )


def _print_cause(error: ModelError) -> None:
    """The model's own traceback, for the log only; from where its code begins."""
    cause = error.__cause__ or error
    begin = trace = cause.__traceback__
    while begin is not None and begin.tb_frame.f_code.co_filename.startswith(_OURS):
        begin = begin.tb_next
    traceback.print_exception(type(cause), cause, begin or trace)
