"""``sendmail -v``: lets a person watch the delivery of a letter, live.

Who tells must never wait for who listens: a line that does not fit is dropped and
counted, and the count is told when there is room. When the listener goes, by Ctrl-C
or otherwise, the letter travels on unseen.
"""

import asyncio
from collections.abc import Awaitable
from typing import Protocol

from postroom.net.stream import StreamError

LINES_MAX = 1000
"""Lines that wait for a slow terminal before further ones are dropped."""


class Listener(Protocol):
    """Who watches."""

    def out(self, *lines: str) -> None:
        """Show some lines."""

    async def drain(self) -> None:
        """Wait until most was shown; raises ``StreamError``."""

    async def gone(self) -> None:
        """Return, or raise ``StreamError``, when nobody watches any more."""


class Narration:
    """One letter's lines on their way to one listener."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._dropped = 0
        self._stirred = asyncio.Event()

    def say(self, line: str) -> None:
        """Take a line (a ``mail.outcome.Say``)."""
        if len(self._lines) >= LINES_MAX:
            self._dropped += 1
        else:
            self._lines.append(line)
            self._stirred.set()

    async def tell(self, listener: Listener, finished: Awaitable[None]) -> None:
        """Pass lines on until all is told or the listener has gone."""
        end = asyncio.ensure_future(finished)
        gone = asyncio.ensure_future(listener.gone())
        telling = asyncio.ensure_future(self._tell(listener, end))
        try:
            await asyncio.wait({telling, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            # ``end`` may be watched by others and is left alone.
            for task in (gone, telling):
                task.cancel()
            await asyncio.gather(gone, telling, return_exceptions=True)

    async def _tell(self, listener: Listener, end: asyncio.Future[None]) -> None:
        end.add_done_callback(self._end)
        try:
            while True:
                await self._stirred.wait()
                self._stirred.clear()
                is_last = end.done()
                if self._lines:
                    listener.out(*self._take())
                    await listener.drain()
                if is_last:
                    return
        except StreamError:
            pass  # nobody listens any more; the letter is safe
        finally:
            end.remove_done_callback(self._end)

    def _take(self) -> list[str]:
        lines, self._lines = self._lines, []
        if self._dropped:
            lines.append(f"... {self._dropped} lines are not shown")
            self._dropped = 0
        return lines

    def _end(self, end: asyncio.Future[None]) -> None:
        self._stirred.set()
