"""The channel by itself, with real sockets: one bad message must not keep back any other."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import zmq

from modelhub.serving.gateway.dispatch.channel import HEADS, Channel
from modelhub.serving.protocol.codec import decode, encode
from modelhub.serving.protocol.messages import ErrorReply, InferReply, InferRequest, StatsReply, StopRequest
from modelhub.serving.protocol.zmtp import GREETING, pack, ready

pytestmark = pytest.mark.allow_blocking  # the socket's file is made and removed

TOKENS = ("aa" * 16, "bb" * 16)


@contextmanager
def workers(endpoint: str) -> Iterator[list[zmq.Socket[bytes]]]:
    """Two workers' ends."""
    context = zmq.Context()
    sockets = []
    for token in TOKENS:
        socket = context.socket(zmq.DEALER)
        socket.setsockopt(zmq.IDENTITY, bytes.fromhex(token))
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(endpoint)
        sockets.append(socket)
    try:
        yield sockets
    finally:
        context.destroy()


class Got:
    """What a receiver was handed; those named `bad` make it fail."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.bodies: list[Any] = []
        self.some = asyncio.Event()

    def __call__(self, message: Any, body: Any) -> None:
        if isinstance(message, StatsReply) and message.stats.get("bad"):
            raise KeyError("bad")
        self.messages.append(message)
        self.bodies.append(body)
        self.some.set()

    async def until(self, count: int) -> list[Any]:
        while len(self.messages) < count:
            self.some.clear()
            await asyncio.wait_for(self.some.wait(), 5)
        return self.messages


async def test_what_follows_a_message_that_cannot_be_handled_arrives(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    channel, got = Channel(), Got()
    channel.expect(TOKENS[0], got)
    with workers(channel.bind(tmp_path / "s")) as (worker, _):
        bad, good = StatsReply(stats={"bad": 1}), StatsReply(stats={"number": 1})
        worker.send_multipart(encode([(bad, b""), (good, b"")]))
        worker.send_multipart([b"no message of ours"])
        worker.send_multipart(encode([(bad, b"")]))
        worker.send_multipart(encode([(StatsReply(stats={"number": 2}), b"")]))
        messages = await got.until(2)
    channel.close()
    assert [message.stats["number"] for message in messages] == [1, 2]
    assert "could not be handled" in caplog.text


async def test_a_request_that_cannot_be_encoded_is_answered_and_keeps_back_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    channel, first, second = Channel(), Got(), Got()
    peers = [channel.expect(TOKENS[0], first), channel.expect(TOKENS[1], second)]
    with workers(channel.bind(tmp_path / "s")) as sockets:
        for socket in sockets:
            socket.send_multipart(encode([(StatsReply(), b"")]))
        await first.until(1)
        await second.until(1)
        channel.send(peers[0], InferRequest(id=7, json_size=2**70), b"")  # no integer of msgpack
        channel.send(peers[0], InferRequest(id=8), b"")
        channel.send(peers[1], StopRequest())
        refused = (await first.until(2))[1]
        assert isinstance(refused, ErrorReply)
        assert (refused.id, refused.code) == (7, "internal")
        for socket, expected in zip(sockets, (InferRequest(id=8), StopRequest()), strict=True):
            assert await asyncio.to_thread(socket.poll, 5000)
            ((message, _),) = decode(socket.recv_multipart())
            assert message == expected
        channel.send(peers[0], StopRequest())
        assert await asyncio.to_thread(sockets[0].poll, 5000), "the peer is not stuck"
    channel.close()
    assert "could not be encoded" in caplog.text


async def test_a_backlog_of_replies_takes_a_few_turns_of_the_loop(tmp_path: Path) -> None:
    """Turns are slow where clients are refused by the hundred: a few replies in each would be next to nothing."""
    channel, got, turns = Channel(), Got(), 0
    channel.expect(TOKENS[0], got)
    channel.bind(tmp_path / "s")
    one = b"".join(pack(encode([(ErrorReply(7, "queue_full", "x" * 40), b"")])))
    with socket.socket(socket.AF_UNIX) as worker:
        worker.connect(str(tmp_path / "s"))
        worker.sendall(GREETING + ready("DEALER", bytes.fromhex(TOKENS[0])) + one * 1000)  # it is all there from now on
        while len(got.messages) < 1000:
            turns += 1
            await asyncio.sleep(0)
    channel.close()
    assert 2 < turns < 12, "others have their turns too"


async def test_the_last_words_of_one_are_read_without_those_of_others(tmp_path: Path) -> None:
    """Who goes on talking must not hold up what another's end is about."""
    channel, first, second = Channel(), Got(), Got()
    peers = [channel.expect(token, got) for token, got in zip(TOKENS, (first, second), strict=True)]
    channel.bind(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as dead, socket.socket(socket.AF_UNIX) as other:
        for each, token in ((dead, TOKENS[0]), (other, TOKENS[1])):
            each.connect(str(tmp_path / "s"))
            each.sendall(
                GREETING + ready("DEALER", bytes.fromhex(token)) + b"".join(pack(encode([(StatsReply(), b"")])))
            )
        await second.until(1)
        words = b"".join(pack(encode([(ErrorReply(7, "internal", "x" * 40), b"")])))
        other.sendall(words)
        dead.sendall(words * 1000)
        dead.close()
        channel.drain(peers[0])
        assert (len(first.messages), len(second.messages)) == (1001, 1)
        assert peers[0].connection is None
    channel.close()


async def test_a_large_body_goes_both_ways_in_pieces(tmp_path: Path) -> None:
    channel, got = Channel(), Got()
    peer, body = channel.expect(TOKENS[0], got), os.urandom(20 << 20)
    with workers(channel.bind(tmp_path / "s")) as (worker, _):
        worker.send_multipart(encode([(StatsReply(), b"")]))
        await got.until(1)
        channel.send(peer, InferRequest(id=1), body)
        channel.send(peer, InferRequest(id=2), b"small")
        channel.send(peer, InferRequest(id=3), body[:100_000])
        ((first, taken), (_, small), (_, last)) = decode(await asyncio.to_thread(worker.recv_multipart))
        assert (first.id, taken, small, last) == (1, body, b"small", body[:100_000])
        worker.send_multipart(encode([(InferReply(1), body), (InferReply(2), b"small"), (InferReply(3), taken)]))
        await got.until(4)
        assert [bytes(each) for each in got.bodies[1:]] == [body, b"small", body]
    channel.close()


async def test_who_connects_later_under_the_same_name_gets_nothing_of_the_first(tmp_path: Path) -> None:
    channel, got = Channel(), Got()
    peer = channel.expect(TOKENS[0], got)
    endpoint = channel.bind(tmp_path / "s")
    with workers(endpoint) as (worker, _), workers(endpoint) as (thief, _):
        worker.send_multipart(encode([(StatsReply(), b"")]))
        await got.until(1)
        thief.send_multipart(encode([(InferReply(1), b"a lie")]))
        channel.send(peer, StopRequest())
        assert await asyncio.to_thread(worker.poll, 5000)
        worker.send_multipart(encode([(InferReply(2), b"")]))
        await got.until(2)
        assert not thief.poll(0)
    channel.close()
    assert [message.id for message in got.messages[1:]] == [2]


async def test_who_speaks_another_protocol_is_cut_off(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    channel = Channel()
    channel.bind(tmp_path / "s")
    for said in (
        b"GET / HTTP/1.1\r\n" * 8,
        GREETING + b"\x00\x00",
        GREETING + ready("DEALER", b"x") + b"\x02" + b"\xff" * 8,
    ):
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.settimeout(5)
            stranger.connect(str(tmp_path / "s"))
            stranger.sendall(said)
            while await asyncio.to_thread(stranger.recv, 4096):
                pass
    channel.close()
    assert caplog.text.count("cut off") == 3


async def test_what_a_worker_may_not_say_is_dropped_and_said_seldom(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    channel, got = Channel(), Got()
    channel.expect(TOKENS[0], got)
    with workers(channel.bind(tmp_path / "s")) as (worker, _):
        for number in range(100):
            worker.send_multipart(encode([(StatsReply(stats=number), b"")]))  # type: ignore[arg-type]
            worker.send_multipart([b"no message of ours"])
        worker.send_multipart(encode([(StatsReply(stats={"number": 1}), b"")]))
        assert [message.stats for message in await got.until(1)] == [{"number": 1}]
    channel.close()
    assert caplog.text.count("a worker's message was dropped") == 1


async def test_who_sends_more_than_an_answer_may_have_is_cut_off(tmp_path: Path) -> None:
    channel, first, second = Channel(largest=0), Got(), Got()
    channel.expect(TOKENS[0], first)
    channel.expect(TOKENS[1], second)
    with workers(channel.bind(tmp_path / "s")) as (large, other):
        large.send_multipart(encode([(InferReply(1), bytes(HEADS + 1))]))
        other.send_multipart(encode([(InferReply(1), bytes(10))]))
        await second.until(1)
    channel.close()
    assert not first.messages
