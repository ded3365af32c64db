"""The wire: a snapshot of each message, the limits of frames, and what a stranger's bytes do."""

from __future__ import annotations

import dataclasses

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelhub.serving.protocol import codec, framing, messages
from modelhub.serving.protocol.errors import BY_CODE, NotReady, ServingError, WireError, from_wire

SAMPLES = {
    "infer": messages.InferRequest(id=7, content_type="application/json", json_size=3, deadline=2.5, alone=True),
    "cancel": messages.CancelRequest([7, 8]),
    "taken": messages.TakenRequest(7, 1024),
    "stats": messages.StatsRequest(),
    "stop": messages.StopRequest(),
    "ready": messages.ReadyReply(pid=12, python="3.9.18", versions={"mlflow": "2.9.2"}, example=b"{}", load_ns=5),
    "load_failed": messages.LoadFailedReply("ValueError: no", "Traceback"),
    "infer_reply": messages.InferReply(id=7, decode_ns=1, predict_ns=2, encode_ns=3, rows=4),
    "chunk": messages.ChunkReply(id=7, json_size=3),
    "error": messages.ErrorReply(7, "invalid_request", "shape", 1.5),
    "stats_reply": messages.StatsReply({"served": 3}, b"# TYPE", ["torch.export"]),
    "preload": messages.PreloadRequest(["mlflow.pyfunc"]),
    "fork": messages.ForkRequest("ab", {"name": "iris"}, "spawn", ["sklearn"]),
    "kill": messages.KillRequest("ab", 9),
    "ping": messages.PingRequest(),
    "pong": messages.PingReply(),
    "learn": messages.LearnRequest(["torch.export"]),
    "started": messages.StartedReply(5, "3.11.7", 10, 1, "", "ab12"),
    "importing": messages.ImportingReply("torch.export"),
    "learned": messages.LearnedReply({"torch.export": "ImportError: no"}, "torch.export"),
    "forked": messages.ForkedReply("ab", 6, "spawn", "threads", "", ["utils"]),
    "exited": messages.ExitedReply("ab", 6, 0, 9, 1024),
}

#: When they are sent, by the sender's clock.
SENT = 2.0
#: What each sample looks like on the wire: changing it is changing the wire, so raise WIRE_VERSION too.
ON_THE_WIRE = {
    "infer": {
        "t": "infer",
        "id": 7,
        "content_type": "application/json",
        "json_size": 3,
        "deadline": 0.5,
        "alone": True,
        "b": b"",
    },
    "cancel": {"t": "cancel", "ids": [7, 8]},
    "taken": {"t": "taken", "id": 7, "size": 1024},
    "stats": {"t": "stats"},
    "stop": {"t": "stop"},
    "ready": {
        "t": "ready",
        "pid": 12,
        "python": "3.9.18",
        "versions": {"mlflow": "2.9.2"},
        "example": b"{}",
        "load_ns": 5,
    },
    "load_failed": {"t": "load_failed", "message": "ValueError: no", "traceback": "Traceback"},
    "infer_reply": {
        "t": "infer_reply",
        "id": 7,
        "decode_ns": 1,
        "predict_ns": 2,
        "encode_ns": 3,
        "rows": 4,
        "b": b"",
    },
    "chunk": {"t": "chunk", "id": 7, "json_size": 3, "b": b""},
    "error": {"t": "error", "id": 7, "code": "invalid_request", "message": "shape", "retry_after": 1.5},
    "stats_reply": {"t": "stats_reply", "stats": {"served": 3}, "metrics": b"# TYPE", "imported": ["torch.export"]},
    "preload": {"t": "preload", "modules": ["mlflow.pyfunc"]},
    "fork": {"t": "fork", "token": "ab", "spec": {"name": "iris"}, "start": "spawn", "preload": ["sklearn"]},
    "kill": {"t": "kill", "token": "ab", "signal": 9},
    "ping": {"t": "ping"},
    "pong": {"t": "pong"},
    "learn": {"t": "learn", "modules": ["torch.export"]},
    "started": {"t": "started", "pid": 5, "python": "3.11.7", "preload_ns": 10, "identity": "ab12"},
    "importing": {"t": "importing", "module": "torch.export"},
    "learned": {"t": "learned", "refused": {"torch.export": "ImportError: no"}, "spoilt": "torch.export"},
    "forked": {"t": "forked", "token": "ab", "pid": 6, "start": "spawn", "why": "threads", "refused": ["utils"]},
    "exited": {"t": "exited", "token": "ab", "pid": 6, "signal": 9, "max_rss": 1024},
}


def test_an_error_arrives_whatever_it_quotes() -> None:
    caught = KeyError("a")
    for message, arrives in (("half a pair: \ud800", "half a pair: ?"), (caught, "'a'")):
        error = ServingError(message)  # type: ignore[arg-type]
        [(reply, _)] = codec.decode(codec.encode([(messages.ErrorReply(7, error.code, error.message), b"")]))
        assert reply.message == arrives


@pytest.mark.parametrize("kind", sorted(SAMPLES))
def test_a_message_on_the_wire(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec.time, "monotonic", lambda: SENT)
    (frame,) = codec.encode([(SAMPLES[kind], b"")])
    assert msgpack.unpackb(frame) == [messages.WIRE_VERSION, SENT, [ON_THE_WIRE[kind]]]
    assert codec.decode([frame]) == [(SAMPLES[kind], b"")]


def test_every_message_between_gateway_and_worker_has_a_snapshot() -> None:
    of_the_fetcher = {cls.type for cls in messages.BY_TYPE.values() if "id" in _fields(cls)} - set(SAMPLES)
    assert set(messages.BY_TYPE) - of_the_fetcher == set(SAMPLES)


def _fields(cls: type) -> set[str]:
    return {field.name for field in dataclasses.fields(cls)}


@given(st.lists(st.integers(0, 3 * codec.INLINE_BODY), max_size=6))
def test_bodies_come_back_in_order(sizes: list[int]) -> None:
    sent = [(messages.InferRequest(id=index), bytes([index]) * size) for index, size in enumerate(sizes)]
    frames = codec.encode(sent)
    assert len(frames) == 1 + sum(size > codec.INLINE_BODY for size in sizes)
    assert [(message.id, bytes(body)) for message, body in codec.decode(frames)] == [
        (message.id, body) for message, body in sent
    ]


def test_another_wire_version_says_so() -> None:
    frame = msgpack.packb([messages.WIRE_VERSION + 1, []])
    with pytest.raises(WireError, match="wire version"):
        codec.decode([frame])


@pytest.mark.parametrize(
    "frames",
    [
        [b""],
        [b"\xc1"],
        [msgpack.packb(7)],
        [msgpack.packb([messages.WIRE_VERSION, []])],
        [msgpack.packb([messages.WIRE_VERSION, "now", [{"t": "infer", "id": 1, "deadline": 1.0, "b": b""}]])],
        [msgpack.packb([messages.WIRE_VERSION, SENT, [{}]])],
        [msgpack.packb([messages.WIRE_VERSION, SENT, [{"t": "nobody"}]])],
        [msgpack.packb([messages.WIRE_VERSION, SENT, [{"t": "kill"}]])],
        [msgpack.packb([messages.WIRE_VERSION, SENT, [{"t": "chunk", "id": 1}]])],
        [msgpack.packb([messages.WIRE_VERSION, SENT, []]), b"one frame too many"],
    ],
)
def test_malformed_messages_are_wire_errors(frames: list[bytes]) -> None:
    with pytest.raises(WireError):
        codec.decode(frames)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_never_do_worse_than_a_wire_error(data: bytes) -> None:
    try:
        codec.decode([data])
    except WireError:
        pass


@given(st.lists(st.integers(1, 50), max_size=20))
def test_framing_survives_any_cut(cuts: list[int]) -> None:
    stream = b"".join(framing.pack(SAMPLES[kind]) for kind in ("kill", "stats", "exited"))
    unpacker, found = framing.Unpacker(), []
    while stream:
        size = cuts.pop() if cuts else len(stream)
        found += unpacker.feed(stream[:size])
        stream = stream[size:]
    assert found == [SAMPLES["kill"], SAMPLES["stats"], SAMPLES["exited"]]


def test_a_frame_over_the_limit_is_refused_before_it_is_read() -> None:
    with pytest.raises(WireError, match="over the limit"):
        framing.Unpacker().feed((framing.MAX_FRAME + 1).to_bytes(4, "little"))


def test_errors_cross_processes_as_data() -> None:
    error = from_wire("not_ready", "loading", 2.0)
    assert isinstance(error, NotReady)
    assert (error.message, error.retry_after) == ("loading", 2.0)
    assert type(from_wire("of_a_newer_version", "what")) is ServingError
    assert {cls.code for cls in BY_CODE.values()} == set(BY_CODE)


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (messages.InferReply(1, json_size="2\r\nX-Evil: 1"), "json_size of InferReply is of type str"),  # type: ignore[arg-type]
        (messages.InferReply(1, json_size=True), "json_size of InferReply is of type bool"),
        (messages.InferReply(1, json_size=9), "larger than its body"),
        (messages.ChunkReply(1, json_size=-1), "out of range"),
        (messages.InferReply(1, rows=-1), "rows of InferReply is out of range"),
        (messages.InferReply(1, content_type=7), "content_type of InferReply is of type int"),  # type: ignore[arg-type]
        (messages.ErrorReply(1, "internal", "x", float("nan")), "retry_after of ErrorReply is out of range"),
        (messages.ErrorReply(1, "internal", "x", float("inf")), "retry_after of ErrorReply is out of range"),
        (messages.ErrorReply(1, 7, "x"), "code of ErrorReply is of type int"),  # type: ignore[arg-type]
    ],
)
def test_an_answer_that_cannot_be_read_is_its_requests_failure_alone(message: messages.Message, says: str) -> None:
    frames = codec.encode([(message, b"{}"), (messages.InferReply(2), b"good")])
    (failure, nothing), other = codec.decode(frames, strict=True)
    assert isinstance(failure, messages.ErrorReply)
    assert (failure.id, failure.code, nothing) == (1, "internal", b"")
    assert says in failure.message
    assert other == (messages.InferReply(2), b"good")


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (messages.ReadyReply(1, "3", metadata=[]), "metadata of ReadyReply is of type list"),  # type: ignore[arg-type]
        (messages.InferReply("1"), "id of InferReply is of type str"),  # type: ignore[arg-type]
    ],
)
def test_what_runs_other_peoples_code_must_say_what_its_fields_may_hold(message: messages.Message, says: str) -> None:
    frames = codec.encode([(message, b"{}")])
    with pytest.raises(WireError, match=says):
        codec.decode(frames, strict=True)


def test_the_json_of_a_compressed_answer_may_be_longer_than_its_body() -> None:
    """`json_size` is that of the body before compression, as in the header that clients read."""
    reply = (messages.InferReply(1, content_encoding="gzip", json_size=1000), b"small")
    assert codec.decode(codec.encode([reply]), strict=True) == [reply]


@pytest.mark.parametrize("name", sorted(set(SAMPLES) - {"infer"}))  # whose times are no numbers of a worker's
def test_what_is_right_passes_the_strict_look(name: str) -> None:
    body = bytes(10) if SAMPLES[name].carries_body else b""
    assert [type(each) for each, _ in codec.decode(codec.encode([(SAMPLES[name], body)]), strict=True)] == [
        type(SAMPLES[name])
    ]
