"""The queue of one model version: who waits, who holds a credit of which worker, who is answered.

Everything is decided here on the event loop, without locks. A request is in exactly one place: the
waiting line (`queue.py`), or one worker's `held`. It leaves by its answer, its deadline, its client
going away, or the version's end, and every one of these passes through `_finish`.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterable
from typing import Any

from ...protocol.codec import Body
from ...protocol.errors import DeadlineExceeded, QueueFull, ServingError, WorkerLost, from_wire
from ...protocol.limits import BATCH_BYTES, MAX_ERROR
from ...protocol.messages import CancelRequest, ChunkReply, ErrorReply, InferReply, InferRequest, TakenRequest
from .pending import OnChunk, Pending, WorkerLink
from .queue import RequestQueue

#: A worker that holds bodies of so many bytes gets no more of them, two batches of the largest ones: they can still be
#: cancelled here, and go to another replica.
ENOUGH_BYTES = 2 * BATCH_BYTES

_numbers = itertools.count(1)


class Dispatcher:
    """Bounded queue, credits, deadlines and retries of one model version."""

    def __init__(
        self, label: str, *, limit: int, retry: bool, left_behind: Callable[[int], None] = lambda size: None
    ) -> None:
        """`left_behind`: told of the bytes, more or less, that workers hold for clients that have left."""
        self.label = label
        self.limit = limit
        self.retry = retry
        self._left_behind = left_behind
        self._loop = asyncio.get_running_loop()
        self._waiting = RequestQueue()
        self._workers: list[WorkerLink] = []
        self._idle: asyncio.Event = asyncio.Event()
        self._idle.set()
        self._timer: asyncio.TimerHandle | None = None
        self._next_sweep = float("inf")
        #: Seconds a full queue is asked to wait before a retry.
        self.retry_after = 1.0
        self.retried = 0
        #: Called when the last request has left.
        self.on_idle: Callable[[], None] | None = None
        self.last_used = time.monotonic()

    @property
    def queued(self) -> int:
        return self._waiting.count

    @property
    def in_flight(self) -> int:
        return sum(len(worker.held) for worker in self._workers)

    def touch(self) -> None:
        """It is used now."""
        self.last_used = time.monotonic()

    def check_queue(self) -> None:
        """Raises QueueFull where a request would find no place in the queue."""
        count = self._waiting.count
        if count >= self.limit:
            message = f"model {self.label} has {count} requests waiting, its limit: try again later"
            raise QueueFull(message, retry_after=self.retry_after)

    async def submit(self, request: InferRequest, body: Body, chunk: OnChunk | None = None) -> tuple[InferReply, Body]:
        """Queue a request and wait for its answer. Raises a leaf of ServingError.

        Cancelling the caller frees the request's place in the queue, or tells the worker that holds it.
        """
        waiting = self._waiting
        worker = self._free_worker() if not waiting.count else None
        if worker is None:
            self.check_queue()
        request.id = next(_numbers)
        pending = Pending(request, body, self._loop.create_future(), chunk)
        self._idle.clear()
        self.last_used = time.monotonic()
        if request.deadline and request.deadline < self._next_sweep:
            self._sweep_at(request.deadline)
        if worker is None:
            waiting.append(pending)
        else:
            self._send(worker, pending)
        try:
            return await pending.answer
        except asyncio.CancelledError:
            self._abandon(pending)
            raise

    async def probe(self, worker: WorkerLink, request: InferRequest, body: Body) -> tuple[InferReply, Body]:
        """One request for a worker that is not attached yet: its warm-up."""
        request.id = next(_numbers)
        pending = Pending(request, body, self._loop.create_future(), None)
        self._send(worker, pending)
        return await pending.answer

    # ---- workers come and go -----------------------------------------------------------------

    def attach(self, worker: WorkerLink) -> None:
        """A worker is ready for requests."""
        self._workers.append(worker)
        self._pump()

    def let_go(self) -> None:
        """Send no more to the present workers, which hold nothing: what comes now waits for their successors."""
        self._workers.clear()

    def detach(self, worker: WorkerLink, begun: Iterable[int], reason: str) -> None:
        """A worker is gone. What it had not begun is sent again; what it had begun is retried once, alone."""
        if worker in self._workers:
            self._workers.remove(worker)
        begun = set(begun)
        again: list[Pending] = []
        over: list[Pending] = []
        for number, pending in worker.held.items():
            pending.worker = None
            if pending.answer.done():
                over.append(pending)
            elif number not in begun:
                again.append(pending)
            elif self.retry and not pending.death and not pending.chunk:
                pending.death = reason
                pending.request.alone = True
                self.retried += 1
                again.append(pending)
            else:
                lost = WorkerLost(f"the worker of {self.label} {reason} while it ran this request")
                pending.answer.set_exception(lost)
                over.append(pending)
        worker.held.clear()
        self._waiting.put_back(again)
        for pending in over:  # only now: those that are sent again are not idleness
            self._finish(pending)
        self._pump()

    def fail_waiting(self, error: Callable[[], ServingError]) -> None:
        """Answer everything that waits with an error: the version failed or ends."""
        while self._waiting.count:
            self._fail(self._waiting.popleft(), error())

    async def drained(self) -> None:
        """Returns when no request is waiting or held."""
        await self._idle.wait()

    # ---- answers ------------------------------------------------------------------------------

    def receive(self, worker: WorkerLink, message: Any, body: Body) -> None:
        """A worker's InferReply, ErrorReply or ChunkReply."""
        pending = worker.held.get(message.id)
        if pending is None:
            return  # answered meanwhile by its worker's death
        if isinstance(message, ChunkReply):
            if pending.chunk is not None and not pending.answer.done():
                pending.chunk(message, body)
            return
        del worker.held[message.id]
        worker.credits += 1 + worker.kept
        worker.bytes -= len(pending.body)
        worker.kept = 0
        worker.answered += 1
        if not pending.answer.done():
            if isinstance(message, InferReply):
                message.queue_ns = max(int((pending.sent - pending.request.received) * 1e9), 0)
                pending.answer.set_result((message, body))
            elif isinstance(message, ErrorReply):
                text = message.message[:MAX_ERROR]
                pending.answer.set_exception(from_wire(message.code, text, message.retry_after))
        self._finish(pending)
        if self._waiting.count:
            self._pump()

    def taken(self, request: InferRequest, size: int) -> None:
        """The client of a stream has taken so many bytes more: its worker may go on."""
        for worker in self._workers:
            if request.id in worker.held:
                worker.send(TakenRequest(request.id, size), b"")

    # ---- inside -------------------------------------------------------------------------------

    def _free_worker(self) -> WorkerLink | None:
        best: WorkerLink | None = None
        for worker in self._workers:
            if (
                worker.credits > 0
                and (best is None or worker.credits > best.credits)
                and (worker.bytes < ENOUGH_BYTES or len(worker.held) < worker.least)
            ):
                best = worker
        return best

    def _idle_worker(self) -> WorkerLink | None:
        """For a request that may have ended its worker: it gets one to itself, or others' answers die with it again."""
        return next((worker for worker in self._workers if worker.credits > 0 and not worker.held), None)

    def _send(self, worker: WorkerLink, pending: Pending) -> None:
        pending.worker = worker
        pending.sent = time.monotonic()
        worker.credits -= 1
        worker.bytes += len(pending.body)
        if pending.request.alone:
            worker.kept, worker.credits = worker.credits, 0
        worker.held[pending.request.id] = pending
        worker.send(pending.request, pending.body)

    def _pump(self) -> None:
        while self._waiting.count:
            worker = self._idle_worker() if self._waiting.first().request.alone else self._free_worker()
            if worker is None:
                return
            self._send(worker, self._waiting.popleft())

    def _sweep_at(self, when: float) -> None:
        """One timer for all deadlines, at the earliest: a timer per request would cost more than the look-up."""
        if self._timer is not None:
            self._timer.cancel()
        self._next_sweep = when
        self._timer = self._loop.call_later(max(when - time.monotonic(), 0), self._sweep)

    def _sweep(self) -> None:
        """Expire what is due, and come back at the earliest deadline that is left."""
        self._next_sweep, self._timer = float("inf"), None
        now, earliest = time.monotonic(), float("inf")
        held = [pending for worker in self._workers for pending in worker.held.values()]
        for pending in [*self._waiting, *held]:
            deadline = pending.request.deadline
            if not deadline or pending.expired:
                continue
            if deadline <= now:
                self._expire(pending)
            else:
                earliest = min(earliest, deadline)
        if earliest < self._next_sweep and earliest != float("inf"):
            self._sweep_at(earliest)

    def _expire(self, pending: Pending) -> None:
        pending.expired = True
        worker = pending.worker
        self._fail(pending, DeadlineExceeded(self._late(pending)))
        if worker is None:
            self._leave_queue(pending)
        else:
            self._leave(pending, worker)
            worker.overdue(pending.request.id)

    def _late(self, pending: Pending) -> str:
        if pending.death:
            return (
                f"the deadline of this request passed while it was retried: the worker of {self.label} {pending.death}"
            )
        if pending.worker is not None:
            return f"the deadline of this request passed while {self.label} ran it or was about to"
        if not self._workers:
            return f"the deadline of this request passed while it waited for {self.label} to be ready"
        return f"the deadline of this request passed in the queue of {self.label}"

    def _abandon(self, pending: Pending) -> None:
        """The client is gone. A worker that runs it keeps its credit until it answers."""
        if pending.worker is None:
            self._leave_queue(pending)
        else:
            self._leave(pending, pending.worker)

    def _leave(self, pending: Pending, worker: WorkerLink) -> None:
        """Nobody waits for it, but its worker holds the body until it says that it does no more."""
        if not pending.left:
            pending.left = len(pending.body)
            self._left_behind(pending.left)
        worker.send(CancelRequest([pending.request.id]), b"")

    def _leave_queue(self, pending: Pending) -> None:
        self._waiting.remove(pending)
        self._finish(pending)
        self._pump()  # those behind one that waits for a worker of its own could go all along

    def _fail(self, pending: Pending, error: ServingError) -> None:
        if not pending.answer.done():
            pending.answer.set_exception(error)
        if pending.worker is None:
            self._finish(pending)

    def _finish(self, pending: Pending) -> None:
        if pending.left:
            self._left_behind(-pending.left)
            pending.left = 0
        self.last_used = time.monotonic()
        if not self._waiting.count and not any(worker.held for worker in self._workers):
            self._idle.set()
            if self.on_idle is not None:
                self.on_idle()
