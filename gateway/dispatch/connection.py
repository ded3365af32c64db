"""One worker's connection: a socket that never waits, read and written on the event loop.

What is sent goes out at once as far as the socket takes it; the rest is borrowed until it does.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Callable
from itertools import islice

from ...protocol.codec import Body
from ...protocol.errors import WireError
from ...protocol.zmtp import GREETING, Receiver, pack, ready, widen

log = logging.getLogger("modelhub.workers")

#: Bytes of a large body that are read in one turn of the loop; of small messages it is what is received at once.
TURN = 1 << 20
#: Pieces that are written at once.
_PIECES = 16


class Connection:
    """From the accepted socket to its end; `take` is given each message, `over` is called once when it has ended."""

    def __init__(
        self,
        accepted: socket.socket,
        largest: int,
        take: Callable[[Connection, list[Body]], None],
        over: Callable[[Connection], None],
    ) -> None:
        """`largest`: bytes of one message; who sends more is cut off."""
        accepted.setblocking(False)
        widen(accepted)
        self._loop = asyncio.get_running_loop()
        self._socket = accepted
        self._receiver = Receiver(largest)
        self._take = take
        self._over = over
        self._unsent: deque[memoryview] = deque()
        self._waits = False
        self.closed = False
        self._loop.add_reader(accepted, self.read)
        self.send([GREETING + ready("ROUTER")])

    @property
    def identity(self) -> bytes | None:
        """Whose it is, once that has been said."""
        return self._receiver.identity

    def read(self, most: int = 0) -> None:
        """Takes what has arrived; a part of it where that is much, for others wait for this turn of the loop to end.

        `most`: bytes that are taken all the same, of one that is about to end.
        """
        left = most or TURN
        while not self.closed and left > 0:
            room = self._receiver.room()
            try:
                size = self._socket.recv_into(room)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                size = 0
            if not size:
                self.close()
                return
            try:
                messages = self._receiver.received(size)
            except WireError as error:
                log.warning("a worker's connection is cut off: %s", error)
                self.close()
                return
            for frames in messages:
                self._take(self, frames)
            if size < len(room) and not most:
                return
            left = left - size if most or self._receiver.within_large else 0

    def message(self, frames: list[Body]) -> None:
        """Send one."""
        self.send(pack(frames))

    def send(self, pieces: list[Body]) -> None:
        if self.closed:
            return
        if not self._unsent and len(pieces) == 1:  # as nearly always
            try:
                sent = self._socket.send(pieces[0])
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError:
                return  # it has ended: what it still said is read first
            if sent == len(pieces[0]):
                return
            self._unsent.append(memoryview(pieces[0])[sent:])
        else:
            self._unsent.extend(memoryview(piece) for piece in pieces)
        if not self._waits:
            self._write()

    def _write(self) -> None:
        unsent = self._unsent
        while unsent:
            try:
                sent = self._socket.sendmsg(list(islice(unsent, _PIECES)))
            except (BlockingIOError, InterruptedError):
                if not self._waits:
                    self._waits = True
                    self._loop.add_writer(self._socket, self._write)
                return
            except OSError:
                unsent.clear()
                break
            while sent:
                piece = unsent[0]
                if sent < len(piece):
                    unsent[0] = piece[sent:]
                    break
                sent -= len(piece)
                unsent.popleft()
        if self._waits:
            self._waits = False
            self._loop.remove_writer(self._socket)

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        self._loop.remove_reader(self._socket)
        if self._waits:
            self._loop.remove_writer(self._socket)
        self._unsent.clear()
        self._socket.close()
        self._over(self)
