"""Whole messages on their way to an operator, in pieces.

A message that cannot be read comes as it lies there, with the reason; one that went
meanwhile is left out.
"""

from collections.abc import AsyncIterator, Awaitable
from typing import Protocol

from postroom.admin.requests import (
    PIECE_OCTETS,
    Letter,
    LetterPart,
    Letters,
    Piece,
)
from postroom.mail.headers import edited_header
from postroom.mail.ids import QueueId
from postroom.mail.message import Body, MemoryBody, Message
from postroom.spool.kept import Kept
from postroom.spool.spool import Entry, SpoolError


class Shelf(Protocol):
    """Where messages are kept; every ``Spool`` is one, and offline shards are."""

    def kept(self, queue_id: QueueId) -> Awaitable[Kept | None]:
        """Return a message with its content."""

    def raw(self, queue_id: QueueId) -> Awaitable[Message | None]:
        """Return what lies there of a message."""


async def letter_parts(
    shelf: Shelf, entry: Entry, asked: Letters
) -> AsyncIterator[LetterPart]:
    """Yield one message: its beginning, then its body.

    Raises:
        SpoolError: not even what lies there can be read.
    """
    queue_id, problem = QueueId(entry.queue_id), ""
    kept: Kept | None = None
    try:
        kept = await shelf.kept(queue_id)
    except SpoolError as error:
        problem = str(error)
    if kept is not None and not asked.raw:
        message, head = kept.message, edited_header(kept.message)
    else:
        raw = await shelf.raw(queue_id)
        if raw is None and not problem:
            return  # it has gone
        message, head = raw or _NOTHING, (raw or _NOTHING).header
    if message.has_separator:
        head += b"\r\n"
    body = message.body
    size = 0 if asked.head_only else body.size
    envelope = kept.envelope if kept else None
    yield Letter(entry, envelope, head, size, problem)
    async for piece in _pieces(queue_id, body, size):
        yield piece


async def _pieces(queue_id: QueueId, body: Body, size: int) -> AsyncIterator[Piece]:
    sent = 0
    while sent < size:
        try:
            data = await body.read(sent, PIECE_OCTETS)
        except OSError as error:
            raise SpoolError(f"the body of {queue_id}: {error.strerror}") from error
        if not data:
            raise SpoolError(f"the body of {queue_id} is cut short")
        sent += len(data)
        yield Piece(data)


_NOTHING = Message(b"", MemoryBody(b""), (), has_separator=False)
