"""ZeroMQ's protocol: whatever pieces it comes in, what was sent comes out; libzmq is the other side elsewhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelhub.serving.protocol.errors import WireError
from modelhub.serving.protocol.zmtp import GREETING, ROOM, Receiver, pack, ready

SIZES = st.one_of(st.integers(0, 300), st.integers(ROOM // 2 - 20, ROOM // 2 + 20), st.integers(0, 3 * ROOM))
MESSAGES = st.lists(st.lists(SIZES, min_size=1, max_size=4), max_size=8)


def frame(number: int, size: int) -> bytes:
    return bytes((number + place) % 251 for place in range(256)) * (size // 256 + 1)


def through(receiver: Receiver, data: bytes, pieces: list[int]) -> list[list[bytes]]:
    """In pieces of these sizes, over and over."""
    found: list[list[bytes]] = []
    at = turn = 0
    while at < len(data):
        room = receiver.room()
        assert len(room) > 0
        size = min(len(room), pieces[turn % len(pieces)], len(data) - at)
        room[:size] = data[at : at + size]
        found += [[bytes(each) for each in message] for message in receiver.received(size)]
        at, turn = at + size, turn + 1
    return found


@given(sizes=MESSAGES, pieces=st.lists(st.integers(1, 2 * ROOM), min_size=1, max_size=5))
def test_messages_come_out_as_they_went_in(sizes: list[list[int]], pieces: list[int]) -> None:
    messages = [
        [frame(number, size)[:size] for number, size in enumerate(message, index)]
        for index, message in enumerate(sizes)
    ]
    data = GREETING + ready("DEALER", b"me") + b"".join(bytes(piece) for each in messages for piece in pack(each))
    receiver = Receiver(1 << 30)
    assert through(receiver, data, pieces) == messages
    assert receiver.identity == b"me"


@given(noise=st.binary(max_size=400), pieces=st.lists(st.integers(1, 100), min_size=1, max_size=5))
def test_noise_is_a_wire_error_or_nothing_yet(noise: bytes, pieces: list[int]) -> None:
    for before in (b"", GREETING, GREETING + ready("DEALER", b"me")):
        receiver = Receiver(1 << 20)
        try:
            through(receiver, before + noise, pieces)
        except WireError:
            pass
        assert receiver.room()


@pytest.mark.parametrize(
    "said",
    [
        b"\x02" + (1 << 62).to_bytes(8, "big"),
        b"\x03" + (600).to_bytes(8, "big") + bytes(600) + b"\x02" + (600).to_bytes(8, "big"),
        b"\x01\x00" * 5000,
        b"\x06" + (1 << 19).to_bytes(8, "big"),
    ],
    ids=["a large frame", "frames that are large together", "frames without end", "a large command"],
)
def test_what_would_take_too_much_is_refused_before_it_comes(said: bytes) -> None:
    receiver = Receiver(1000)
    with pytest.raises(WireError):
        through(receiver, GREETING + ready("DEALER") + said, [4096])


def test_a_message_before_the_greeting_has_ended_is_refused() -> None:
    with pytest.raises(WireError, match="before READY"):
        through(Receiver(1000), GREETING + b"\x00\x01x", [4096])
