"""HTTP/2 as `connection.py` needs it: bytes in, what they mean out, and the other way. Nothing here reads or writes.

The one file that knows the library: ngh2, which is libnghttp2 without its sockets. Framing, HPACK, the windows of both
sides and the rules of streams are the library's; so are its limits of CONTINUATION frames, of settings in one frame, of
acknowledgements that wait, of streams that are reset as soon as they are opened.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import ngh2
from ngh2 import (
    ConnectionClosed,
    DataReceived,
    PingAcknowledged,
    PingReceived,
    RequestReceived,
    SettingsReceived,
    StreamClosed,
    TrailersReceived,
    WindowUpdated,
)

Headers = Sequence[tuple[bytes, bytes]]

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
#: Codes of RST_STREAM and GOAWAY.
NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, REFUSED_STREAM, CANCEL = 0x0, 0x1, 0x2, 0x7, 0x8
ENHANCE_YOUR_CALM, HTTP_1_1_REQUIRED = 0xB, 0xD

#: Bytes that a client may send on a stream before it is told to go on, and on a connection. What is held is counted
#: elsewhere: these only say how far ahead of the count a client can be.
STREAM_WINDOW, CONNECTION_WINDOW = 128 << 10, 1 << 30
#: Bytes of one DATA frame from a client.
MAX_FRAME = 64 << 10
#: Streams that a client has opened and reset at once, and how many more each second.
RESETS = (1000, 200)
#: Calls of one connection at a time.
MAX_STREAMS = 256
#: Bytes of a frame that every client may send: the parts of a head have so many, or it is made of too many parts.
LEAST_FRAME = 16 << 10
#: Header fields of one request.
MAX_FIELDS = 256


class Failed(Exception):
    """What the client sent is no HTTP/2, or beyond a limit: nothing more can be said on the connection but `code`."""

    #: It was the head of a request, which was too large.
    by_head = False

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class Heard(Protocol):
    """Who is told what a client has sent."""

    def on_request(self, stream: int, headers: Headers, ended: bool) -> None: ...

    def on_data(self, stream: int, data: bytes, ended: bool) -> None: ...

    def on_trailers(self, stream: int) -> None:
        """The client has ended its side."""

    def on_closed(self, stream: int) -> None:
        """Of both sides, or reset by one of them."""

    def on_window(self) -> None:
        """The client takes more."""

    def on_ping(self) -> None: ...

    def on_pong(self) -> None: ...

    def on_settings(self) -> None: ...

    def on_end(self) -> None:
        """Nothing comes or goes on this connection any more, once what `output` gave is written."""


class Http2:
    """The server's side of one connection."""

    def __init__(self, heard: Heard, max_headers: int) -> None:
        """`max_headers`: bytes of the header fields of one request."""
        self._heard = heard
        connection = self._connection = ngh2.Connection(ngh2.Role.SERVER, _configuration(max_headers))
        connection.initiate_connection(
            {
                ngh2.Setting.MAX_CONCURRENT_STREAMS: MAX_STREAMS,
                ngh2.Setting.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
                ngh2.Setting.MAX_FRAME_SIZE: MAX_FRAME,
                ngh2.Setting.MAX_HEADER_LIST_SIZE: max_headers,
            }
        )
        connection.set_local_window_size(CONNECTION_WINDOW)
        self.send_head = connection.send_response
        self.send_trailers = connection.send_trailers
        self.taken = connection.acknowledge_received_data
        self.queued = connection.queued_body_size

    def receive(self, data: bytes | bytearray | memoryview) -> None:
        """What the client has sent; `heard` is told. Raises Failed, and then nothing else is possible."""
        try:
            self._connection.receive_data(data)
        except ngh2.NGH2Error as error:
            failed = Failed(_code(error), str(error))
            failed.by_head = "header list" in str(error)
            raise failed from None
        self._tell()

    def output(self) -> bytes:
        """What is to be written now; `heard` is told of streams that this has closed. Raises Failed."""
        try:
            data = self._connection.data_to_send()
        except ngh2.NGH2Error as error:
            raise Failed(_code(error), str(error)) from None
        self._tell()
        return data

    def _tell(self) -> None:
        heard = self._heard
        events: list[Any] = self._connection.events()
        for event in events:
            kind = type(event)  # what comes often comes first
            if kind is DataReceived:
                heard.on_data(event.stream_id, event.data, event.end_stream)
            elif kind is WindowUpdated:
                heard.on_window()
            elif kind is RequestReceived:
                heard.on_request(event.stream_id, event.headers, event.end_stream)
            elif kind is StreamClosed:
                heard.on_closed(event.stream_id)
            elif kind is PingReceived:
                heard.on_ping()
            elif kind is PingAcknowledged:
                heard.on_pong()
            elif kind is SettingsReceived:
                heard.on_settings()
            elif kind is TrailersReceived:
                heard.on_trailers(event.stream_id)
            elif kind is ConnectionClosed:
                heard.on_end()

    @property
    def wants_to_write(self) -> bool:
        """Whether `output` would give something."""
        return self._connection.want_write

    def send_data(self, stream: int, data: bytes | bytearray | memoryview, *, last: bool = False) -> None:
        """At most some 64 KiB: it is copied."""
        self._connection.send_data(stream, data, end_stream=last)

    def open_window(self, stream: int, size: int) -> None:
        """So many bytes may be under way on this stream from now on."""
        self._connection.set_local_window_size(size, stream_id=stream)

    def has_window(self, stream: int) -> bool:
        """Whether the client takes more of this stream now: then all that was queued is on its way, trailers too."""
        connection = self._connection
        try:
            return connection.stream_remote_window_size(stream) > 0 and connection.remote_window_size > 0
        except Gone:
            return True

    def reset(self, stream: int, code: int) -> None:
        self._connection.reset_stream(stream, code)

    def ping(self) -> None:
        self._connection.ping()

    def announce_end(self) -> None:
        """GOAWAY that refuses nothing yet: the client opens no more streams once it has it."""
        self._connection.send_shutdown_notice()

    def end_when_done(self) -> None:
        """GOAWAY with the last stream that is served; those that are open go on."""
        self._connection.send_goaway(NO_ERROR)

    def end_now(self, code: int) -> None:
        """GOAWAY, and nothing after it."""
        self._connection.terminate_connection(code)


#: What calls on a stream that is gone, or on a connection that ends, raise.
Gone = ngh2.NGH2Error


def last_words(last_stream: int, code: int) -> bytes:
    """The GOAWAY frame of a connection that has failed."""
    return b"\0\0\x08\x07\0\0\0\0\0" + last_stream.to_bytes(4, "big") + code.to_bytes(4, "big")


def ends_by_head(output: bytes) -> bool:
    """Whether what is written last says that a head could not be read: one of its values was too long, mostly."""
    return output[-17:-14] == b"\0\0\x08" and output[-14] == _GOAWAY and output[-4:] == b"\0\0\0\x09"


def refusal(stream: int, status: bytes, text: bytes) -> bytes:
    """The frame that ends a call whose head the library has not taken; it changes nothing of what HPACK remembers."""
    fields = b"\x88\x0f\x10\x10application/grpc"
    for name, value in ((b"grpc-status", status), (b"grpc-message", text)):
        fields += b"\0%c%b%c%b" % (len(name), name, len(value), value)
    return len(fields).to_bytes(3, "big") + b"\x01\x05" + stream.to_bytes(4, "big") + fields


_GOAWAY = 7
_known: dict[int, ngh2.Configuration] = {}


def _configuration(max_headers: int) -> ngh2.Configuration:
    known = _known.get(max_headers)
    if known is None:
        known = _known[max_headers] = ngh2.Configuration(
            auto_window_update=False,
            stream_reset_rate_limit=RESETS,
            max_inbound_header_list_size=max_headers,
            max_inbound_header_count=MAX_FIELDS,
            max_continuations=max_headers // LEAST_FRAME + 4,
        )
    return known


def _code(error: ngh2.NGH2Error) -> int:
    if isinstance(error, ngh2.DenialOfServiceError):
        return ENHANCE_YOUR_CALM
    return PROTOCOL_ERROR if isinstance(error, ngh2.ProtocolError) else INTERNAL_ERROR
