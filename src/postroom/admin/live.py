"""The shards that one live worker holds, asked over its control socket.

``RequestRefused`` and ``WorkerGone`` pass through: the whole queue notes them.
"""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from postroom.admin.client import ask, ask_stream
from postroom.admin.requests import (
    Counted,
    GivenUp,
    HopNow,
    LetterPart,
    Letters,
    Ordered,
    QueueCounts,
    Recipients,
)
from postroom.spool.selection import QueueFilter
from postroom.spool.shape import Shape
from postroom.spool.spool import Entry, EntryRecipient, Handled


class LiveShards:
    """What one worker answers; see ``whole.Source`` for the methods."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def shards_there(self) -> Sequence[int]:
        """Return the shards that lie in the spool, held by whomever."""
        return await ask(self._path, "queue.shards_there", {}, int)

    def entries(self, wanted: QueueFilter) -> AsyncIterator[Entry]:
        """Yield matching entries, oldest first."""
        return ask_stream(self._path, "queue.list", wanted, Entry)

    def count(self, wanted: QueueFilter) -> AsyncIterator[Counted]:
        """Count matching entries; yields what each page adds."""
        return ask_stream(self._path, "queue.count", wanted, Counted)

    def recipients(self, queue_id: str, after: int) -> AsyncIterator[EntryRecipient]:
        """Yield the recipients of a message behind number ``after``."""
        asked = Recipients(queue_id, after)
        return ask_stream(self._path, "queue.recipients", asked, EntryRecipient)

    def letters(self, asked: Letters) -> AsyncIterator[LetterPart]:
        """Yield matching messages whole."""
        kind: type[LetterPart] = LetterPart  # type: ignore[assignment]
        return ask_stream(self._path, "queue.letters", asked, kind)

    def carry_out(self, ordered: Ordered) -> AsyncIterator[Handled]:
        """Do what is ordered; yields what was done."""
        return ask_stream(self._path, "queue.order", ordered, Handled)

    def give_up(self, given_up: GivenUp) -> AsyncIterator[Handled]:
        """Return matching recipients to their senders; yields what was done."""
        return ask_stream(self._path, "queue.bounce", given_up, Handled)

    async def counts(self) -> QueueCounts:
        """Return counts by name."""
        total = QueueCounts()
        for part in await ask(self._path, "queue.stat", {}, QueueCounts):
            total += part
        return total

    async def shape(self) -> Shape:
        """Count what waits by destination, age and sender."""
        total = Shape()
        for part in await ask(self._path, "queue.shape", {}, Shape):
            total += part
        return total

    async def hop_now(self, hop: str) -> HopNow | None:
        """Return how the worker gets on with a destination."""
        found = await ask(self._path, "queue.hop", hop, HopNow)
        return found[0] if found else None
