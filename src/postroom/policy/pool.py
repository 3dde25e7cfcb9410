"""Threads for ``blocking=True`` hooks: a fixed number, and a bounded queue before them.

The threads are daemons, so a hook that never returns cannot hold up the end of the
worker. A thread cannot be stopped: when the caller's time is up it stops listening,
and the thread is busy until its function returns.
"""

import asyncio
import queue
import threading
from collections.abc import Callable


class PoolFull(Exception):
    """All threads are busy and as many calls wait as may."""


_Job = tuple["asyncio.Future[object]", asyncio.AbstractEventLoop, Callable[[], object]]


class BlockingPool:
    """Runs plain functions in threads. The threads start when first needed."""

    def __init__(self, threads_max: int, waiting_max: int) -> None:
        self._threads_max = threads_max
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._bound = threads_max + waiting_max
        self._pending = 0  # given and not finished; changed on the loop's thread only
        self._threads = 0

    def run(self, function: Callable[[], object]) -> "asyncio.Future[object]":
        """Give a function to the threads; to be called on the event loop.

        Raises:
            PoolFull: too many calls wait already.
            RuntimeError: there is no thread and none can be started now.
        """
        if self._pending >= self._bound:
            raise PoolFull("too many blocking hooks wait for a thread")
        if self._threads < min(self._threads_max, self._pending + 1):
            self._add_thread()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[object] = loop.create_future()
        self._pending += 1
        self._jobs.put((future, loop, function))
        return future

    def _add_thread(self) -> None:
        name = f"postroom-hook-{self._threads + 1}"
        thread = threading.Thread(target=self._work, name=name, daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the system gives us no more for now
            if not self._threads:
                raise
        else:
            self._threads += 1

    def close(self) -> None:
        """Let the threads end once they have done what was given."""
        for _ in range(self._threads):
            self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, loop, function = job
            result: object = None
            error: BaseException | None = None
            if not future.cancelled():
                try:
                    result = function()
                except BaseException as raised:  # the loop's side judges it
                    error = raised
            try:
                loop.call_soon_threadsafe(self._finish, future, result, error)
            except RuntimeError:  # the loop is closed: nobody waits any more
                return

    def _finish(
        self,
        future: "asyncio.Future[object]",
        result: object,
        error: BaseException | None,
    ) -> None:
        self._pending -= 1
        if future.done():
            return
        if error is None:
            future.set_result(result)
        elif isinstance(error, Exception) and not isinstance(error, StopIteration):
            future.set_exception(error)
        else:  # SystemExit and the like must not end the worker
            future.set_exception(RuntimeError(f"{type(error).__name__}: {error}"))
