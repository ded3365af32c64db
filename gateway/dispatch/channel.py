"""The ZeroMQ ROUTER that all workers connect to, driven by the event loop.

The socket's descriptor is edge-triggered and sending can swallow an edge, so every send is followed by
a look at the inbox. Messages for one worker that are ready in the same turn of the loop leave together.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zmq

from ...protocol.codec import Body, decode, encode
from ...protocol.errors import WireError
from ...protocol.limits import BORROW_ABOVE, MAX_ANSWER, TOGETHER
from ...protocol.messages import ErrorReply, InferRequest, Message
from ..telemetry.seldom import Seldom

log = logging.getLogger("modelhub.workers")

#: Replies that are handed over in one turn: TOGETHER, and twice as many each time that there are more, up to this.
MOST = 512
#: Bytes of the frame that comes before bodies, beside them.
HEADS = 64 << 20

#: pyzmq's own are enumerations, and each `&`, `|` and conversion of those costs what a message does.
_EVENTS, _POLLIN = int(zmq.EVENTS), int(zmq.POLLIN)
_AT_ONCE, _AND_MORE = int(zmq.DONTWAIT), int(zmq.DONTWAIT | zmq.SNDMORE)

Receiver = Callable[[Any, Body], None]


class Peer:
    """One expected worker: its identity, where its messages go, what waits to be sent to it."""

    __slots__ = ("identity", "outbox", "receive")

    def __init__(self, identity: bytes, receive: Receiver) -> None:
        self.identity = identity
        self.receive = receive
        self.outbox: list[tuple[Message, Body]] = []


class Channel:
    """Sends messages to workers and hands theirs to the receivers. Lives on one event loop."""

    def __init__(self, largest: int = MAX_ANSWER) -> None:
        """`largest`: bytes of one body that a worker may send; who sends more is cut off."""
        #: Where workers connect, and the identity of the file that is there.
        self._paths: dict[Path, tuple[int, int]] = {}
        self._bound: dict[Path, str] = {}
        self._binds = itertools.count(1)
        self._loop = asyncio.get_running_loop()
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.set_hwm(0)
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._socket.setsockopt(zmq.ROUTER_HANDOVER, 0)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.MAXMSGSIZE, largest + HEADS)
        self._dropped, self._choked = Seldom(log), Seldom(log)
        self._peers: dict[bytes, Peer] = {}
        self._unsent: list[Peer] = []
        self._flush_due = False
        self._drain_due = False
        self._turn = TOGETHER
        self._fd = int(self._socket.getsockopt(zmq.FD))
        self._loop.add_reader(self._fd, self._drain)

    def bind(self, path: Path) -> str:
        """Listen on a socket file, for this user only; the endpoint for workers that reach it. May be repeated.

        It is bound by another name and renamed: when ZeroMQ lets go of an older file that was here, it removes what it
        knows by that other name, and not the new one.
        """
        made = path.with_suffix(f".{next(self._binds)}")
        self._socket.bind(f"ipc://{made}")
        os.chmod(made, 0o600)
        made.rename(path)
        before, self._bound[path] = self._bound.get(path), f"ipc://{made}"
        self._paths[path] = _identity(path)
        if before is not None:
            self._socket.unbind(before)  # those that are connected stay so
        return f"ipc://{path}"

    def keep(self) -> None:
        """Bind anew what somebody has removed; workers that have tried in vain meanwhile connect by themselves."""
        for path, identity in list(self._paths.items()):
            if _identity(path) != identity:
                log.warning("the workers' socket %s was removed, perhaps as a temporary file: it is made anew", path)
                self.bind(path)

    def expect(self, token: str, receive: Receiver) -> Peer:
        """Accept messages of the worker that was started with this token, until `forget`."""
        peer = Peer(bytes.fromhex(token), receive)
        self._peers[peer.identity] = peer
        return peer

    def forget(self, peer: Peer) -> None:
        self._peers.pop(peer.identity, None)
        peer.outbox.clear()

    def send(self, peer: Peer, message: Message, body: Body = b"") -> None:
        """Queue a message; it leaves at the end of this turn of the event loop."""
        if not peer.outbox:
            self._unsent.append(peer)
            if not self._flush_due:
                self._flush_due = True
                self._loop.call_soon(self._flush)
        peer.outbox.append((message, body))
        if len(peer.outbox) >= TOGETHER:
            self._send_outbox(peer)

    def _flush(self) -> None:
        self._flush_due = False
        peers, self._unsent = self._unsent, []
        for peer in peers:
            if peer.outbox:
                self._send_outbox(peer)
        self._drain_later()

    def _send_outbox(self, peer: Peer) -> None:
        messages, peer.outbox = peer.outbox, []
        try:
            frames = encode(messages)
        except Exception:
            frames = self._encode_each(peer, messages)
        if frames:
            self._send_frames(peer, frames)

    def _encode_each(self, peer: Peer, messages: list[tuple[Message, Body]]) -> list[Body]:
        """One message that cannot be encoded must not keep back the others: it is answered with an error."""
        good: list[tuple[Message, Body]] = []
        for message, body in messages:
            try:
                encode([(message, body)])
            except Exception as error:
                log.exception("a %s message to a worker could not be encoded", message.type)
                if isinstance(message, InferRequest):
                    why = f"this request could not be sent to the worker: {type(error).__name__}"
                    self._hand_over(peer, ErrorReply(message.id, "internal", why), b"")
            else:
                good.append((message, body))
        return encode(good) if good else []

    def _send_frames(self, peer: Peer, frames: list[Body]) -> None:
        try:
            if len(frames) == 1:
                self._socket.send(peer.identity, _AND_MORE)
                self._socket.send(frames[0], _AT_ONCE)
            else:
                self._send_large([peer.identity, *frames])
        except zmq.ZMQError as error:
            # it has ended: its fork server says so, and what it held is sent again
            log.debug("worker %s cannot be reached: %s", peer.identity.hex()[:8], error)

    def _send_large(self, frames: list[Any]) -> None:
        last = len(frames) - 1
        for index, frame in enumerate(frames):
            self._socket.send(frame, _AND_MORE if index < last else _AT_ONCE, copy=len(frame) < BORROW_ABOVE)

    def _drain_later(self) -> None:
        if not self._drain_due:
            self._drain_due = True
            self._loop.call_soon(self._drain)

    def _drain(self) -> None:
        self._drain_due = False
        socket = self._socket
        if socket.closed:
            return
        delivered = 0
        while self._has_arrived():  # to try in vain costs twice as much
            if delivered >= self._turn:
                break  # let the loop serve HTTP too
            identity = socket.recv(_AT_ONCE)
            frame = socket.recv(_AT_ONCE, copy=False)
            frames: list[Any] = [frame.bytes]
            while frame.more:
                frame = socket.recv(_AT_ONCE, copy=False)
                frames.append(frame.buffer)
            delivered += self._deliver(identity, frames)
        else:
            self._turn = TOGETHER
            return
        self._turn = min(2 * self._turn, MOST)  # turns that are full of refusals must not keep answers back
        self._drain_later()

    def _has_arrived(self) -> bool:
        return bool(int(self._socket.get(_EVENTS)) & _POLLIN)

    def drain_all(self) -> None:
        """Deliver everything that has arrived: what a dead worker still said counts."""
        self._drain()
        while self._drain_due and not self._socket.closed and self._has_arrived():
            self._drain()

    def _deliver(self, identity: bytes, frames: list[Any]) -> int:
        """Hands over what one ZeroMQ message carries; how many messages of ours that were."""
        peer = self._peers.get(identity)
        if peer is None:
            log.debug("a message of a worker that is not expected (any more) was dropped")
            return 1
        try:
            messages = decode(frames, strict=True)
        except WireError as error:
            self._dropped.say("a worker's message was dropped: %s", error)
            return 1
        for message, body in messages:
            self._hand_over(peer, message, body)
        return len(messages)

    def _hand_over(self, peer: Peer, message: Any, body: Body) -> None:
        """A message that its receiver chokes on must not keep back those behind it."""
        try:
            peer.receive(message, body)
        except Exception:
            self._choked.say("a worker's %s message could not be handled", message.type, exc_info=True)

    def close(self) -> None:
        self._loop.remove_reader(self._fd)
        self._socket.close(linger=0)
        self._context.term()
        for path in self._paths:
            path.unlink(missing_ok=True)


def _identity(path: Path) -> tuple[int, int]:
    """Of the file that is there now; zeros: none."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_dev, found.st_ino
