"""The worker's end of the socket between it and the gateway."""

from __future__ import annotations

import math
import select
import time
from typing import Any, List, Optional, Sequence, Tuple

import zmq

from ...protocol.clocks import PeerClock
from ...protocol.codec import Body, decode, encode
from ...protocol.limits import BORROW_ABOVE
from ...protocol.messages import ErrorReply
from ...protocol.worker_spec import WorkerSpec
from .runner import Reply

#: pyzmq's own are enumerations, and each `&` and conversion of those costs what a message does.
_EVENTS, _POLLIN, _MORE = int(zmq.EVENTS), int(zmq.POLLIN), int(zmq.SNDMORE)


class Link:
    """The DEALER socket to the gateway."""

    def __init__(self, spec: WorkerSpec) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.set_hwm(0)
        self._socket.setsockopt(zmq.IDENTITY, bytes.fromhex(spec.token))
        self._socket.setsockopt(zmq.LINGER, 2000)
        self._socket.connect(spec.endpoint)
        self._clock = PeerClock()
        self._largest = spec.max_answer
        self._descriptor = int(self._socket.getsockopt(zmq.FD))

    def receive(self, timeout: Optional[float]) -> List[Tuple[Any, Body]]:
        """What has arrived, or arrives within `timeout` seconds; without a timeout, the next message."""
        if timeout is None:
            return self._next()
        found: List[Tuple[Any, Body]] = []
        until = time.monotonic() + timeout if timeout else 0.0
        while True:
            # to try in vain costs twice as much
            while int(self._socket.get(_EVENTS)) & _POLLIN:
                found += self._next()
            left = until - time.monotonic() if timeout and not found else 0.0
            if left <= 0:
                return found
            # finer than ZeroMQ's own milliseconds; readable does not mean that a message is there
            select.select((self._descriptor,), (), (), left)

    def _next(self) -> List[Tuple[Any, Body]]:
        frame = self._socket.recv(copy=False)
        frames: List[Body] = [frame.bytes]
        while frame.more:
            frame = self._socket.recv(copy=False)
            frames.append(frame.buffer)
        return decode(frames, self._clock)

    def send(self, replies: Sequence[Reply]) -> None:
        """All of them as one message: a wake-up of the gateway costs more than the bytes."""
        for index, (reply, body) in enumerate(replies):
            if len(body) > self._largest:
                replies = [*replies[:index], self._too_large(reply, len(body)), *replies[index + 1 :]]
        frames = encode(replies)
        last = len(frames) - 1
        for index, frame in enumerate(frames):
            self._socket.send(frame, _MORE if index < last else 0, index == 0 or len(frame) < BORROW_ABOVE)

    def _too_large(self, reply: Any, size: int) -> Reply:
        """The gateway would cut off who sends it."""
        message = f"the answer has {size} bytes, and this server holds {self._largest} at most (server.max_buffered)"
        return ErrorReply(reply.id, "internal", message), b""

    def wait(self, descriptor: int, timeout: float) -> None:
        """Returns when a message has arrived, `descriptor` can be read, or `timeout` seconds (0: none) are over."""
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(descriptor, zmq.POLLIN)
        poller.poll(math.ceil(timeout * 1000) if timeout else None)

    def close(self) -> None:
        self._socket.close()
        self._context.term()
