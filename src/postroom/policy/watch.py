"""Finds out whether an ``async def`` hook holds up the loop between its awaits.

It may wait as long as its time-out allows, but not in a call that blocks: no time-out
ends that, and every other client waits as well.
"""

from collections.abc import Callable, Coroutine, Generator
from typing import Any


class Watched:
    """A coroutine to be awaited once; ``longest_ns`` is its longest step so far.

    Args:
        coroutine: what is awaited.
        stopwatch: nanoseconds.
    """

    def __init__(
        self, coroutine: Coroutine[Any, Any, object], stopwatch: Callable[[], int]
    ) -> None:
        self.longest_ns = 0
        self._steps = coroutine.__await__()
        self._stopwatch = stopwatch

    def __await__(self) -> Generator[Any, Any, object]:
        """Run the coroutine as ``await`` would; errors and cancellation reach it."""
        value: Any = None
        error: BaseException | None = None
        while True:
            began = self._stopwatch()
            try:
                if error is None:
                    waits_for = self._steps.send(value)
                else:
                    waits_for = self._steps.throw(error)
            except StopIteration as end:
                answer: object = end.value
                return answer
            finally:
                spent_ns = self._stopwatch() - began
                self.longest_ns = max(self.longest_ns, spent_ns)
            try:
                value, error = (yield waits_for), None
            except BaseException as thrown:  # into the coroutine, as by await
                error = thrown
