"""Batches: when a model gets them, what its clients notice (nothing), and how they end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from modelhub.serving.protocol.limits import BATCH_BYTES
from modelhub.serving.protocol.messages import (
    CancelRequest,
    ErrorReply,
    InferReply,
    InferRequest,
    StatsReply,
    StatsRequest,
    StopRequest,
)
from modelhub.serving.workers.loop.patience import Patience
from modelhub.serving.workers.model.served import ServedModel
from support.doubling import Doubles, body, made, proven, values
from support.v2_client import Tensor, parse
from support.worker_link import WorkerLink

Served = Callable[[str], ServedModel]
Save = Callable[..., ServedModel]


def test_what_waits_is_predicted_together(tmp_path: Path) -> None:
    model = Doubles()
    model.go = threading.Event()
    with WorkerLink(tmp_path, made(model), enabled=True) as worker:
        worker.send((InferRequest(id=100), body(0)))
        assert model.running.wait(20)
        worker.send(*((InferRequest(id=number), body(number, -number)) for number in range(1, 6)))
        model.go.set()
        found = worker.answers(6)
    assert [values(found[number]) for number in range(1, 6)] == [[2 * n, -2 * n] for n in range(1, 6)]
    assert model.calls == [1, 10]
    assert {(found[number][0].batch, found[number][0].rows) for number in range(1, 6)} == {(5, 2)}
    assert all(found[number][0].wait_ns > 0 for number in range(1, 6))
    assert found[100][0].batch == 1


def test_answers_that_are_ready_together_travel_together(tmp_path: Path) -> None:
    with WorkerLink(tmp_path, made(Doubles()), enabled=True) as worker:
        worker.send(*((InferRequest(id=number), body(number)) for number in (1, 2, 3)))
        assert [message.id for message, _ in worker.receive()] == [1, 2, 3]


def test_ids_outputs_parameters_and_forms_survive(tmp_path: Path) -> None:
    model = Doubles()
    with WorkerLink(tmp_path, made(model), enabled=True) as worker:
        replies = worker.ask(
            body(1, id="one"),
            body(2, parameters={"factor": 10.0}),
            body(3, outputs=[{"name": "z"}]),
            body(4, outputs=[{"name": "y", "parameters": {"binary_data": True}}]),
            body(5, parameters={"factor": 10.0}, id="five"),
            body(6, outputs=[{"name": "nothing"}]),
        )
    documents = [parse(text, message.json_size) for message, text in replies[:5]]
    assert [document.get("id") for document, _ in documents] == ["one", None, None, None, "five"]
    assert [found for _, found in documents] == [
        {"y": Tensor("FP64", [1], [2]), "z": Tensor("FP64", [1], [2])},
        {"y": Tensor("FP64", [1], [40]), "z": Tensor("FP64", [1], [3])},
        {"z": Tensor("FP64", [1], [4])},
        {"y": Tensor("FP64", [1], [8])},
        {"y": Tensor("FP64", [1], [100]), "z": Tensor("FP64", [1], [6])},
    ]
    assert replies[3][0].json_size is not None
    error = replies[5][0]
    assert (error.code, "'nothing'" in error.message) == ("invalid_request", True)
    assert sorted(model.calls) == [1, 1, 2, 4]  # by their parameters; the first of each, to learn its form


def test_requests_that_must_be_alone_are(tmp_path: Path) -> None:
    model = Doubles()
    with WorkerLink(tmp_path, made(model), enabled=True) as worker:
        worker.send(
            (InferRequest(id=1), body(1)),
            (InferRequest(id=2, alone=True), body(2)),
            (InferRequest(id=3), body(3)),
        )
        found = worker.answers(3)
    assert sorted(model.calls) == [1, 1, 2]
    assert [found[number][0].batch for number in (1, 2, 3)] == [2, 1, 2]


def test_a_batch_has_max_size_rows_at_most(tmp_path: Path) -> None:
    model = Doubles()
    with WorkerLink(tmp_path, made(model), enabled=True, max_size=4) as worker:
        worker.ask(body(1, 2), body(3, 4, 5), body(6, 7), body(*range(9)))
    assert model.calls == [4, 2, 3, 9]  # 2: the first of the first batch, to learn where its rows are


def test_large_requests_are_few_in_a_batch(tmp_path: Path) -> None:
    """Or the first of them waits until all are decoded, and they take up memory together."""
    model = Doubles()
    with WorkerLink(tmp_path, made(model), enabled=True) as worker:
        large = [body(number, id="x" * (BATCH_BYTES // 3)) for number in range(8)]
        replies = worker.ask(*large, body(8))
    assert [values(reply) for reply in replies] == [[2 * number] for number in range(9)]
    assert model.calls == [3, 1, 3, 3]


def test_max_delay_waits_for_more(tmp_path: Path) -> None:
    model = Doubles()
    with WorkerLink(tmp_path, made(model), enabled=True, max_size=2, max_delay=15.0) as worker:
        worker.send((InferRequest(id=1), body(1)))
        worker.batching()  # answered: the first request is there, and waits
        assert model.calls == []
        worker.send((InferRequest(id=2), body(2)))
        assert {message.batch for message, _ in worker.answers(2).values()} == {2}
        worker.send((InferRequest(id=3), body(3)), (StopRequest(), b""))  # not when it ends
        assert values(worker.answers(1)[3]) == [6]


def test_max_delay_ends(tmp_path: Path) -> None:
    with WorkerLink(tmp_path, made(Doubles()), enabled=True, max_delay=0.05) as worker:
        start = time.monotonic()
        assert values(worker.ask(body(1))[0]) == [2]
        assert time.monotonic() - start >= 0.04


class Waits(Patience):
    """Finds every wait worth it."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = True

    def left(self, gathered: int, deadline: float = 0.0) -> float:
        return 5.0 if gathered < self._expected else 0.0


@pytest.mark.parametrize(("max_delay", "calls"), [(None, [1, 2]), (0.0, [1, 1, 1])])
def test_a_worker_waits_for_those_it_has_just_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, max_delay: float | None, calls: list[int]
) -> None:
    """Two clients that would take turns: the second is predicted with the first one's next request."""
    monkeypatch.setattr("modelhub.serving.workers.loop.loop.Patience", Waits)
    model = Doubles()
    with WorkerLink(tmp_path, made(model), enabled=True, max_delay=max_delay) as worker:
        worker.send((InferRequest(id=1, alone=True), body(1)), (InferRequest(id=2), body(2)))
        alone = 1 if len(calls) == 2 else 2  # answered before the third is sent
        assert isinstance(worker.answers(alone)[1][0], InferReply)
        worker.send((InferRequest(id=3, received=time.monotonic()), body(3)))
        assert values(worker.answers(3 - alone)[3]) == [6]
    assert model.calls == calls


def test_who_is_back_before_the_worker_looks_is_not_waited_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelhub.serving.workers.loop.loop.Patience", Waits)
    model = Doubles()
    with WorkerLink(tmp_path, made(model), enabled=True) as worker:
        after_the_answer = time.monotonic() + 60
        worker.send(
            (InferRequest(id=1, alone=True), body(1)),
            (InferRequest(id=2), body(2)),
            (InferRequest(id=3, received=after_the_answer), body(3)),
        )
        assert values(worker.answers(3)[3]) == [6]
    assert model.calls == [1, 2]


def test_who_goes_while_a_batch_waits_is_not_predicted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in the batch that waits nor after it; and the batch that is left goes on."""
    monkeypatch.setattr("modelhub.serving.workers.loop.loop.Patience", Waits)
    model = Doubles()
    model.go = threading.Event()
    with WorkerLink(tmp_path, made(model), enabled=True) as worker:
        worker.send(*((InferRequest(id=number, alone=number == 3), body(number)) for number in (0, 1, 2, 3)))
        assert model.running.wait(20)
        worker.send(*((InferRequest(id=number, alone=number == 5), body(number)) for number in (4, 5, 6)))
        model.until = worker.reached
        model.go.set()
        worker.answers(4)  # now 4 and 6 wait for two more, and 5 behind them
        worker.send((CancelRequest([4, 5]), b""))
        worker.send(*((InferRequest(id=number), body(number)) for number in (7, 8, 9)))
        found = worker.answers(6)
    gone = {number for number, (message, _) in found.items() if isinstance(message, ErrorReply)}
    assert gone == {4, 5}
    assert {found[number][0].code for number in gone} == {"cancelled"}
    assert model.calls == [3, 1, 1, 4]


class HurriesForDeadlines(Waits):
    """Waits only for requests without a deadline."""

    def left(self, gathered: int, deadline: float = 0.0) -> float:
        return 0.0 if deadline else super().left(gathered)


@pytest.mark.parametrize("alone", [False, True])
def test_a_batch_does_not_wait_past_a_requests_own_timeout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alone: bool
) -> None:
    """`alone`: it is not of the batch that waits, but behind it."""
    monkeypatch.setattr("modelhub.serving.workers.loop.loop.Patience", HurriesForDeadlines)
    own = body(3, parameters={"timeout": 15_000_000})
    with WorkerLink(tmp_path, made(Doubles()), enabled=True) as worker:
        worker.send(
            (InferRequest(id=1, alone=True), body(1)),
            *(((InferRequest(id=2), body(2)),) if alone else ()),
            (InferRequest(id=3, alone=alone), own),
        )
        started = time.monotonic()
        worker.answers(3 if alone else 2)
        assert time.monotonic() - started < 10


def test_stats_that_are_asked_for_during_the_last_batch_come_with_its_answers(tmp_path: Path) -> None:
    model = Doubles()
    model.go = threading.Event()
    with WorkerLink(tmp_path, made(model), enabled=True) as worker:
        worker.send((InferRequest(id=1), body(1)))
        assert model.running.wait(20)
        worker.send((StatsRequest(), b""))
        model.go.set()
        assert values(worker.answers(1)[1]) == [2]
        assert isinstance(worker.receive()[0][0], StatsReply)


class FailsOn666(Doubles):
    def answer(self, data: pd.DataFrame, params: dict[str, Any]) -> Any:
        if (data["x"] == 666).any():
            raise ValueError("no 666")
        return super().answer(data, params)


class Leaves(Doubles):
    def answer(self, data: pd.DataFrame, params: dict[str, Any]) -> Any:
        raise SystemExit(3)


@pytest.mark.parametrize("concurrency", [1, 2])
def test_a_model_that_exits_ends_its_worker(tmp_path: Path, concurrency: int) -> None:
    with WorkerLink(tmp_path, made(Leaves()), concurrency=concurrency) as worker:
        worker.send((InferRequest(id=1), body(1)))
        assert worker.ended(20) == 3


@pytest.mark.parametrize("concurrency", [1, 3])
def test_a_bad_row_fails_alone(tmp_path: Path, concurrency: int, capfd: pytest.CaptureFixture[str]) -> None:
    model = FailsOn666()
    model.go = threading.Event()
    with WorkerLink(tmp_path, made(model), concurrency=concurrency, enabled=True) as worker:
        for number in range(10, 10 + concurrency):
            worker.send((InferRequest(id=number, alone=True), body(0)))
        worker.send(*((InferRequest(id=number), body(666 if number == 2 else number)) for number in (1, 2, 3)))
        model.go.set()
        found = worker.answers(3 + concurrency)
        state = worker.batching()
    assert (values(found[1]), values(found[3])) == ([2], [6])
    assert isinstance(found[2][0], ErrorReply)
    assert (found[2][0].code, found[2][0].message) == ("model_error", "ValueError: no 666")
    assert sorted(model.calls) == [1] * (3 + concurrency) + [3]
    assert state["enabled"] is False
    assert state["reason"] == "off for 60 s: a batch of 3 requests raised ValueError"
    assert "batching is off for 60 s" in capfd.readouterr().err


class Sums(Doubles):
    def answer(self, data: pd.DataFrame, params: dict[str, Any]) -> Any:
        return pd.DataFrame({"y": [data["x"].sum()]})


def test_a_wrong_number_of_rows_ends_batching(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = Sums()
    with WorkerLink(tmp_path, made(model), enabled=True) as worker:
        assert [values(each) for each in worker.ask(body(1, 2), body(3), body(4))] == [[3], [3], [4]]
        assert model.calls == [4, 2, 2, 1, 1]
        assert [values(each) for each in worker.ask(body(1), body(2))] == [[1], [2]]
        assert model.calls[5:] == [1, 1]
        assert worker.batching()["enabled"] is False
    assert "for a batch of 4 rows the model gave back another number of rows" in capfd.readouterr().err


class NoRows(Doubles):
    """Its answers have rows, and do not give them."""

    class Answer:
        def __init__(self, count: int) -> None:
            self.ndim, self.shape = 1, (count,)

        def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
            return np.ones(self.shape)

        def __getitem__(self, at: Any) -> Any:
            raise NotImplementedError

    def answer(self, data: pd.DataFrame, params: dict[str, Any]) -> Any:
        return self.Answer(len(data))


def test_an_answer_that_cannot_be_taken_apart_ends_no_worker(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    state, _ = proven(made(NoRows()), body(1, 2), tmp_path)
    assert "cannot be taken apart: NotImplementedError" in state["reason"]
    folder = tmp_path / "on"
    folder.mkdir()
    with WorkerLink(folder, made(NoRows()), enabled=True) as worker:
        assert all(isinstance(message, InferReply) for message, _ in worker.ask(body(1), body(2)))
        assert worker.batching()["reason"] == "off for 60 s: a batch of 2 requests raised NotImplementedError"
    assert "batching is off for 60 s" in capfd.readouterr().err


def test_the_requests_own_timeout_is_kept(tmp_path: Path) -> None:
    model = Doubles()
    with WorkerLink(tmp_path, made(model), enabled=True) as worker:
        late, other = worker.ask(body(1, parameters={"timeout": 1000}), body(2), received=time.monotonic() - 1)
    assert (late[0].code, model.calls) == ("deadline_exceeded", [1])
    assert values(other) == [4]


def test_what_was_begun_is_in_the_journal(tmp_path: Path) -> None:
    model = Doubles()
    model.go = threading.Event()
    with WorkerLink(tmp_path, made(model), enabled=True) as worker:
        worker.send((InferRequest(id=7), body(1)), (InferRequest(id=8), body(2)))
        assert model.running.wait(20)
        worker.send((InferRequest(id=9), body(3)))
        assert set(worker.journal.begun()) == {7, 8}
        model.go.set()
        worker.answers(3)
