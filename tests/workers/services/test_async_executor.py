"""AsyncExecutor: results, errors and timeouts from many threads, from inside a loop, and after a fork."""

from __future__ import annotations

import asyncio
import contextvars
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from modelhub.serving import AsyncExecutor
from support.processes import until


async def add(left: int, right: int = 0) -> int:
    await asyncio.sleep(0)
    return left + right


async def where() -> int:
    return threading.get_ident()


def test_results_arguments_and_errors() -> None:
    assert AsyncExecutor.run_async(add, 1, right=2, timeout=5) == 3

    async def fail() -> None:
        raise KeyError("gone")

    with pytest.raises(KeyError, match="gone"):
        AsyncExecutor.run_async(fail)
    with pytest.raises(TypeError, match="len is none"):
        AsyncExecutor.run_async(len, [])  # type: ignore[arg-type]


@pytest.mark.parametrize("leaving", [SystemExit(3), KeyboardInterrupt()])
def test_a_coroutine_that_leaves_leaves_its_caller_and_the_loop_goes_on(leaving: BaseException) -> None:
    async def leave() -> None:
        raise leaving

    with pytest.raises(type(leaving)) as left:
        AsyncExecutor.run_async(leave)
    assert left.value is leaving
    assert AsyncExecutor.run_async(add, 1, right=2, timeout=5) == 3


def test_one_loop_for_many_threads() -> None:
    """A thousand calls of many threads run at the same time on one thread, and leave none behind."""
    together = asyncio.Event()
    waiting = 0

    async def meet() -> int:
        nonlocal waiting
        waiting += 1
        if waiting == 50:
            together.set()
        await asyncio.wait_for(together.wait(), 20)
        return threading.get_ident()

    AsyncExecutor.run_async(where)
    before = threading.active_count()
    with ThreadPoolExecutor(50) as pool:
        threads = set(pool.map(lambda _: AsyncExecutor.run_async(meet), range(50)))
        results = list(pool.map(lambda number: AsyncExecutor.run_async(add, number, 1), range(1000)))
    assert len(threads) == 1
    assert results == list(range(1, 1001))
    assert threading.active_count() == before


def test_a_timeout_cancels_and_leaks_nothing() -> None:
    cancelled: list[int] = []

    async def linger(number: int) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(number)
            raise

    AsyncExecutor.run_async(where)
    before = threading.active_count()
    for number in range(20):
        with pytest.raises(TimeoutError, match=r"timed out after 0\.01 seconds"):
            AsyncExecutor.run_async(linger, number, timeout=0.01)
    until(lambda: cancelled == list(range(20)), 5, "all are cancelled")
    assert threading.active_count() == before


def test_a_coroutines_own_timeout_error_comes_out() -> None:
    async def own() -> None:
        raise TimeoutError("the service's own")

    with pytest.raises(TimeoutError, match="the service's own"):
        AsyncExecutor.run_async(own, timeout=5)


async def test_inside_a_running_loop() -> None:
    assert AsyncExecutor.run_async(add, 20, 3) == 23
    assert AsyncExecutor.run_async(where) != threading.get_ident()


def test_inside_its_own_loop() -> None:
    """A coroutine on the loop calls plain code that calls run_async: that must not wait for itself."""

    async def outer(timeout: float | None) -> int:
        return AsyncExecutor.run_async(add, 1, 1, timeout=timeout)

    async def outer_late() -> None:
        AsyncExecutor.run_async(asyncio.sleep, 30, timeout=0.01)

    assert AsyncExecutor.run_async(outer, None, timeout=10) == 2
    assert AsyncExecutor.run_async(outer, 5, timeout=10) == 2
    with pytest.raises(TimeoutError):
        AsyncExecutor.run_async(outer_late, timeout=10)


def test_context_variables_reach_the_coroutine() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    variable.set("seen")

    async def read() -> str:
        return variable.get()

    assert AsyncExecutor.run_async(read) == "seen"


def test_iterate() -> None:
    closed: list[bool] = []

    async def count() -> object:
        try:
            for number in range(100):
                yield number
        finally:
            closed.append(True)

    items = AsyncExecutor.iterate(count())  # type: ignore[arg-type]
    assert [next(items), next(items)] == [0, 1]
    items.close()  # type: ignore[attr-defined]
    assert closed == [True]


def test_close_ends_the_thread_and_the_next_call_begins_anew() -> None:
    first = AsyncExecutor.run_async(where)
    AsyncExecutor.close()
    assert first not in {thread.ident for thread in threading.enumerate()}
    assert AsyncExecutor.run_async(add, 2, 2) == 4


def test_after_a_fork() -> None:
    code = """
import asyncio, os
from modelhub.serving import AsyncExecutor

async def whoami():
    await asyncio.sleep(0)
    return os.getpid()

assert AsyncExecutor.run_async(whoami) == os.getpid()
children = []
for _ in range(5):
    child = os.fork()
    if child == 0:
        good = AsyncExecutor.run_async(whoami, timeout=10) == os.getpid()
        os._exit(0 if good else 1)
    children.append(child)
assert [os.waitpid(child, 0)[1] for child in children] == [0] * 5
assert AsyncExecutor.run_async(whoami) == os.getpid()
print("done")
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        stdin=subprocess.DEVNULL,
        env=dict(os.environ),
    )
    assert done.stdout == "done\n", done.stderr
