"""AsyncExecutor: asynchronous functions called from plain code, on one event loop per process.

Models and services use it by its public name, `modelhub.serving.AsyncExecutor`; the service adapter
runs `async` handlers on it. The loop lives in one daemon thread from the first call on; a forked child
starts without it and gets its own.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import os
import threading
from typing import Any, AsyncIterator, Awaitable, Callable, Iterator, Optional, TypeVar

T = TypeVar("T")

#: Seconds that `close` waits for the loop's thread.
_CLOSE_TIMEOUT = 5.0
_END = object()


class AsyncExecutor:
    """Runs async functions from plain code; usable from many threads, inside a running loop, after a fork."""

    @staticmethod
    def run_async(
        async_func: Callable[..., Awaitable[T]], *args: Any, timeout: Optional[float] = None, **kwargs: Any
    ) -> T:
        """Call `async_func(*args, **kwargs)` on the process's loop and wait for its result.

        timeout: seconds; when they have passed the coroutine is cancelled and TimeoutError is raised. What
        the coroutine raises comes out as it is. `timeout` is always this method's own argument.
        """
        if _loop_thread.is_current():
            return _on_helper_thread(async_func, args, kwargs, timeout)
        return _wait(asyncio.run_coroutine_threadsafe(_call(async_func, args, kwargs), _loop_thread.loop()), timeout)

    @staticmethod
    def iterate(source: AsyncIterator[T]) -> Iterator[T]:
        """The items of an async iterator, for plain code; closing this iterator closes that one."""

        async def advance() -> Any:
            try:
                return await source.__anext__()
            except StopAsyncIteration:
                return _END

        try:
            while True:
                item = AsyncExecutor.run_async(advance)
                if item is _END:
                    return
                yield item
        finally:
            close = getattr(source, "aclose", None)
            if close is not None:
                AsyncExecutor.run_async(close)

    @staticmethod
    def close() -> None:
        """End the loop and its thread; running coroutines are cancelled. The next call starts them again."""
        _loop_thread.close()


def result_of(awaitable: Awaitable[T], timeout: Optional[float] = None) -> T:
    """What an awaitable that some plain code has been given comes to; as `AsyncExecutor.run_async`."""

    async def awaited() -> T:
        return await awaitable

    return AsyncExecutor.run_async(awaited, timeout=timeout)


class _LoopThread:
    """One event loop in one thread of this process, begun when first asked for."""

    _loop: Optional[asyncio.AbstractEventLoop] = None
    _thread: Optional[threading.Thread] = None

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=_run_forever, args=(self._loop,), name="AsyncExecutor", daemon=True
                )
                self._thread.start()
            return self._loop

    def is_current(self) -> bool:
        return threading.current_thread() is self._thread

    def close(self) -> None:
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(_CLOSE_TIMEOUT)

    def forget(self) -> None:
        """In a forked child: that thread is the parent's."""
        self._lock = threading.Lock()
        self._loop = self._thread = None


def _run_forever(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        while True:
            try:
                loop.run_forever()
                break
            except (SystemExit, KeyboardInterrupt):
                pass  # of a coroutine: whoever waits for it is told in the next turn, and the others go on
        pending = asyncio.all_tasks(loop)
        for task in pending:
            task.cancel()
        if pending:
            loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


async def _call(async_func: Callable[..., Awaitable[T]], args: Any, kwargs: Any) -> T:
    awaitable: Any = async_func(*args, **kwargs)
    if not inspect.isawaitable(awaitable):
        name = getattr(async_func, "__qualname__", type(async_func).__name__)
        raise TypeError(f"run_async needs an async function, and {name} is none: call it directly")
    result: T = await awaitable
    return result


def _wait(future: concurrent.futures.Future[T], timeout: Optional[float]) -> T:
    try:
        return future.result(timeout)
    except concurrent.futures.TimeoutError:
        if future.done():
            return future.result()  # it ended meanwhile, or the TimeoutError is the coroutine's own
        future.cancel()
        raise TimeoutError(f"Async operation timed out after {timeout} seconds") from None
    except BaseException:
        future.cancel()  # Ctrl-C while waiting; no effect on one that has ended
        raise


def _on_helper_thread(async_func: Callable[..., Awaitable[T]], args: Any, kwargs: Any, timeout: Optional[float]) -> T:
    """A call from a coroutine on the loop itself, which cannot wait for itself: a loop for this call alone."""
    future: concurrent.futures.Future[T] = concurrent.futures.Future()

    async def bounded() -> T:
        task = asyncio.ensure_future(_call(async_func, args, kwargs))
        done, _ = await asyncio.wait({task}, timeout=timeout)
        if not done:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            raise TimeoutError(f"Async operation timed out after {timeout} seconds")
        return task.result()

    def run() -> None:
        try:
            future.set_result(asyncio.run(bounded()))
        except BaseException as error:
            future.set_exception(error)

    thread = threading.Thread(target=run, name="AsyncExecutor helper", daemon=True)
    thread.start()
    try:
        return future.result()
    finally:
        thread.join(_CLOSE_TIMEOUT)


_loop_thread = _LoopThread()
os.register_at_fork(after_in_child=_loop_thread.forget)
