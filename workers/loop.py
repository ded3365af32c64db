"""The request loop of a worker: load the model, say so, then receive, run, answer until told to stop.

With one socket and `concurrency: 1` everything happens in the main thread: the socket is read between
requests, because handing requests to a second thread would cost a switch of the interpreter lock each.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any, Deque, List, Set, Tuple

import zmq

from ..protocol.codec import Body, decode, encode
from ..protocol.errors import DeadlineExceeded, ModelError, ServingError
from ..protocol.journal import Journal
from ..protocol.messages import (
    CancelRequest,
    ErrorReply,
    InferReply,
    InferRequest,
    LoadFailedReply,
    Message,
    ReadyReply,
    StatsReply,
    StatsRequest,
    StopRequest,
)
from .model_metrics import model_metrics
from .served import ServedModel
from .spec import WorkerSpec

#: Bodies above this many bytes are borrowed by ZeroMQ instead of copied.
BORROW_ABOVE = 65536


def serve(spec: WorkerSpec) -> int:
    """Run a worker from its birth to its end. Returns the process's exit code."""
    link = Link(spec)
    try:
        started = time.monotonic_ns()
        try:
            from .loading import load

            model = load(spec)
        except Exception as error:
            trace = traceback.format_exc()
            message = error.message if isinstance(error, ServingError) else f"{type(error).__name__}: {error}"
            link.send(LoadFailedReply(message=message[:4000], traceback=trace[-20000:]))
            return 1
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        link.send(
            ReadyReply(
                pid=os.getpid(),
                python=sys.version.split()[0],
                versions=model.versions,
                metadata=model.metadata,
                example=model.example,
                load_ns=time.monotonic_ns() - started,
                wants_headers=model.wants_headers,
                streams=model.streams,
            )
        )
        loop = Loop(spec, link, model) if spec.concurrency == 1 else ThreadedLoop(spec, link, model)
        loop.run()
        return 0
    finally:
        link.close()


class Link:
    """The DEALER socket to the gateway."""

    def __init__(self, spec: WorkerSpec) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.set_hwm(0)
        self._socket.setsockopt(zmq.IDENTITY, bytes.fromhex(spec.token))
        self._socket.setsockopt(zmq.LINGER, 2000)
        self._socket.connect(spec.endpoint)

    def receive(self, block: bool) -> List[Tuple[Any, Body]]:
        """What has arrived; with `block`, at least one message."""
        found: List[Tuple[Any, Body]] = []
        flags = 0 if block else zmq.DONTWAIT
        try:
            while True:
                frames: List[Body] = [self._socket.recv(flags)]
                while self._socket.getsockopt(zmq.RCVMORE):
                    frames.append(self._socket.recv(0, copy=False).buffer)
                found.extend(decode(frames))
                flags = zmq.DONTWAIT
        except zmq.Again:
            return found

    def send(self, message: Message, body: Body = b"") -> None:
        frames = encode([(message, body)])
        if len(frames) == 1:
            self._socket.send(frames[0])
        else:
            self._socket.send(frames[0], zmq.SNDMORE)
            self._socket.send(frames[1], 0, len(frames[1]) < BORROW_ABOVE)

    def wait(self, descriptor: int) -> None:
        """Returns when a message has arrived, or `descriptor` can be read."""
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(descriptor, zmq.POLLIN)
        poller.poll()

    def close(self) -> None:
        self._socket.close()
        self._context.term()


class Loop:
    """Holds what has arrived and not been run yet; runs one request at a time."""

    def __init__(self, spec: WorkerSpec, link: Link, model: ServedModel) -> None:
        self._link = link
        self._model = model
        self._journal = Journal(spec.journal)
        self._held: Deque[Tuple[InferRequest, Body]] = deque()
        self._cancelled: Set[int] = set()
        self._stopping = False
        self._served = 0

    def run(self) -> None:
        while self._held or not self._stopping:
            for message, body in self._link.receive(block=not self._held):
                self._take(message, body)
            if self._held:
                self._answer(*self._held.popleft())

    def _take(self, message: Any, body: Body) -> None:
        if isinstance(message, InferRequest):
            self._held.append((message, body))
        elif isinstance(message, CancelRequest):
            held = {request.id for request, _ in self._held}
            self._cancelled.update(number for number in message.ids if number in held)
        elif isinstance(message, StopRequest):
            self._stopping = True
        elif isinstance(message, StatsRequest):
            self._link.send(StatsReply(stats={"served": self._served}, metrics=model_metrics()))

    def _answer(self, request: InferRequest, body: Body) -> None:
        if self._dropped(request):
            return
        self._journal.begin((request.id,))
        self._link.send(*self._outcome(request, body))

    def _dropped(self, request: InferRequest) -> bool:
        """Whether nobody waits for it any more; the gateway gets its credit back all the same."""
        if request.id not in self._cancelled:
            return False
        self._cancelled.discard(request.id)
        self._link.send(ErrorReply(request.id, "cancelled", "the client went away"))
        return True

    def _outcome(self, request: InferRequest, body: Body) -> Tuple[Message, Body]:
        """The answer to a request, whatever happens."""
        try:
            return self._run(request, body)
        except ServingError as error:
            if isinstance(error, ModelError):
                _print_cause(error)
            return self._failed(request, error)
        except Exception as error:
            traceback.print_exc()
            message = f"the worker failed on this request: {type(error).__name__}: {error}"
            return ErrorReply(request.id, ServingError.code, message), b""

    def _failed(self, request: InferRequest, error: ServingError) -> Tuple[Message, Body]:
        """A failure in the form of the request's dialect, or as data for the gateway."""
        answer = self._model.failure(request, error)
        if answer is None:
            return ErrorReply(request.id, error.code, error.message, error.retry_after), b""
        return InferReply(request.id, answer.status, answer.content_type), answer.body

    def _run(self, request: InferRequest, body: Body) -> Tuple[InferReply, Body]:
        start = time.monotonic_ns()
        if request.deadline and start > request.deadline * 1e9:
            raise DeadlineExceeded("the deadline of this request passed before the worker began it")
        model = self._model
        call = model.decode(request, body)
        decoded = time.monotonic_ns()
        result = model.predict(call)
        predicted = time.monotonic_ns()
        answer = model.encode(call, result)
        self._served += 1
        return (
            InferReply(
                id=request.id,
                status=answer.status,
                content_type=answer.content_type,
                content_encoding=answer.content_encoding,
                json_size=answer.json_size,
                decode_ns=decoded - start,
                predict_ns=predicted - decoded,
                encode_ns=time.monotonic_ns() - predicted,
                rows=answer.rows,
            ),
            answer.body,
        )


class ThreadedLoop(Loop):
    """`concurrency: n`: n threads predict; the main thread alone touches the socket and the journal."""

    def __init__(self, spec: WorkerSpec, link: Link, model: ServedModel) -> None:
        super().__init__(spec, link, model)
        self._threads = ThreadPoolExecutor(spec.concurrency, thread_name_prefix="predict")
        self._free = spec.concurrency
        self._size = spec.concurrency
        self._done: SimpleQueue[Tuple[Message, Body]] = SimpleQueue()
        self._wake, self._wake_end = os.pipe()

    def run(self) -> None:
        while self._free < self._size or self._held or not self._stopping:
            self._link.wait(self._wake)
            for message, body in self._link.receive(block=False):
                self._take(message, body)
            self._send_done()
            while self._held and self._free:
                request, body = self._held.popleft()
                if self._dropped(request):
                    continue
                self._journal.begin((request.id,))
                self._free -= 1
                self._threads.submit(self._predict, request, body)
        self._threads.shutdown()

    def _predict(self, request: InferRequest, body: Body) -> None:
        self._done.put(self._outcome(request, body))
        os.write(self._wake_end, b".")

    def _send_done(self) -> None:
        while not self._done.empty():
            os.read(self._wake, 1)
            self._free += 1
            self._link.send(*self._done.get())


def _print_cause(error: ModelError) -> None:
    """The model's own traceback, for the log only."""
    cause = error.__cause__ or error
    traceback.print_exception(type(cause), cause, cause.__traceback__)
