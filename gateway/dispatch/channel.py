"""Where workers connect: ZeroMQ's protocol (`protocol/zmtp.py`) over Unix sockets, driven by the event loop.

Messages for one worker that are ready in the same turn of the loop leave together.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...protocol.codec import Body, decode, encode
from ...protocol.errors import WireError
from ...protocol.limits import MAX_ANSWER, TOGETHER
from ...protocol.messages import ErrorReply, InferRequest, Message
from ..telemetry.seldom import Seldom
from .connection import Connection

log = logging.getLogger("modelhub.workers")

#: Bytes of a message beside one body.
HEADS = 64 << 20
#: Workers that may wait to be accepted.
_BACKLOG = 1024
#: Seconds until workers are accepted again where that has failed: no descriptor is left.
_PAUSE = 0.1

Receive = Callable[[Any, Body], None]


class Peer:
    """One expected worker: its identity, its connection, what waits to be sent to it."""

    __slots__ = ("connection", "identity", "outbox", "receive")

    def __init__(self, identity: bytes, receive: Receive) -> None:
        self.identity = identity
        self.receive = receive
        self.connection: Connection | None = None
        self.outbox: list[tuple[Message, Body]] = []


class Channel:
    """Sends messages to workers and hands theirs to the receivers. Lives on one event loop."""

    def __init__(self, largest: int = MAX_ANSWER) -> None:
        """`largest`: bytes of one body that a worker may send; who sends more is cut off."""
        self._loop = asyncio.get_running_loop()
        self._largest = largest + HEADS
        #: Where workers connect, and the identity of the file that is there.
        self._listeners: dict[Path, tuple[socket.socket, tuple[int, int]]] = {}
        self._connections: set[Connection] = set()
        self._dropped, self._choked = Seldom(log), Seldom(log)
        self._peers: dict[bytes, Peer] = {}
        self._unsent: list[Peer] = []
        self._flush_due = False

    def bind(self, path: Path) -> str:
        """Listen on a socket file, for this user only; the endpoint for workers that reach it. May be repeated."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        made = path.with_suffix(".new")
        made.unlink(missing_ok=True)
        listener.bind(str(made))
        os.chmod(made, 0o600)
        listener.listen(_BACKLOG)
        made.rename(path)
        if path in self._listeners:
            before, _ = self._listeners.pop(path)
            self._accept(before)
            self._loop.remove_reader(before)
            before.close()
        self._listeners[path] = listener, _identity(path)
        self._loop.add_reader(listener, self._accept, listener)
        return f"ipc://{path}"

    def keep(self) -> None:
        """Bind anew what somebody has removed; workers that have tried in vain meanwhile connect by themselves."""
        for path, (_, identity) in list(self._listeners.items()):
            if _identity(path) != identity:
                log.warning("the workers' socket %s was removed, perhaps as a temporary file: it is made anew", path)
                self.bind(path)

    def expect(self, token: str, receive: Receive) -> Peer:
        """Accept messages of the worker that was started with this token, until `forget`."""
        peer = Peer(bytes.fromhex(token), receive)
        self._peers[peer.identity] = peer
        return peer

    def forget(self, peer: Peer) -> None:
        self._peers.pop(peer.identity, None)
        peer.outbox.clear()
        if peer.connection is not None:
            peer.connection.close()

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

    def _send_outbox(self, peer: Peer) -> None:
        messages, peer.outbox = peer.outbox, []
        connection = peer.connection
        if connection is None:
            # it has ended: its fork server says so, and what it held is sent again
            log.debug("worker %s cannot be reached", peer.identity.hex()[:8])
            return
        try:
            frames = encode(messages)
        except Exception:
            frames = self._encode_each(peer, messages)
        if frames:
            connection.message(frames)

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

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                accepted, _ = listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._dropped.say("a worker cannot be connected yet: %s", error)
                self._loop.remove_reader(listener)
                self._loop.call_later(_PAUSE, self._accept_again, listener)
                return
            self._connections.add(Connection(accepted, self._largest, self._deliver, self._over))

    def _accept_again(self, listener: socket.socket) -> None:
        if listener.fileno() >= 0:
            self._loop.add_reader(listener, self._accept, listener)

    def drain(self, peer: Peer | None) -> None:
        """Deliver everything that has arrived of this one: what a dead worker still said counts."""
        for listener, _ in list(self._listeners.values()):
            self._accept(listener)
        for connection in list(self._connections):
            if peer is not None and connection.identity in (None, peer.identity):
                connection.read(self._largest)

    def _deliver(self, connection: Connection, frames: list[Body]) -> None:
        """Hands over what one message of ZeroMQ carries."""
        peer = self._peers.get(connection.identity or b"")
        if peer is None or (peer.connection is not connection and not self._meet(peer, connection)):
            log.debug("a message of a worker that is not expected (any more) was dropped")
            return
        try:
            messages = decode(frames, strict=True)
        except WireError as error:
            self._dropped.say("a worker's message was dropped: %s", error)
            return
        for message, body in messages:
            self._hand_over(peer, message, body)

    @staticmethod
    def _meet(peer: Peer, connection: Connection) -> bool:
        """Its first message; the first connection that says who it is stays that worker's."""
        if peer.connection is not None:
            return False
        peer.connection = connection
        return True

    def _over(self, connection: Connection) -> None:
        self._connections.discard(connection)
        peer = self._peers.get(connection.identity or b"")
        if peer is not None and peer.connection is connection:
            peer.connection = None

    def _hand_over(self, peer: Peer, message: Any, body: Body) -> None:
        """A message that its receiver chokes on must not keep back those behind it."""
        try:
            peer.receive(message, body)
        except Exception:
            self._choked.say("a worker's %s message could not be handled", message.type, exc_info=True)

    def close(self) -> None:
        for path, (listener, _) in self._listeners.items():
            self._loop.remove_reader(listener)
            listener.close()
            path.unlink(missing_ok=True)
        for connection in list(self._connections):
            connection.close()


def _identity(path: Path) -> tuple[int, int]:
    """Of the file that is there now; zeros: none."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_dev, found.st_ino
