"""One message as it came, and the raw tensors in it: found without parsing, not copied where they are large.

A message of gRPC is five bytes (is it compressed? its length, big-endian) and so many bytes. A large one is gathered
behind a gap, in which the JSON part of V2's binary form is written later, just before the tensors.
"""

from __future__ import annotations

from ...protocol.errors import ServingError
from ..dataplane.budget import Share

#: Bytes before a message: compressed or not, length.
PREFIX = 5
#: Bytes before a large message.
GAP = 8 << 10
#: Fields of a message that are looked at here: one that has more is parsed.
MOST_FIELDS = 200
#: Tag of raw_input_contents, the seventh field, which has a length.
_RAW = 7 << 3 | 2


class Message:
    """Bytes of one message, from `start` on."""

    __slots__ = ("compressed", "data", "refused", "share", "start")

    def __init__(
        self,
        data: bytes | bytearray,
        start: int = 0,
        share: Share | None = None,
        refused: ServingError | None = None,
    ) -> None:
        """`share`: what it has of the budget, if it is large; `refused`: why no more of it than this was taken."""
        self.data = data
        self.start = start
        #: It is to be inflated before it is read.
        self.compressed = False
        self.share = share
        self.refused = refused

    def __len__(self) -> int:
        return len(self.data) - self.start

    @property
    def is_counted(self) -> bool:
        """Whether its connection counts it until it is taken: large ones have a share of their own."""
        return self.share is None and self.refused is None

    @property
    def counted(self) -> int:
        """Bytes of it that came: a small one that came in one part has its prefix before it."""
        return len(self.data)

    def bytes(self) -> bytes:
        """A copy of it."""
        return bytes(memoryview(self.data)[self.start :])

    def release(self) -> None:
        """It holds nothing any more."""
        if self.share is not None:
            self.share.release()


class Parts:
    """A ModelInferRequest without its raw contents, and where those are in its bytes."""

    __slots__ = ("head", "spans")

    def __init__(self, head: bytes, spans: list[tuple[int, int]]) -> None:
        self.head = head
        self.spans = spans


def split(message: Message, *, whole: bool = True) -> Parts | None:
    """None for a message that only the parser can judge. `whole` False: as far as it has come."""
    data, at = message.data, message.start
    end = len(data)
    spans: list[tuple[int, int]] = []
    heads: list[bytes] = []
    begin = at
    try:
        for _ in range(MOST_FIELDS):
            if at == end:
                break
            field, tag = at, data[at]
            at += 1
            kind = tag & 7
            if tag >= 0x80 or kind not in (0, 2):
                return None
            size = data[at]
            at += 1
            if size >= 0x80:
                size, at = _rest(data, at, size & 0x7F)
            if kind == 0:
                continue
            after = at + size
            if after > end:
                if whole:
                    return None
                at = field
                break
            if tag == _RAW:
                if field > begin:
                    heads.append(bytes(data[begin:field]))
                spans.append((at, after))
                begin = after
            at = after
        else:
            if whole:
                return None
    except IndexError:
        if whole:
            return None
        at = field
    if at > begin:
        heads.append(bytes(data[begin:at]))
    return Parts(heads[0] if len(heads) == 1 else b"".join(heads), spans)


def _rest(data: bytes | bytearray, at: int, value: int) -> tuple[int, int]:
    """A varint that goes on: its value, and where it ends. One that is too long is too large for any message."""
    for shift in range(7, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    return 1 << 70, at


def body_of(message: Message, text: bytes, spans: list[tuple[int, int]]) -> tuple[bytes | memoryview, int]:
    """V2's binary form: `text`, then the tensors; and the length of the text.

    Of a large message in its own bytes, which are of no use as a message afterwards.
    """
    data, first = message.data, spans[0][0]
    if isinstance(data, bytes) or first < len(text):
        return b"".join([text, *[data[begin:end] for begin, end in spans]]), len(text)
    view = memoryview(data)
    at = spans[-1][1]
    for begin, end in reversed(spans):
        size = end - begin
        if at != end:
            view[at - size : at] = view[begin:end]
        at -= size
    view[at - len(text) : at] = text
    return view[at - len(text) : spans[-1][1]], len(text)
