import asyncio
import queue
import threading
from typing import Any, Callable, Coroutine, Optional, TypeVar

T = TypeVar("T")

class AsyncExecutor:
    """Thread-safe executor for running async functions in sync contexts."""

    @staticmethod
    def run_async(
        async_func: Callable[..., Coroutine[Any, Any, T]],
        *args,
        timeout: Optional[float] = None,
        **kwargs,
    ) -> T:
        """Execute async function in isolated event loop."""
        result_queue = queue.Queue()
        exception_queue = queue.Queue()

        def run_in_thread():
            loop = asyncio.new_event_loop()
            asyncio.set_event_loop(loop)
            try:
                result = loop.run_until_complete(async_func(*args, **kwargs))
                result_queue.put(result)
            except Exception as e:
                exception_queue.put(e)
            finally:
                loop.close()

        thread = threading.Thread(target=run_in_thread)
        thread.start()
        thread.join(timeout=timeout)

        if thread.is_alive():
            raise TimeoutError(f"Async operation timed out after {timeout} seconds")

        if not exception_queue.empty():
            raise exception_queue.get()

        return result_queue.get()
