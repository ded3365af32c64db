"""One HTTP/2 connection of gRPC clients: what arrives becomes calls (`call.py`), what they say is written.

All bounds of a connection are here. It is not read while the client does not read; frames that bring nothing cost
credit, which time and answers give back; small messages that wait are counted as one body; the windows of HTTP/2 only
say how far ahead of that a client can be. Made and looked after by `front.py`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import cast

from ..dataplane.budget import SMALL, Share
from . import http2
from .call import Call
from .carrier import Front
from .http2 import Headers, Http2
from .metadata import CODES
from .outgoing import Stream

log = logging.getLogger("modelhub.grpc")

#: Bytes that wait to be written before no more are made, and below which more are.
HIGH_WATER, LOW_WATER = 256 << 10, 64 << 10
#: Frames that bring nothing (empty ones, settings, pings, windows): so many, and so many more a second, and one for
#: each so many bytes that are written.
CREDIT, CREDIT_A_SECOND, BYTES_A_CREDIT = 2000.0, 200.0, 512
#: What settings cost of it: they are answered; and what a call, and each message of an answer, gives back: clients open
#: two windows for each message that they get, and ping to measure the line.
SETTINGS_COST, CREDIT_A_CALL, CREDIT_AN_ANSWER = 10.0, 2.0, 4.0
#: Seconds between two pings of a client that is sent nothing, and how often they may be fewer.
PING_INTERVAL, PING_STRIKES = 9.0, 2
#: Seconds that a new connection may take for its first settings.
FIRST_SECONDS = 60.0
#: Seconds without a word of the client until it is asked whether it is there, and until it must have answered.
QUIET, ANSWER_WITHIN = 60.0, 20.0
#: Seconds that a client has to read why its connection ends.
LAST_WORDS = 1.0


class Connection(asyncio.BufferedProtocol):
    """The protocol of asyncio; `front` and its calls use the rest."""

    def __init__(self, front: Front) -> None:
        self.front = front
        self.budget, self.most, self.counters, self.loop = front.budget, front.most, front.counters, front.loop
        self.call_ended = front.closed
        self.calls: dict[int, Call] = {}
        #: Calls of which something waits here; those that are reset once they have been sent all.
        self.unsent: set[Stream] = set()
        self.to_reset: set[Stream] = set()
        self.heard_at = self.idle_from = front.loop.time()
        self.ending = self.is_unix = False
        self._transport: asyncio.Transport | None = None
        self._flushing = self._paused = self._greeted = self._closing = self._said_last = False
        self._share = Share(front.budget)
        self._counted = self._queued = 0
        self._last = 0
        self._credit, self._credit_at = CREDIT, self.heard_at
        self._pinged_at = self._asked_at = 0.0
        self._strikes = 0
        self._sent_since_ping = True
        self.http2 = Http2(self, front.max_headers)
        self.taken: Callable[[int, int], None] = self.http2.taken
        self._buffer = front.buffer
        self.large = 0

    # ---- asyncio -----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(HIGH_WATER, LOW_WATER)
        self.is_unix = isinstance(transport.get_extra_info("sockname"), (str, bytes))
        if not self.front.enter(self, self._transport):
            self.end(http2.ENHANCE_YOUR_CALM)
            return
        self.flush()

    def get_buffer(self, sizehint: int) -> memoryview:
        # One for all: what was read is worked through before anything else is read.
        return self._buffer if self.large else self.front.small_buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.receive(self._buffer[:nbytes])

    def receive(self, data: bytes | memoryview) -> None:
        """Bytes of the client."""
        if self._closing:
            return
        self.heard_at = self.loop.time()
        try:
            self.http2.receive(data)
        except http2.Failed as error:
            self._fail(error)
            return
        except http2.Gone as error:  # what was to be answered cannot be any more
            self._fail(http2.Failed(http2.INTERNAL_ERROR, str(error)))
            return
        if not self._is_calm():
            self.end(http2.ENHANCE_YOUR_CALM)
        elif not self._flushing and (self._closing or self.unsent or self.to_reset or self.http2.wants_to_write):
            self._flushing = True
            self.loop.call_soon(self.flush)  # after what calls say at once

    def pause_writing(self) -> None:
        self._paused = True
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._paused = False
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
            self.flush()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._closing = True
        self.front.leave(self)
        self._drop_calls()
        self._share.release()

    # ---- what the client sends (http2.Heard) ---------------------------------------------------------

    def on_request(self, stream: int, headers: Headers, ended: bool) -> None:
        self._last = stream
        self._credit += CREDIT_A_CALL
        if not self.front.has_place():
            self.http2.reset(stream, http2.REFUSED_STREAM)
            return
        call = self.front.open(self, stream, headers)
        if call is not None:
            self.calls[stream] = call
            call.opened_with(ended)

    def on_data(self, stream: int, data: bytes, ended: bool) -> None:
        if not data and not ended:
            self._spend(1.0)
        call = self.calls.get(stream)
        if call is not None:
            call.receive(data, ended)
        elif data:
            self.taken(len(data), stream)

    def on_trailers(self, stream: int) -> None:
        call = self.calls.get(stream)
        if call is not None:
            call.end()

    def on_closed(self, stream: int) -> None:
        call = self.calls.pop(stream, None)
        if call is not None:
            if not self.calls:
                self.idle_from = self.loop.time()
            call.drop()

    def on_window(self) -> None:
        self._spend(1.0)

    def on_ping(self) -> None:
        self._spend(1.0)
        now = self.heard_at
        if not self._sent_since_ping and now - self._pinged_at < PING_INTERVAL:
            self._strikes += 1
        else:
            self._strikes = 0
        self._pinged_at, self._sent_since_ping = now, False

    def on_pong(self) -> None:
        self._spend(1.0)
        self._asked_at = 0.0
        if self.ending:
            self.say_last()

    def on_settings(self) -> None:
        self._greeted = True
        self._spend(SETTINGS_COST)

    def on_end(self) -> None:
        self._closing = True

    def _spend(self, cost: float) -> None:
        self._credit -= cost

    def _is_calm(self) -> bool:
        """Whether what has come was worth it."""
        if self._credit < 0:
            now = self.loop.time()
            self._credit = min(self._credit + (now - self._credit_at) * CREDIT_A_SECOND, CREDIT)
            self._credit_at = now
        return self._credit >= 0 and self._strikes <= PING_STRIKES

    # ---- what is written -----------------------------------------------------------------------------

    def flush_soon(self) -> None:
        """Once in this turn of the loop, whatever calls have to say."""
        self._sent_since_ping = True
        self._credit += CREDIT_AN_ANSWER
        if not self._flushing:
            self._flushing = True
            self.loop.call_soon(self.flush)

    def flush(self) -> None:
        """Write what can be written now."""
        self._flushing = False
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        try:
            while not self._paused:
                data = self.http2.output()
                if self._closing and http2.ends_by_head(data):
                    data = self._refuse_head() + data
                if data:
                    self._credit = min(self._credit + len(data) / BYTES_A_CREDIT, CREDIT)
                    transport.write(data)
                if not (self.unsent or self.to_reset) or not self._go_on():
                    break
        except http2.Failed as error:
            self._fail(error)
            return
        self._count_queued()
        if self._closing:
            self._close()

    def _go_on(self) -> bool:
        """Give HTTP/2 more of what waits; whether there is something to write for it."""
        fed = False
        for stream in tuple(self.unsent):
            if stream.feed():
                fed = self._sent_since_ping = True
        for stream in tuple(self.to_reset):
            if not stream.unsent() and (stream.without_body or self.http2.has_window(stream.number)):
                self.to_reset.discard(stream)
                if not stream.closed and not stream.half_closed:
                    self.http2.reset(stream.number, http2.NO_ERROR)
                    fed = True
        return fed

    # ---- what is held --------------------------------------------------------------------------------

    def count(self, size: int) -> None:
        """Of small messages that wait in calls so many bytes come, or go. All together they count as one body does."""
        self._counted += size
        if self._counted > SMALL or self._share.size:
            self._share.hold(self._counted if self._counted > SMALL else 0)

    def admit_small(self) -> None:
        """Raises QueueFull where many small messages wait, and there is no room for more."""
        if self._counted > SMALL:
            self._share.check(self._counted + SMALL)

    def _count_queued(self) -> None:
        """Answers that the client does not take wait in HTTP/2."""
        queued = self.http2.queued() if self.calls else 0
        if queued != self._queued:
            self._sent_since_ping = True
            self.count(queued - self._queued)
            self._queued = queued

    def reset(self, stream: Stream, code: int) -> None:
        """RST_STREAM for one that cannot be told anything."""
        try:
            self.http2.reset(stream.number, code)
        except http2.Gone:
            return
        self.flush_soon()

    # ---- ends ----------------------------------------------------------------------------------------

    @property
    def idle_since(self) -> float | None:
        """As `crowd.Connection` has it."""
        return None if self.calls or self._closing else self.idle_from

    @property
    def busy(self) -> bool:
        """Whether a call is answered; those who only watch, or wait, have nothing to lose."""
        return any(call.busy for call in self.calls.values())

    def force_close(self) -> None:
        self.end(http2.NO_ERROR)

    def let_go(self) -> None:
        """The client is told to open no more calls here; those that are open go on."""
        if not self.ending and not self._closing:
            self.ending = True
            try:
                self.http2.announce_end()
                self.flush()
                self.http2.ping()  # its answer says that the announcement has been read
            except http2.Gone:
                return
            self.flush()

    def say_last(self) -> None:
        """The client has seen the announcement: what it has opened by now is served, and nothing after it."""
        if self._closing or self._said_last:
            return
        self._said_last = True
        try:
            self.http2.end_when_done()
        except http2.Gone:
            return
        self.flush_soon()

    def end(self, code: int) -> None:
        """GOAWAY, and the end."""
        if self._closing:
            return
        self._closing = True
        try:
            self.http2.end_now(code)
            data = self.http2.output()
        except (http2.Failed, http2.Gone):
            data = http2.last_words(self._last, code)
        if self._transport is not None and data:
            self._transport.write(data)
        self._close()

    def _fail(self, error: http2.Failed) -> None:
        log.debug("a gRPC client's connection ends: %s", error)
        self._closing = True
        if self._transport is not None:
            refusal = self._refuse_head() if error.by_head else b""
            self._transport.write(refusal + http2.last_words(self._last, error.code))
        self._close()

    def _refuse_head(self) -> bytes:
        """To the call whose head was too large: clients number theirs in steps of two."""
        self.counters.grpc_error("RESOURCE_EXHAUSTED")
        self._last = self._last + 2 if self._last else 1
        said = b"the metadata have more than %d bytes (server.max_headers)" % self.front.max_headers
        return http2.refusal(self._last, CODES["RESOURCE_EXHAUSTED"], said)

    def _close(self) -> None:
        """What is written is still sent; what comes is not looked at, or the client would not see what was sent."""
        self._drop_calls()
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        try:
            transport.write_eof()
        except OSError:
            pass  # it is gone
        self.loop.call_later(LAST_WORDS, transport.close)

    def _drop_calls(self) -> None:
        self.taken = _nothing
        calls = tuple(self.calls.values())
        self.calls.clear()
        for call in calls:
            call.drop()

    # ---- once in a while -----------------------------------------------------------------------------

    def look(self, now: float, write_timeout: float) -> None:
        """Ends what takes too long; called every few seconds. `write_timeout`: how long a client may read nothing."""
        if self._closing:
            return
        if not self._greeted:
            if now - self.heard_at >= FIRST_SECONDS:
                self.end(http2.NO_ERROR)
            return
        for call in tuple(self.calls.values()):
            call.look(now, write_timeout)
        if self._asked_at:
            if now - self._asked_at >= ANSWER_WITHIN and now - self.heard_at >= ANSWER_WITHIN:
                assert self._transport is not None
                self._transport.abort()
        elif now - self.heard_at >= QUIET and not self._paused:
            self._asked_at = now
            self.http2.ping()
            self.flush()


def _nothing(size: int, stream: int) -> None:
    """Instead of `taken`, once there is no connection."""
