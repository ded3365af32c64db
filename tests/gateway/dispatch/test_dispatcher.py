"""The dispatcher by itself, on a real event loop: credits, the queue's bound, deadlines, cancellation, deaths."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

import pytest

from modelhub.serving.gateway.dispatch.dispatcher import ENOUGH_BYTES, Dispatcher, WorkerLink
from modelhub.serving.gateway.dispatch.queue import LEVELS, USUAL, priority_of
from modelhub.serving.protocol.errors import DeadlineExceeded, InvalidRequest, QueueFull, ServingError, WorkerLost
from modelhub.serving.protocol.messages import CancelRequest, ErrorReply, InferReply, InferRequest


class Worker:
    """What a worker's side of a link sees."""

    def __init__(self, dispatcher: Dispatcher, credits: int = 2) -> None:
        self.dispatcher = dispatcher
        self.got: list[InferRequest] = []
        self.cancelled: list[int] = []
        self.overdue: list[int] = []
        self.link = WorkerLink("test/1", credits, self._send, self.overdue.append)
        dispatcher.attach(self.link)

    def _send(self, message: Any, body: Any) -> None:
        if isinstance(message, CancelRequest):
            self.cancelled += message.ids
        else:
            self.got.append(message)

    def answer(self, request: InferRequest, body: bytes = b"yes") -> None:
        self.dispatcher.receive(self.link, InferReply(request.id), body)


def dispatcher(limit: int = 10, *, retry: bool = True) -> Dispatcher:
    return Dispatcher("test/1", limit=limit, retry=retry)


def ask(target: Dispatcher, seconds: float = 0.0, priority: int = USUAL) -> asyncio.Task[Any]:
    request = InferRequest(id=0, deadline=time.monotonic() + seconds if seconds else 0.0)
    request.priority = priority
    return asyncio.ensure_future(target.submit(request, b"body"))


async def turn() -> None:
    """Let what is due in the loop happen."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_worker_holds_its_credits_and_the_rest_waits() -> None:
    target = dispatcher(limit=2)
    worker = Worker(target)
    tasks = [ask(target) for _ in range(4)]
    await turn()
    assert (len(worker.got), target.in_flight, target.queued) == (2, 2, 2)
    with pytest.raises(QueueFull) as full:
        await ask(target)
    assert full.value.retry_after
    worker.answer(worker.got[0])
    await turn()
    assert (len(worker.got), target.queued) == (3, 1)
    for request in worker.got[1:]:
        worker.answer(request)
    await turn()
    worker.answer(worker.got[3])
    assert [(await task)[1] for task in tasks] == [b"yes"] * 4
    await target.drained()


async def test_a_worker_is_not_given_more_large_bodies_than_it_soon_needs() -> None:
    target = dispatcher(limit=100)
    worker = Worker(target, credits=2)
    worker.link.credits = 50  # it batches
    half = bytearray(ENOUGH_BYTES // 2)
    tasks = [asyncio.ensure_future(target.submit(InferRequest(id=0), body)) for body in [half] * 5]
    tasks += [ask(target) for _ in range(5)]
    await turn()
    assert (len(worker.got), worker.link.bytes, target.queued) == (2, ENOUGH_BYTES, 8)
    other = Worker(target, credits=2)  # but two it may have, however large they are
    twice = asyncio.ensure_future(target.submit(InferRequest(id=0), bytearray(2 * ENOUGH_BYTES)))
    await turn()
    assert (len(worker.got), len(other.got), target.queued) == (2, 2, 7)
    tasks.append(twice)
    for turns in range(len(tasks)):
        for each in (worker, other):
            for request in [request for request in each.got if request.id in each.link.held]:
                each.answer(request)
                assert each.link.bytes <= 3 * ENOUGH_BYTES, turns
        await turn()
    assert [(await task)[1] for task in tasks] == [b"yes"] * 11
    assert (worker.link.bytes, other.link.bytes) == (0, 0)


async def test_priorities_first_and_within_them_who_came_first() -> None:
    target = dispatcher(limit=100)
    worker = Worker(target, credits=1)
    levels = [USUAL, 9, 1, USUAL, 3, 1, 9, 3, USUAL]
    tasks = [ask(target, priority=level) for level in (USUAL, *levels)]
    await turn()
    leaving = ask(target, priority=1)
    await turn()
    leaving.cancel()
    await turn()
    assert target.queued == len(levels)
    for _ in levels:
        worker.answer(worker.got[-1])
        await turn()
    worker.answer(worker.got[-1])
    await asyncio.gather(*tasks)
    assert [request.priority for request in worker.got[1:]] == sorted(levels)
    numbers = [request.id for request in worker.got]
    for level in set(levels):
        of_level = [request.id for request in worker.got[1:] if request.priority == level]
        assert of_level == sorted(of_level), "in the order of their arrival"
    assert len(numbers) == len(set(numbers))
    await target.drained()


async def test_what_comes_back_from_a_dead_worker_goes_before_its_equals() -> None:
    target = dispatcher()
    first = Worker(target, credits=2)
    tasks = [ask(target, priority=level) for level in (USUAL, 9, USUAL, 1)]
    await turn()
    was_held = [request.id for request in first.got]
    target.detach(first.link, (), "was killed")
    second = Worker(target, credits=4)
    assert [request.priority for request in second.got] == [1, USUAL, USUAL, 9]
    assert [request.id for request in second.got][1:4:2] == was_held
    for request in second.got:
        second.answer(request)
    await asyncio.gather(*tasks)


def test_priorities_as_clients_write_them() -> None:
    written = {"1": 1, "9": LEVELS, "10": LEVELS, "4000000000": LEVELS, "0": USUAL, "007": 7}
    assert {text: priority_of(text) for text in written} == written
    for text in ("", "-1", "1.5", "high", "\u0661", "1" * 50, " 1"):
        with pytest.raises(InvalidRequest, match="x-request-priority"):
            priority_of(text)


async def test_an_error_reply_is_raised() -> None:
    target = dispatcher()
    worker = Worker(target)
    task = ask(target)
    await turn()
    target.receive(worker.link, ErrorReply(worker.got[0].id, "invalid_request", "shape", None), b"")
    with pytest.raises(InvalidRequest, match="shape"):
        await task


async def test_deadlines_are_kept_in_any_order() -> None:
    target = dispatcher()
    order: list[float] = []

    async def one(seconds: float) -> None:
        with pytest.raises(DeadlineExceeded):
            await ask(target, seconds)
        order.append(seconds)

    await asyncio.gather(*(one(seconds) for seconds in (0.12, 0.04, 0.08, 0.02)))
    assert order == [0.02, 0.04, 0.08, 0.12]
    assert target.queued == 0
    await target.drained()


async def test_a_request_that_expires_in_the_worker_keeps_its_credit_until_it_is_answered() -> None:
    target = dispatcher()
    worker = Worker(target, credits=1)
    with pytest.raises(DeadlineExceeded):
        await ask(target, 0.02)
    (request,) = worker.got
    assert worker.cancelled == worker.overdue == [request.id]
    second = ask(target)
    await turn()
    assert target.queued == 1
    worker.answer(request)
    await turn()
    assert len(worker.got) == 2
    worker.answer(worker.got[1])
    await second


@pytest.mark.parametrize("end", ["answer", "cancelled", "death", "late death"])
async def test_what_a_worker_holds_for_nobody_counts_until_it_lets_go(end: str) -> None:
    held = 0

    def left_behind(size: int) -> None:
        nonlocal held
        held += size

    target = Dispatcher("test/1", limit=10, retry=True, left_behind=left_behind)
    worker, body = Worker(target, credits=3), bytes(1000)
    gone, late, stays, waits = (
        asyncio.ensure_future(target.submit(InferRequest(id=0, deadline=deadline), body))
        for deadline in (0.0, time.monotonic() + 0.01, 0.0, 0.0)
    )
    await turn()
    assert held == 0
    for each in (gone, waits):
        each.cancel()
    with pytest.raises(DeadlineExceeded):
        await late
    await turn()
    assert held == 2000, "not what waited here, nor what somebody waits for"
    if end == "late death":  # what nobody waits for may pass its deadline too
        target._sweep()
    if end.endswith("death"):
        target.detach(worker.link, [worker.got[0].id], "ended")
        assert (held, target.queued) == (0, 1)
        stays.cancel()
    else:
        for request in worker.got:
            if end == "answer":
                worker.answer(request)
            else:
                target.receive(worker.link, ErrorReply(request.id, "cancelled", "the client went away"), b"")
    await asyncio.gather(stays, return_exceptions=True)
    await target.drained()
    assert held == 0


async def test_a_client_that_leaves_frees_its_place() -> None:
    target = dispatcher()
    worker = Worker(target, credits=1)
    held, waiting = ask(target), ask(target)
    await turn()
    for task in (waiting, held):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert target.queued == 0
    assert worker.cancelled == [worker.got[0].id]
    assert target.in_flight == 1
    worker.answer(worker.got[0])
    await target.drained()


async def test_what_a_dead_worker_had_begun_is_retried_once_alone_and_the_rest_is_sent_again() -> None:
    target = dispatcher()
    first = Worker(target)
    begun, held, waiting = ask(target), ask(target), ask(target)
    await turn()
    target.detach(first.link, {first.got[0].id}, "was killed")
    second = Worker(target)
    assert [(request.id, request.alone) for request in second.got] == [(first.got[0].id, True)]
    target.detach(second.link, {second.got[0].id}, "was killed again")
    with pytest.raises(WorkerLost, match="was killed again"):
        await begun
    third = Worker(target)
    for request in list(third.got):
        third.answer(request)
    await asyncio.gather(held, waiting)
    assert target.retried == 1


async def test_what_is_retried_alone_has_its_worker_to_itself() -> None:
    """An answer that is on its way when the next request ends the worker would be lost a second time."""
    target = dispatcher()
    first = Worker(target)
    asked = [ask(target) for _ in range(3)]
    await turn()
    target.detach(first.link, {request.id for request in first.got}, "was killed")
    second = Worker(target)
    for number in range(2):
        assert len(second.got) == number + 1
        assert second.got[-1].alone
        second.answer(second.got[-1])
    assert [request.alone for request in second.got] == [True, True, False]
    asked += [ask(target), ask(target)]
    await turn()
    assert len(second.got) == 4, "its credits are back"
    for request in second.got[2:]:
        second.answer(request)
    second.answer(second.got[4])
    await asyncio.gather(*asked)


async def test_without_retry_what_was_begun_is_lost_at_once() -> None:
    target = dispatcher(retry=False)
    worker = Worker(target)
    begun, held = ask(target), ask(target)
    await turn()
    target.detach(worker.link, {worker.got[0].id}, "was killed")
    with pytest.raises(WorkerLost):
        await begun
    assert target.queued == 1
    held.cancel()
    await turn()


@pytest.mark.parametrize("gives_up", [True, False], ids=["its client goes", "its deadline passes"])
async def test_those_behind_one_that_waits_for_a_worker_of_its_own_go_when_it_goes(gives_up: bool) -> None:
    target = dispatcher()
    first = Worker(target, credits=1)
    retried = ask(target, 0.0 if gives_up else 0.05)
    await turn()
    busy = Worker(target, credits=2)
    running = ask(target)
    await turn()
    target.detach(first.link, {first.got[0].id}, "was killed")
    behind = ask(target)
    await turn()
    assert (len(busy.got), target.queued) == (1, 2)
    if gives_up:
        retried.cancel()
    with pytest.raises((asyncio.CancelledError, DeadlineExceeded)):
        await retried
    assert (len(busy.got), target.queued) == (2, 0)
    for request in busy.got:
        busy.answer(request)
    await asyncio.gather(running, behind)
    await target.drained()


@pytest.mark.parametrize("seed", range(20))
async def test_every_request_is_answered_once_whatever_happens(seed: int) -> None:
    """Random requests, answers, deaths, cancellations and expiries; in the end nothing is left."""
    chance = random.Random(seed)
    target = dispatcher(limit=20)
    workers = [Worker(target, credits=chance.randint(1, 3)) for _ in range(2)]
    tasks: list[asyncio.Task[Any]] = []
    for _ in range(200):
        what = chance.random()
        worker = chance.choice(workers)
        if what < 0.5:
            tasks.append(ask(target, chance.choice([0, 0.001, 5]), chance.choice([1, USUAL, USUAL, 9])))
        elif what < 0.8 and worker.link.held:
            worker.answer(chance.choice([pending.request for pending in worker.link.held.values()]))
        elif what < 0.85:
            begun = {number for number in worker.link.held if chance.random() < 0.5}
            target.detach(worker.link, begun, "was killed")
            workers[workers.index(worker)] = Worker(target, credits=chance.randint(1, 3))
        elif what < 0.9 and tasks:
            chance.choice(tasks).cancel()
        await turn()
    while target.queued or target.in_flight:
        for worker in workers:
            for pending in list(worker.link.held.values()):
                worker.answer(pending.request)
        await turn()
    for task in tasks:
        try:
            assert (await task)[1] == b"yes"
        except (ServingError, asyncio.CancelledError):
            pass
    await asyncio.wait_for(target.drained(), 1)
    assert all(worker.link.credits <= 3 and not worker.link.held for worker in workers)


async def test_a_death_with_requests_to_send_again_is_no_idleness() -> None:
    target = dispatcher(retry=False)
    idle: list[bool] = []
    target.on_idle = lambda: idle.append(True)
    worker = Worker(target)
    begun, held = ask(target), ask(target)
    await turn()
    target.detach(worker.link, {worker.got[0].id}, "was killed")
    with pytest.raises(WorkerLost):
        await begun
    drained = asyncio.ensure_future(target.drained())
    await turn()
    assert not idle
    assert not drained.done(), "one still waits for the successor"
    second = Worker(target)
    second.answer(second.got[0])
    await asyncio.wait_for(asyncio.gather(held, drained), 5)
    assert idle
