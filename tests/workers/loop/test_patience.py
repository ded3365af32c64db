"""Waiting for returning clients: a worker in virtual time, clients of several kinds, models of several costs."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from modelhub.serving.workers.loop.patience import SHORTEST, Patience

MAX_SIZE = 64
#: Seconds from an answer to the first client that is back, and between two of them.
LATENCY, PACE = 0.0005, 0.00006

Cost = Callable[[int], float]


def fixed(_: int) -> float:
    return 0.005


def per_row(rows: int) -> float:
    return 0.0002 + 0.0001 * rows


@dataclass
class Worker:
    """A loop like the worker's, without a model: what arrives is gathered, waited for, predicted, answered."""

    cost: Cost
    patient: bool = True
    now: float = 0.0
    arrivals: list[float] = field(default_factory=list)
    sojourns: list[float] = field(default_factory=list)
    waits: int = 0

    def __post_init__(self) -> None:
        self.patience = Patience(lambda: self.now)

    def run(self, batches: int, on_answer: Callable[[int], None] = lambda answered: None) -> None:
        for _ in range(batches):
            if not self.arrivals:
                return
            self.batch(on_answer)

    def batch(self, on_answer: Callable[[int], None]) -> None:
        self.now = max(self.now, self.arrivals[0])
        came: list[float] = []
        while len(came) < MAX_SIZE and self.arrivals:
            if self.arrivals[0] > self.now:
                left = self.patience.left(len(came)) if self.patient else 0.0
                self.waits += left > 0
                if self.arrivals[0] > self.now + left:
                    self.now += left
                    break
                self.now = self.arrivals[0]
            came.append(heapq.heappop(self.arrivals))
        self.patience.begins(len(came), full=len(came) == MAX_SIZE)
        seconds = self.cost(len(came))
        self.now += seconds
        waiting = sum(arrival <= self.now for arrival in self.arrivals)
        self.patience.answered(len(came), seconds, waiting)
        self.sojourns += [self.now - arrival for arrival in came]
        on_answer(len(came))


def closed_loop(worker: Worker, clients: int, batches: int) -> float:
    """Requests per second of clients that ask again when they are answered, one way for all of them."""
    free = 0.0

    def come_back(answered: int) -> None:
        nonlocal free
        for _ in range(answered):
            free = max(free, worker.now + LATENCY) + PACE
            heapq.heappush(worker.arrivals, free)

    come_back(clients // 2)
    worker.now += 0.003
    come_back(clients - clients // 2)
    worker.run(batches, come_back)
    return len(worker.sojourns) / worker.now


@pytest.mark.parametrize("clients", [2, 8, 32, 64])
def test_clients_that_return_are_served_together_where_a_call_costs_the_same(clients: int) -> None:
    patient, hasty = Worker(fixed), Worker(fixed, patient=False)
    ratio = closed_loop(patient, clients, 2000) / closed_loop(hasty, clients, 2000)
    # half the calls, less the time on the way, which the halves spend while the others are predicted
    together = fixed(clients) + LATENCY + clients * PACE
    assert ratio > 0.93 * 2 * fixed(clients) / together
    assert patient.patience.waits


@pytest.mark.parametrize("clients", [2, 8, 32, 64])
def test_little_is_lost_where_every_row_costs(clients: int) -> None:
    ratio = closed_loop(Worker(per_row), clients, 5000) / closed_loop(Worker(per_row, patient=False), clients, 5000)
    assert ratio > 0.96


@pytest.mark.parametrize("load", [0.3, 2.0, 8.0])
def test_requests_at_random_hardly_wait(load: float) -> None:
    """`load`: requests that arrive during a call, on average."""
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    times, now = [], 0.0
    for _ in range(5_000):
        now += rng.expovariate(load / fixed(1))
        times.append(now)
    found = []
    for patient in (True, False):
        worker = Worker(fixed, patient=patient, arrivals=list(times))
        worker.run(len(times))
        found.append(sum(worker.sojourns) / len(times))
    assert found[0] < 1.04 * found[1]


def test_it_is_found_anew_when_the_clients_change() -> None:
    worker = Worker(fixed)
    closed_loop(worker, 16, 1000)
    assert worker.patience.waits
    rng = random.Random(1)
    worker.arrivals, start = [], worker.now
    for _ in range(4000):
        start += rng.expovariate(2.0 / fixed(1))
        heapq.heappush(worker.arrivals, start)
    worker.sojourns.clear()
    before, worker.waits = worker.waits, 0
    worker.run(4000)
    assert before > 1000
    assert worker.waits < 0.1 * len(worker.sojourns)


def test_calls_that_are_over_at_once_wait_for_nobody() -> None:
    worker = Worker(lambda rows: SHORTEST / 2)
    closed_loop(worker, 16, 1000)
    assert worker.waits == 0


def test_nobody_waits_past_a_deadline() -> None:
    now = 0.0
    patience = Patience(lambda: now)
    patience.waits = True
    patience.answered(4, 0.010, 0)
    assert patience.left(1) == pytest.approx(0.015)
    assert patience.left(1, deadline=0.1) == pytest.approx(0.015)
    assert patience.left(1, deadline=0.02) == 0
    assert patience.left(4) == 0
    now = 0.2
    assert patience.left(1) == 0
