"""Times of another process's clock: right to the shortest way there, whatever waited on the way."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelhub.serving.protocol.clocks import WINDOW, PeerClock
from modelhub.serving.protocol.codec import decode, encode
from modelhub.serving.protocol.messages import InferRequest


class Hands:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@given(
    ahead=st.floats(-1e6, 1e6),
    ways=st.lists(st.tuples(st.floats(0.0, 2.0), st.floats(0.0, 30.0)), min_size=1, max_size=40),
)
def test_what_waited_on_the_way_is_known_to_have_waited(ahead: float, ways: list[tuple[float, float]]) -> None:
    """`ahead`: what the receiver's clock shows more; each message waits so long, and so much later than the last."""
    hands = Hands()
    clock, sent, least = PeerClock(hands), 1000.0, float("inf")
    for waited, pause in ways:
        sent = max(sent + pause, hands.now - ahead)
        hands.now = sent + ahead + waited
        least = min(least, waited)
        here = clock.here(sent)
        assert here <= hands.now + 1e-6, "nothing was sent later than now"
        assert here >= sent + ahead - 1e-6
        if sent < 1000.0 + WINDOW:
            assert here == pytest.approx(sent + ahead + least, abs=1e-3)


def test_a_clock_that_drifts_is_followed() -> None:
    hands = Hands()
    clock = PeerClock(hands)
    for turn in range(10):
        sent = turn * WINDOW / 2
        hands.now = sent + 5.0 + turn * 0.001  # it gains on the sender's
        assert clock.here(sent) == pytest.approx(hands.now, abs=0.005)


def test_a_requests_times_are_the_receivers() -> None:
    """As from a machine whose clock shows a million seconds less."""
    request = InferRequest(id=1)
    frames = encode([(request, b"")])
    (unchanged, _) = decode(frames)[0]
    assert (unchanged.deadline, unchanged.received) == (0.0, 0.0), "no time, no difference"
    hands = Hands()
    clock = PeerClock(hands)
    now = time.monotonic()
    hands.now = now + 1e6
    (late, _) = decode(encode([(InferRequest(id=2, received=now, deadline=now + 30.0), b"")]), clock)[0]
    assert late.received == pytest.approx(now + 1e6, abs=1.0)
    assert late.deadline - late.received == pytest.approx(30.0)
