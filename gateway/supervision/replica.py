"""One replica of a model version: a slot that keeps one worker process running.

`_run` is its whole life: start a worker, wait until it is ready, warm it, let it serve, see it end,
clean up, decide whether and when the next one starts.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import signal
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

from ...config.quantities import format_duration, human_size
from ...protocol.codec import Body
from ...protocol.errors import LoadError, ServingError
from ...protocol.messages import (
    ChunkReply,
    ErrorReply,
    InferReply,
    InferRequest,
    LoadFailedReply,
    ReadyReply,
    StatsReply,
    StatsRequest,
    StopRequest,
)
from ..dispatch.channel import Channel, Peer
from ..dispatch.dispatcher import Dispatcher
from ..dispatch.pending import WorkerLink
from ..places.place import Place, StartedWorker, StarterEnded, WorkerExit
from ..system.processes import Memory
from . import said
from .plan import ReplicaPlan
from .restarts import RestartPolicy

log = logging.getLogger("modelhub.workers")

#: Seconds that a predict may run past the entry's timeout before its worker is killed.
KILL_GRACE = 1.0
#: Escalation at the end of a worker: StopRequest, then SIGTERM, then SIGKILL, seconds for each.
STOP_GRACE = 2.0
TERM_GRACE = 1.0
#: Seconds that a model may take for its own input example, at the least: the first prediction compiles and caches.
WARMUP_TIMEOUT = 60.0


class EndedEarly(Exception):
    """A worker ended before it was ready, without a word why."""

    def __init__(self, exit_: WorkerExit, when: str) -> None:
        super().__init__(f"{exit_} {when}")
        self.kind = exit_.kind


class Owner(Protocol):
    """What a replica tells the model version that it belongs to."""

    def replica_loading(self) -> None: ...
    def replica_warming(self) -> None: ...
    def replica_ready(self, replica: Replica, ready: ReadyReply) -> None: ...
    def replica_restarts(self, replica: Replica, reason: str, kind: str, delay: float) -> None: ...
    def replica_failed(self, replica: Replica, reason: str) -> float | None: ...
    def replica_may_return(self, replica: Replica) -> bool: ...
    def replica_traceback(self, replica: Replica, text: str) -> None: ...
    def replica_corrected(self, replica: Replica, text: str) -> None: ...
    def replica_imported(self, replica: Replica, modules: list[str]) -> None: ...


class Replica:
    """Keeps one worker running; `state` is for people."""

    def __init__(self, index: int, plan: ReplicaPlan, owner: Owner, dispatcher: Dispatcher, channel: Channel) -> None:
        self.index = index
        self.plan = plan
        self.generation = 0
        self.restarts = 0
        self.state = "starting"
        self.python = ""
        self.worker: StartedWorker | None = None
        #: What its worker used when it had become ready; nothing: not measured yet.
        self.baseline = Memory()
        #: The model's own metrics as its worker told them last, in Prometheus' text format.
        self.own_metrics = b""
        #: What its worker said last of batching: enabled, reason, max_size (rows), max_delay (seconds); or nothing yet.
        self.batching: dict[str, Any] = {}
        self._asked: asyncio.Future[None] | None = None
        self._owner = owner
        self._dispatcher = dispatcher
        self._channel = channel
        self._last_memory = Memory()
        self._stopping = False
        self._kill_reason = self._kill_cause = ""
        self._ready_at = 0.0
        self._answered = 0
        self._in_request = False
        self._link: WorkerLink | None = None
        self._peer: Peer | None = None
        self._first_word: asyncio.Future[ReadyReply] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run(), name=f"replica {plan.label}#{index}")

    @property
    def pid(self) -> int:
        return self.worker.pid if self.worker is not None else 0

    @property
    def label(self) -> str:
        return f"{self.plan.label}#{self.index}" if self.index else self.plan.label

    @property
    def answers(self) -> bool:
        """Whether a worker of it is ready and there."""
        return self.state == "ready" and self.worker is not None

    @property
    def place(self) -> Place:
        return self.plan.place

    @property
    def memory(self) -> Memory:
        """Of its worker, or of the one before until there is another, as measured last."""
        return self.worker.memory if self.worker is not None else self._last_memory

    async def measure(self, *, exact: bool = True) -> None:
        """Read now what its worker uses; not `exact`: where that seems to have changed."""
        if self.worker is not None:
            await self.place.measure([self.worker], exact=exact)

    @property
    def memory_limit(self) -> int:
        return self.plan.memory_limit

    async def _run(self) -> None:
        policy = RestartPolicy()
        ever_ready = False
        while True:
            self._ready_at, self._answered, self._in_request = 0.0, 0, False
            hopeless = False
            try:
                exit_ = await self._live()
                reason, kind = str(exit_), exit_.kind
            except EndedEarly as early:
                reason, kind = str(early), early.kind
            except StarterEnded as ended:
                reason, kind = ended.message, "fork_server"
            except LoadError as error:
                lacks = self.plan.environment.lacks
                reason, kind = f"{error.message} ({lacks})" if lacks else error.message, "load"
                hopeless = not ever_ready  # it said so itself: another try would say the same
            except Exception as error:
                log.exception("%s: looking after its worker failed in the gateway itself", self.label)
                reason, kind = f"could not be looked after: {type(error).__name__}: {error}", "gateway"
            if self._stopping:
                break
            ever_ready = ever_ready or self._ready_at > 0
            uptime = time.monotonic() - self._ready_at if self._ready_at else 0.0
            delay = policy.after_exit(uptime, self._answered, in_request=self._in_request)
            if hopeless or delay is None:
                if not hopeless:
                    reason = f"its worker {reason}, the last of {policy.exits} exits in a row"
                if not await self._give_up(reason):
                    return
                policy = RestartPolicy()
                continue
            self.restarts += 1
            self.state = "restarting"
            self._owner.replica_restarts(self, reason, kind, delay)
            if delay:
                await asyncio.sleep(delay)
        self.state = "stopped"

    async def _give_up(self, reason: str) -> bool:
        """Whether it may try again: after a while, and only beside others that serve."""
        self.state = "failed"
        wait = self._owner.replica_failed(self, reason)
        if wait is None:
            return False
        await asyncio.sleep(wait)
        return self._owner.replica_may_return(self)

    # ---- one worker's life ----------------------------------------------------------------------

    async def _live(self) -> WorkerExit:
        """Start a worker and stay with it to its end. Raises LoadError if it never became ready by its own word."""
        plan = self.plan
        self.generation += 1
        self.state = "starting"
        self._kill_reason = self._kill_cause = ""
        self._last_memory = self.baseline = Memory()
        token = secrets.token_hex(16)
        self._first_word = asyncio.get_running_loop().create_future()
        self._link = link = WorkerLink(self.label, plan.credits, self._send, self._overdue)
        self._peer = self._channel.expect(token, self._receive)
        worker: StartedWorker | None = None
        why = "ended"
        try:
            self.worker = worker = await plan.place.start(plan.order.numbered(token, self.index, self.generation))
            if worker.start != plan.order.start or plan.start_reason:
                log.info("%s starts in a fresh interpreter: %s", self.label, worker.why or plan.start_reason)
            self._owner.replica_loading()
            ready = await self._wait_ready(worker)
            said.check_ready(ready)
            self.python = ready.python
            link.credits = said.credits_of(ready.credits, link.credits)
            await self._warm(link, ready, worker)
            self._ready_at = time.monotonic()
            self.state, self.baseline = "ready", Memory()  # measured anew: what loading took is no growth
            self._owner.replica_ready(self, ready)
            self._dispatcher.attach(link)
            self.ask_metrics()  # nobody waits: so that /status knows of batching before the first scrape
            exit_ = self._explained(await asyncio.shield(worker.exited))
            why = str(exit_)
            return exit_
        finally:
            try:
                if worker is not None and not worker.exited.done():
                    worker.signal(signal.SIGKILL)
                    await asyncio.shield(worker.exited)
            finally:  # whatever happens: what it held is answered or sent again, and nothing stays
                self._clean_up(link, worker, why)
                if worker is not None:
                    await worker.release()

    def _clean_up(self, link: WorkerLink, worker: StartedWorker | None, why: str) -> None:
        """The worker is gone: its last words count, then what it held is sent again or answered."""
        begun: Mapping[int, float] = {}
        self._channel.drain(self._peer)
        if self._peer is not None:
            self._channel.forget(self._peer)
        if worker is not None:
            begun, self._last_memory = worker.begun(link.held), worker.memory
        self._answered = link.answered
        self._in_request = any(number in begun for number in link.held)
        self.worker = self._link = self._peer = None
        self._take_metrics(StatsReply())
        if self._first_word.done() and not self._first_word.cancelled():
            self._first_word.exception()  # seen, even where nobody waits for it any more
        self._dispatcher.detach(link, begun, why)

    def _explained(self, exit_: WorkerExit) -> WorkerExit:
        """An exit with what we know of it: why we killed it, or what it used before the kernel did."""
        if self._kill_reason:
            return replace(exit_, why=self._kill_reason, cause=self._kill_cause)
        if exit_.signal != signal.SIGKILL or exit_.why:
            return exit_
        used, limit = self.memory.private, self.plan.memory_limit
        if used:
            of = f"of its {human_size(limit)} limit" if limit else "when last measured"
            return replace(exit_, memory=f"it used {human_size(used)} {of}")
        return replace(exit_, memory=f"it used at most {human_size(exit_.max_rss)}, what it shared included")

    async def _wait_ready(self, worker: StartedWorker) -> ReadyReply:
        either: set[asyncio.Future[Any]] = {self._first_word, worker.exited}
        seconds = self.plan.load_timeout
        await asyncio.wait(either, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        self._channel.drain(self._peer)
        if self._first_word.done():
            return self._first_word.result()
        if not worker.exited.done():
            raise LoadError(f"it was not loaded within {format_duration(seconds)} (load_timeout)")
        raise EndedEarly(self._explained(worker.exited.result()), "while it loaded the model")

    async def _warm(self, link: WorkerLink, ready: ReadyReply, worker: StartedWorker) -> None:
        """The model's own input example through decode, predict and encode.

        Raises LoadError where that fails, with `warmup: fail`, or does not end.
        """
        plan = self.plan
        if plan.warmup == "off" or not ready.example:
            return
        self._owner.replica_warming()
        request = InferRequest(id=0, content_type="application/json", probe=True)
        answer = asyncio.ensure_future(self._dispatcher.probe(link, request, ready.example))
        either: set[asyncio.Future[Any]] = {answer, worker.exited}
        seconds = max(plan.timeout, WARMUP_TIMEOUT)
        try:
            await asyncio.wait(either, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            answered = answer.done()
        finally:
            answer.cancel()  # nobody waits for it any more, here or in the queue
        if not answered:
            if worker.exited.done():
                raise EndedEarly(self._explained(worker.exited.result()), "on its own input example")
            raise LoadError(f"its own input example was not answered within {seconds:g} s: warmup: off skips it")
        problem = wrong = ""
        try:
            reply, _ = answer.result()
            link.credits = said.credits_of(reply.credits, link.credits)
            wrong = said.correct(ready, reply)
        except ServingError as error:
            problem = f"its own input example fails: {error.message}"
        if problem and ready.example_altered:
            problem += f" (it is not the model's own: {ready.example_altered}; so this fails nothing)"
        elif problem and plan.warmup == "fail":
            raise LoadError(f"{problem} (warmup: warn or off lets it serve all the same)")
        if problem:
            log.warning("%s: %s", self.label, problem)
        if wrong:
            self._owner.replica_corrected(self, wrong)

    # ---- messages -------------------------------------------------------------------------------

    def _send(self, message: Any, body: Body) -> None:
        if self._peer is not None:
            self._channel.send(self._peer, message, body)

    def _receive(self, message: Any, body: Body) -> None:
        if isinstance(message, (InferReply, ErrorReply, ChunkReply)):
            if self._link is not None:
                self._dispatcher.receive(self._link, message, body)
        elif isinstance(message, ReadyReply):
            if not self._first_word.done():
                self._first_word.set_result(message)
        elif isinstance(message, LoadFailedReply):
            self._owner.replica_traceback(self, message.traceback[-said.MAX_TRACEBACK :].rstrip())
            if not self._first_word.done():
                self._first_word.set_exception(LoadError(message.message[: said.MAX_MESSAGE]))

        elif isinstance(message, StatsReply):
            self._take_metrics(message)

    def ask_metrics(self) -> asyncio.Future[None]:
        """Ask the worker for the model's own metrics; resolved when they and `batching` are new, or the worker gone."""
        if self._asked is None:
            self._asked = asyncio.get_running_loop().create_future()
            self._send(StatsRequest(), b"")
        return self._asked

    def _take_metrics(self, reply: StatsReply) -> None:
        self.own_metrics, self.batching = said.metrics_of(reply), said.batching_of(reply)
        if imported := said.imported_of(reply):
            self._owner.replica_imported(self, imported)
        if self._asked is not None and not self._asked.done():
            self._asked.set_result(None)
        self._asked = None

    # ---- the end of a worker --------------------------------------------------------------------

    def _overdue(self, number: int) -> None:
        """A request passed its deadline in the worker: once it has run for the entry's timeout, kill."""
        link, worker = self._link, self.worker
        if link is None or worker is None or number not in link.held:
            return
        begun, limit = worker.begun(()), self.plan.timeout + KILL_GRACE
        ran, what = begun.get(number), "a prediction ran longer than"
        if ran is None:
            # It waits behind others, or for a worker that takes up nothing any more (stopped, stuck in a lock).
            waits = any(other in begun for other in link.held)
            ran, what = (0.0 if waits else time.monotonic() - link.held[number].sent), "it took up no request for"
        if ran < limit:
            asyncio.get_running_loop().call_later(limit - ran + 0.01, self._overdue, number)
            return
        self.kill(f"was killed: {what} the timeout of {self.plan.timeout:g} s", "timeout")

    def kill(self, reason: str, cause: str) -> None:
        """End the worker now; a successor starts. `reason` continues "its worker …", `cause` is for the metric."""
        if self.worker is not None:
            self._kill_reason, self._kill_cause = reason, cause
            self.worker.signal(signal.SIGKILL)

    async def stop(self) -> None:
        """End for good: StopRequest, then SIGTERM, then SIGKILL."""
        self._stopping = True
        worker = self.worker
        if worker is not None and self.state == "ready":
            self._send(StopRequest(), b"")
            await self._ended_within(worker, STOP_GRACE)
            worker.signal(signal.SIGTERM)
            await self._ended_within(worker, TERM_GRACE)
        if worker is not None:
            worker.signal(signal.SIGKILL)
        if self.state != "ready":
            self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self.state = "stopped"

    async def _ended_within(self, worker: StartedWorker, seconds: float) -> None:
        if not worker.exited.done():
            await asyncio.wait({worker.exited}, timeout=seconds)
