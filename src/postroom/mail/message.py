"""A message: the header block as received, edits to it, and a body read in pieces.

What was received is never rewritten. An edit is applied when the message leaves or
is looked at, by ``edited_header``.
"""

from typing import Protocol

import msgspec

CHUNK_OCTETS = 64 * 1024
"""How much of a body is read at a time."""


class Body(Protocol):
    """The content after the header block's empty line, in canonical CRLF form."""

    @property
    def size(self) -> int:
        """Length in octets."""

    async def read(self, offset: int, octets: int) -> bytes:
        """Return up to ``octets`` from ``offset``; fewer only at the end.

        Raises:
            OSError: the stored body cannot be read.
        """


class MemoryBody(msgspec.Struct, frozen=True):
    """A body small enough to be held in memory."""

    data: bytes

    @property
    def size(self) -> int:
        """Length in octets."""
        return len(self.data)

    async def read(self, offset: int, octets: int) -> bytes:
        """Return up to ``octets`` from ``offset``."""
        if offset == 0 and octets >= len(self.data):
            return self.data
        return self.data[offset : offset + octets]


class Prepend(msgspec.Struct, frozen=True, tag="prepend"):
    """Put a whole field, ended by CRLF, before all others (trace fields)."""

    field: bytes


class Add(msgspec.Struct, frozen=True, tag="add"):
    """Put a whole field, ended by CRLF, after all others."""

    field: bytes


class Remove(msgspec.Struct, frozen=True, tag="remove"):
    """Take away every field of this name; the case of the name does not matter."""

    name: str


class Replace(msgspec.Struct, frozen=True, tag="replace"):
    """Take away every field of this name and put ``field`` where the first stood."""

    name: str
    field: bytes


Edit = Prepend | Add | Remove | Replace


class Message(msgspec.Struct, frozen=True):
    """One message.

    ``header`` is the block as received, each field ended by CRLF, without the empty
    line that follows it. ``has_separator`` says whether that empty line was there; it
    is not when the content ended, or broke off into text, within the header.
    """

    header: bytes
    body: Body
    edits: tuple[Edit, ...] = ()
    has_separator: bool = True

    @property
    def size(self) -> int:
        """Octets as received: header, separator and body."""
        return len(self.header) + 2 * self.has_separator + self.body.size
