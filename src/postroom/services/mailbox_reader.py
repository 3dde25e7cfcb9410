"""Reading a mailbox for a session on the loop: in threads, and ahead of the client.

A client that fetches one message after another finds the next ones read already: while
it is served from what is ready, the next batch is read in one call to a thread. A batch
grows while the client goes on in order, up to the bounds of the settings; a session
that fetches a single message reads little more than that. One call is in flight at a
time, so the session's files are never touched by two threads.
"""

from asyncio import Future, Task, create_task, get_running_loop, shield, wait
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import Executor
from typing import Any, TypeVar

from postroom.mailbox.store import Session
from postroom.pop3.settings import Pop3Settings

T = TypeVar("T")


class MailboxReader:
    """Reads one open mailbox.

    Args:
        session: the mailbox; it belongs to the reader from then on.
        pool: threads that may wait for the disk.
        settings: how far to read ahead.
    """

    def __init__(
        self, session: Session, pool: Executor, settings: Pop3Settings
    ) -> None:
        self._session = session
        self._pool = pool
        self._messages_max = settings.read_ahead_messages
        self._octets_max = int(settings.read_ahead_octets)
        self._ready: dict[int, bytes | None] = {}
        self._fetching: Future[list[bytes | None]] | None = None
        self._busy: Future[Any] | None = None
        self._closing: Task[None] | None = None
        self._first = self._end = 0
        self._batch = 1
        self._expected = 0

    @property
    def sizes(self) -> Sequence[int]:
        """Octets of each message in CRLF form."""
        return self._session.sizes

    @property
    def uids(self) -> Sequence[str]:
        """The unique id of each message."""
        return self._session.uids

    def is_large(self, index: int) -> bool:
        """Whether a message is to be read in pieces."""
        return self._session.sizes[index] > self._octets_max

    async def whole(self, index: int) -> bytes | None:
        """Return a message that is not large; None if it cannot be read."""
        if index != self._expected:
            self._batch = 1
        self._expected = index + 1
        while index not in self._ready:
            if self._fetching is None:
                self._ready.clear()
                self._fetch(index)
            await self._fetched()
        content = self._ready.pop(index)
        if len(self._ready) <= self._batch // 2 and self._fetching is None:
            self._fetch_next()
        return content

    async def pieces(self, index: int) -> AsyncGenerator[bytes, None]:
        """Yield a message in CRLF form.

        Raises:
            OSError: at any step: it is gone, or cannot be read.
        """
        await self._fetched()
        pieces = self._session.pieces(index)
        try:
            while (piece := await self._run(next, pieces, None)) is not None:
                yield piece
        finally:
            await self._run(getattr(pieces, "close", int))

    async def remove(self, indexes: Sequence[int]) -> int:
        """Delete messages for good; returns how many could not be deleted."""
        await self._fetched()
        return await self._run(self._session.remove, indexes) if indexes else 0

    async def aclose(self) -> None:
        """Give the mailbox free, even if who waits for that is cancelled."""
        if self._closing is None:
            self._closing = create_task(self._close())
        await shield(self._closing)

    async def _close(self) -> None:
        try:
            await self._fetched()
        finally:
            await self._run(self._session.close)

    def _fetch_next(self) -> None:
        """Read on where the last batch ended, if the client goes that way."""
        end = self._end
        is_near = self._expected <= end <= self._expected + len(self._ready)
        if is_near and end < len(self._session.sizes) and not self.is_large(end):
            self._fetch(end)

    def _fetch(self, first: int) -> None:
        self._batch = min(self._batch * 2, self._messages_max)
        self._first = first
        self._fetching = get_running_loop().run_in_executor(
            self._pool, self._session.read, first, self._batch, self._octets_max
        )

    async def _fetched(self) -> None:
        """Wait for the call in flight, if there is one, and keep what it read."""
        fetching = self._fetching
        if fetching is None:
            return
        if not fetching.done():
            await wait((fetching,))  # who waits may be cancelled; the call goes on
        self._fetching = None
        contents = fetching.result()
        self._end = self._first + len(contents)
        self._ready.update(enumerate(contents, self._first))

    async def _run(self, function: Callable[..., T], *args: object) -> T:
        if self._busy is not None and not self._busy.done():
            await wait((self._busy,))  # its caller was cancelled
        loop = get_running_loop()
        running = loop.run_in_executor(self._pool, function, *args)
        self._busy = running
        await wait((running,))
        return running.result()
