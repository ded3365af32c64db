"""The request loop of a worker with `concurrency: n`."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import List, Optional, Tuple

from ...protocol.messages import ErrorReply, InferReply
from ...protocol.worker_spec import WorkerSpec
from ..model.served import Served
from .batching import Batching
from .link import Link
from .loop import PATIENT, Loop
from .runner import Held, Reply
from .streaming import is_stream, run_stream


class ThreadedLoop(Loop):
    """n threads predict; the main thread alone touches the socket and the journal."""

    def __init__(self, spec: WorkerSpec, link: Link, model: Served, batching: Optional[Batching] = None) -> None:
        super().__init__(spec, link, model, batching)
        self._threads = ThreadPoolExecutor(spec.concurrency, thread_name_prefix="predict")
        self._free = spec.concurrency
        self._size = spec.concurrency
        #: Replies, what is to be run again, and whether the thread is free again (not after a stream's chunk).
        self._done: SimpleQueue[Tuple[List[Reply], List[Held], bool]] = SimpleQueue()
        self._wake, self._wake_end = os.pipe()
        self._fatal: Optional[BaseException] = None

    def run(self) -> None:
        while self._free < self._size or self._held or not self._stopping:
            self._link.wait(self._wake, self._delay if self._held and self._free else 0.0)
            if self._fatal is not None:
                raise self._fatal
            self._read(0.0)
            self._collect()
            while self._held and self._free:
                group = self._gather()
                if self._delay:
                    break
                if not group:
                    continue
                self._free -= 1
                if is_stream(group[0]):
                    self._streaming.add(group[0].request.id)
                self._threads.submit(self._run, group)
            self._flush()
        self._threads.shutdown()

    def _prepared(self, held: Held) -> bool:
        """As ever; but what is not batched is decoded by the thread that predicts it."""
        if self._batching.on:
            return super()._prepared(held)
        if self._dropped(held):
            return False
        if not held.begun:
            self._journal.begin((held.request.id,))
        return True

    def _run(self, group: List[Held]) -> None:
        try:
            self._predict(group)
        except BaseException as error:  # sys.exit() in a model ends its worker, as it does without threads
            self._fatal = error
            os.write(self._wake_end, b".")

    def _predict(self, group: List[Held]) -> None:
        if is_stream(group[0]):
            number = group[0].request.id

            def emit(chunk: Reply) -> None:
                behind = self._flow.sent(number, len(chunk[1]))
                self._put([chunk], [], free=False)
                while behind and self._flow.full(number) and number not in self._cancelled and not group[0].late():
                    self._flow.wait(number, PATIENT)

            end = run_stream(self._model, self._runner, group[0], emit, lambda: number in self._cancelled)
            self._flow.ended(number)
            self._put([end], [], free=True)
        else:
            replies: List[Reply] = []
            again = self._runner.run(group, replies.append)
            self._put(replies, again, free=True)

    def _put(self, replies: List[Reply], again: List[Held], *, free: bool) -> None:
        self._done.put((replies, again, free))
        os.write(self._wake_end, b".")

    def _collect(self) -> None:
        while not self._done.empty():
            os.read(self._wake, 1)
            replies, again, free = self._done.get()
            if free:
                self._free += 1
                ended = {message.id for message, _ in replies if isinstance(message, (InferReply, ErrorReply))}
                self._streaming -= ended
                self._cancelled -= ended
            self._replies += replies
            self._held.extendleft(reversed(again))
