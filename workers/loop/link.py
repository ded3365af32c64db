"""The worker's end of the socket between it and the gateway."""

from __future__ import annotations

import math
import select
import socket
import time
from typing import Any, List, Optional, Sequence, Tuple

from ...protocol.clocks import PeerClock
from ...protocol.codec import Body, decode, encode
from ...protocol.messages import ErrorReply
from ...protocol.worker_spec import WorkerSpec
from ...protocol.zmtp import GREETING, Receiver, pack, ready, widen
from .runner import Reply

#: Seconds between two attempts to connect: the socket's file may have to be made anew.
RETRY = 0.05

_SCHEME = "ipc://"


class Link:
    """The connection to the gateway; it speaks ZeroMQ's protocol, as a DEALER."""

    def __init__(self, spec: WorkerSpec) -> None:
        self._socket = _connected(spec.endpoint[len(_SCHEME) :])
        widen(self._socket)
        self._receiver = Receiver(1 << 62)
        self._clock = PeerClock()
        self._largest = spec.max_answer
        #: Frames that came while READY was waited for.
        self._early: List[List[Body]] = []
        self._socket.sendall(GREETING + ready("DEALER", bytes.fromhex(spec.token)))

    def receive(self, timeout: Optional[float]) -> List[Tuple[Any, Body]]:
        """What has arrived, or arrives within `timeout` seconds; without a timeout, the next messages.

        The process ends where the gateway has closed the connection.
        """
        if self._early:
            return self._received(0)
        if timeout is None:
            found: List[Tuple[Any, Body]] = []
            while not found:
                found = self._received(self._filled())
            return found
        found = self._arrived()
        until = time.monotonic() + timeout if timeout else 0.0
        while not found:
            left = until - time.monotonic() if timeout else 0.0
            if left <= 0:
                break
            select.select((self._socket,), (), (), left)
            found = self._arrived()
        return found

    def _arrived(self) -> List[Tuple[Any, Body]]:
        found: List[Tuple[Any, Body]] = []
        while True:
            room = self._receiver.room()
            try:
                size = self._filled(socket.MSG_DONTWAIT)
            except BlockingIOError:
                return found
            found += self._received(size)
            if size < len(room):
                return found

    def _filled(self, flags: int = 0) -> int:
        """Bytes that are received into the receiver's room."""
        size = self._socket.recv_into(self._receiver.room(), 0, flags)
        if not size:
            raise SystemExit("the gateway has closed this worker's connection")
        return size

    def _received(self, size: int) -> List[Tuple[Any, Body]]:
        whole = self._receiver.received(size)
        if self._early:
            whole, self._early = self._early + whole, []
        found: List[Tuple[Any, Body]] = []
        for frames in whole:
            found += decode(frames, self._clock)
        return found

    def send(self, replies: Sequence[Reply]) -> None:
        """All of them as one message: a wake-up of the gateway costs more than the bytes."""
        for index, (reply, body) in enumerate(replies):
            if len(body) > self._largest:
                replies = [*replies[:index], self._too_large(reply, len(body)), *replies[index + 1 :]]
        while self._receiver.identity is None:  # libzmq loses what comes before it has answered
            self._early += self._receiver.received(self._filled())
        for piece in pack(encode(replies)):
            self._socket.sendall(piece)

    def _too_large(self, reply: Any, size: int) -> Reply:
        """The gateway would cut off who sends it."""
        message = f"the answer has {size} bytes, and this server holds {self._largest} at most (server.max_buffered)"
        return ErrorReply(reply.id, "internal", message), b""

    def wait(self, descriptor: int, timeout: float) -> None:
        """Returns when a message has arrived, `descriptor` can be read, or `timeout` seconds (0: none) are over."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        poll.register(descriptor, select.POLLIN)
        if not self._early:
            poll.poll(math.ceil(timeout * 1000) if timeout else None)

    def close(self) -> None:
        self._socket.close()


def _connected(path: str) -> socket.socket:
    """As soon as the gateway listens there."""
    while True:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            connection.close()
            time.sleep(RETRY)
        else:
            return connection
