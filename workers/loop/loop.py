"""The request loop of a worker: receive, run, answer until told to stop.

A turn takes all that has arrived, picks the oldest request and whatever can share its prediction
(`batching.py`), runs them (`runner.py`), and sends their answers, a few per message. While one batch runs, the
next one gathers; where that was found to be worth it, it waits for the clients just answered (`patience.py`).

With one socket and `concurrency: 1` everything happens in the main thread: the socket is read between
requests, because handing requests to a second thread would cost a switch of the interpreter lock each. Other
concurrencies are the business of `threaded.py`.
"""

from __future__ import annotations

import time
from collections import deque
from itertools import chain
from typing import Deque, List, Optional, Set, Tuple

from ...protocol.journal import Journal
from ...protocol.limits import BATCH_BYTES, TOGETHER
from ...protocol.messages import (
    CancelRequest,
    ErrorReply,
    InferReply,
    InferRequest,
    Message,
    StatsReply,
    StatsRequest,
    StopRequest,
    TakenRequest,
)
from ...protocol.worker_spec import WorkerSpec
from ..model.served import Served
from .batching import Batching
from .imported import Imported
from .link import Link
from .model_metrics import model_metrics
from .patience import Patience
from .runner import Held, Reply, Runner
from .streaming import Flow, is_stream, run_stream

#: Seconds between two looks whether a stream that waits for its client still has the time.
PATIENT = 0.5


class Loop:
    """Holds what has arrived and not been run yet; runs one request, or one batch, at a time."""

    def __init__(self, spec: WorkerSpec, link: Link, model: Served, batching: Optional[Batching] = None) -> None:
        self._link = link
        self._batching = batching if batching is not None else Batching(model, spec.batching)
        self._model = model
        self._runner = Runner(model, self._batching, spec.concurrency)
        self._journal = Journal(spec.journal)
        self._imported = Imported(spec)
        self._held: Deque[Held] = deque()
        #: What `_gather` has taken out of it, and not decided on: the group, and the others.
        self._picked: Tuple[List[Held], List[Held]] = ([], [])
        self._replies: List[Reply] = []
        #: The last ones, kept until the next: freed at once, the memory of large ones would go back to the system, and
        #: cost a page fault for each 4 KiB of the next (4 MB: 7.4 ms instead of 4.7).
        self._sent: List[Reply] = []
        self._cancelled: Set[int] = set()
        self._streaming: Set[int] = set()
        self._flow = Flow()
        self._stopping = False
        self._bytes = 0  # bytes of what `_gather` has looked at
        self._delay = 0.0  # seconds that the next batch may still wait for more requests: `batching: {max_delay}`
        self._patience = Patience()
        self._running: List[Held] = []  # the group whose first answer is still to come

    def run(self) -> None:
        while self._held or not self._stopping:
            self._read(self._delay if self._held else None)
            if not self._batching.on:
                self._read(0.0)  # a cancellation may be right behind; `_gather` looks by itself
            group = self._gather()
            if group and is_stream(group[0]):
                self._stream(group[0])
            elif group:
                self._running = group
                self._held.extendleft(reversed(self._runner.run(group, self._say)))
            self._flush()

    def _say(self, reply: Reply) -> None:
        self._replies.append(reply)
        if len(self._replies) >= TOGETHER:
            self._flush()

    def _answers_leave(self, reply: Message, when: float) -> None:
        """The first of a group left at that time; what had been received by then did not come because of them."""
        group, self._running = self._running, []
        if self._patient and isinstance(reply, InferReply):
            self._read(0.0)
            waiting = sum(held.request.received <= when for held in self._held)
            self._patience.answered(len(group), reply.predict_ns / 1e9, waiting)

    def _read(self, timeout: Optional[float]) -> int:
        """Takes what has arrived; how many messages that were."""
        arrived = self._link.receive(timeout)
        for message, body in arrived:
            if isinstance(message, InferRequest):
                self._held.append(Held(message, body, time.monotonic_ns()))
            elif isinstance(message, CancelRequest):
                held = {each.request.id for each in chain(self._held, *self._picked)} | self._streaming
                self._cancelled.update(number for number in message.ids if number in held)
            elif isinstance(message, TakenRequest):
                self._flow.taken(message.id, message.size)
            elif isinstance(message, StopRequest):
                self._stopping = True
            elif isinstance(message, StatsRequest):
                batching = {**self._batching.state(), "waits_for_returning_clients": self._patience.waits}
                stats = {"served": self._runner.served, "batching": batching}
                self._replies.append((StatsReply(stats, model_metrics(), self._imported.news()), b""))
        return len(arrived)

    def _stream(self, held: Held) -> None:
        """Chunks go out at once, and the socket is read between them: the client may have gone."""
        number = held.request.id

        def emit(chunk: Reply) -> None:
            self._replies.append(chunk)
            behind = self._flow.sent(number, len(chunk[1]))
            self._flush()
            self._read(0.0)
            while behind and self._flow.full(number) and number not in self._cancelled and not held.late():
                self._read(PATIENT)
                self._flush()  # what else was asked

        self._streaming.add(number)
        try:
            end = run_stream(self._model, self._runner, held, emit, lambda: number in self._cancelled)
        finally:
            self._flow.ended(number)
            self._streaming.discard(number)
            self._cancelled.discard(number)
        self._replies.append(end)

    def _flush(self) -> None:
        while self._replies:  # again where something was asked meanwhile that is no request
            now = time.monotonic()
            self._link.send(self._replies)
            self._sent, self._replies = self._replies, []
            if self._running:
                self._answers_leave(self._sent[-1][0], now)

    def _gather(self) -> List[Held]:
        """The oldest request that is still wanted, and those behind it that can share its prediction.

        Empty where there is none, or where they may wait for more (`batching: {max_delay}`): then they stay held.
        """
        group: List[Held] = []
        others: List[Held] = []
        self._picked = group, others
        self._bytes = 0
        rows = self._pick(group, others, 0)
        # Decoding took a while: what has arrived since comes along, as long as something has.
        # And so do those who were just answered, while it is worth the wait.
        while rows and not self._full(rows) and self._read(self._wait(group, others)):
            rows = self._pick(group, others, rows)
        self._picked = [], []
        if self._cancelled:  # while it waited
            group = [held for held in group if not self._dropped(held)]
        if self._patient:
            self._patience.begins(len(group), full=self._full(rows))
        self._delay = self._time_left(group, rows)
        if self._delay:
            self._held.extendleft(reversed(others))
            self._held.extendleft(reversed(group))
            others, group = group, []
        else:
            self._held.extendleft(reversed(others))
        again = [held.request.id for held in group if held.begun]
        if again:  # their time counts from now
            self._journal.begin(again)
        for held in (*group, *others):
            held.begun = True
        return group

    def _pick(self, group: List[Held], others: List[Held], rows: int) -> int:
        """Moves what is held into the group or to the others; the group's rows, 0 where it is not to grow."""
        batching = self._batching
        while self._held:
            held = self._held.popleft()
            if not self._prepared(held):
                continue
            self._bytes += held.size
            if not group:
                group.append(held)
                if held.call is None or not self._batches(held):
                    return 0
                rows = held.call.rows
            elif (
                held.call is not None
                and rows + held.call.rows <= batching.max_size
                and self._batches(held)
                and held.group_key() == group[0].group_key()
            ):
                group.append(held)
                rows += held.call.rows
            else:
                others.append(held)
            if self._full(rows):
                break
        return rows

    def _full(self, rows: int) -> bool:
        """Whether the group that is being picked, of so many rows, is to take no more."""
        return rows >= self._batching.max_size or self._bytes >= BATCH_BYTES

    def _prepared(self, held: Held) -> bool:
        """Decoded and still wanted; what is not is answered."""
        if self._dropped(held):
            return False
        if is_stream(held):
            self._journal.begin((held.request.id,))
        elif held.call is None:
            self._journal.begin((held.request.id,))
            failed = self._runner.decode(held)
            if failed is not None:
                self._replies.append(failed)
                return False
        return True

    def _batches(self, held: Held) -> bool:
        return held.call is not None and not held.alone and self._batching.on and self._batching.takes(held.call)

    def _time_left(self, group: List[Held], rows: int) -> float:
        """Seconds that this group may wait for more."""
        delay = self._batching.max_delay
        if not delay or not group or self._stopping or self._full(rows) or not self._batches(group[0]):
            return 0.0
        return max(delay - (time.monotonic_ns() - group[0].arrived) / 1e9, 0.0)

    def _wait(self, group: List[Held], others: List[Held]) -> float:
        """Seconds that a batch, and the others behind it, may wait for those who were just answered."""
        if not (self._patience.waits and self._patient):
            return 0.0
        deadline = min((held.deadline for held in (*group, *others) if held.deadline), default=0.0)
        return self._patience.left(len(group), deadline)

    @property
    def _patient(self) -> bool:
        return self._batching.on and self._batching.max_delay is None and not self._stopping

    def _dropped(self, held: Held) -> bool:
        """Whether nobody waits for it any more; the gateway gets its credit back all the same."""
        number = held.request.id
        if number not in self._cancelled:
            return False
        self._cancelled.discard(number)
        self._replies.append((ErrorReply(number, "cancelled", "the client went away"), b""))
        return True
