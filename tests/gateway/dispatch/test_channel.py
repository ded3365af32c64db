"""The channel by itself, with real sockets: one bad message must not keep back any other."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import zmq

from modelhub.serving.gateway.dispatch.channel import HEADS, Channel
from modelhub.serving.protocol.codec import decode, encode
from modelhub.serving.protocol.messages import ErrorReply, InferReply, InferRequest, StatsReply, StopRequest

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
        self.some = asyncio.Event()

    def __call__(self, message: Any, body: Any) -> None:
        if isinstance(message, StatsReply) and message.stats.get("bad"):
            raise KeyError("bad")
        self.messages.append(message)
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


class Inbox:
    """A socket in which everything has arrived already; of a real one nobody knows when that is so."""

    closed = False

    def __init__(self, messages: int) -> None:
        one = encode([(StatsReply(), b"")])
        self.frames = [frame for _ in range(messages) for frame in (bytes.fromhex(TOKENS[0]), *one)]

    def recv(self, flags: int, copy: bool = True) -> Any:
        frame = self.frames.pop(0)
        return frame if copy else zmq.Frame(frame)

    def get(self, option: int) -> int:
        return zmq.POLLIN if option == zmq.EVENTS and self.frames else 0


async def test_a_backlog_of_replies_takes_a_few_turns_of_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Turns are slow where clients are refused by the hundred: eight replies in each would be next to nothing."""
    channel, got, turns = Channel(), Got(), 0
    channel.expect(TOKENS[0], got)
    with monkeypatch.context() as patch:
        patch.setattr(channel, "_socket", Inbox(1000))
        channel._drain()
        first = len(got.messages)
        while len(got.messages) < 1000:
            turns += 1
            await asyncio.sleep(0)
        channel._drain()
    channel.close()
    assert first == 8, "sockets are looked at soon"
    assert turns < 12


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
