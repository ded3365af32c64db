"""Work wanted by several at once is done once, and survives the one who asked first."""

from __future__ import annotations

import asyncio

import pytest

from modelhub.serving.gateway.system.single_flight import Progress, SingleFlight


class Work:
    def __init__(self) -> None:
        self.begun = 0
        self.report: Progress | None = None
        self.may_end = asyncio.Event()

    async def __call__(self, report: Progress) -> str:
        self.begun += 1
        self.report = report
        await self.may_end.wait()
        return "done"


async def join(
    flights: SingleFlight, work: Work, key: str = "a", progress: Progress | None = None
) -> asyncio.Task[str]:
    task = asyncio.create_task(flights.run(key, work, progress))
    await asyncio.sleep(0)  # it is in the flight now
    return task


async def test_done_once_and_told_to_all() -> None:
    flights, work = SingleFlight(), Work()
    seen: list[tuple[str, int]] = []
    tasks = [
        await join(flights, work, progress=lambda done, total, name=name: seen.append((name, done)))  # type: ignore[misc]
        for name in ("first", "second")
    ]
    assert work.report is not None
    work.report(1, 2)
    tasks[0].cancel()
    await asyncio.sleep(0)
    work.report(2, 2)
    work.may_end.set()
    assert await tasks[1] == "done"
    assert work.begun == 1
    assert seen == [("first", 1), ("second", 1), ("second", 2)]


async def test_keys_are_apart_and_the_next_flight_is_new() -> None:
    flights, work = SingleFlight(), Work()
    work.may_end.set()
    tasks = [await join(flights, work, "a"), await join(flights, work, "b")]
    assert await asyncio.gather(*tasks) == ["done", "done"]
    assert await flights.run("a", work) == "done"
    assert work.begun == 3


async def test_a_failure_reaches_all_and_is_not_kept() -> None:
    flights, work = SingleFlight(), Work()

    async def fails(report: Progress) -> str:
        await work.may_end.wait()
        raise ValueError("no")

    tasks = [asyncio.create_task(flights.run("a", fails)) for _ in range(2)]
    await asyncio.sleep(0)
    work.may_end.set()
    assert [str(error) for error in await asyncio.gather(*tasks, return_exceptions=True)] == ["no", "no"]
    assert await flights.run("a", work) == "done"


async def test_closing_cancels() -> None:
    flights, work = SingleFlight(), Work()
    task = await join(flights, work)
    await join(flights, work)
    await flights.close()
    with pytest.raises(asyncio.CancelledError):
        await task
