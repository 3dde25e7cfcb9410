"""A binary message made text, for mailboxes: they keep lines, which octets are not.

What was taken with BODY=BINARYMIME (RFC 3030 §3) may hold CR, LF and NUL as data. In a
mailbox it is base64 or quoted-printable, so that each octet survives. A message that
cannot be converted without loss fails, with 5.6.3.
"""

import msgspec

from postroom.agents.content import pieces_of, plan_for
from postroom.mail.envelope import BodyType
from postroom.mail.headers import edited_header
from postroom.mail.message import Body, MemoryBody, Message
from postroom.mail.outcome import Attempt, Failed
from postroom.render.demand import Demand
from postroom.render.plan import Plan, Unconvertible

_TEXT = Demand(was_binary=True)


class Converted:
    """The body of a message as its plan makes it, read from the front."""

    def __init__(self, body: Body, plan: Plan, size: int) -> None:
        self._body = body
        self._plan = plan
        self._size = size
        self._pieces = pieces_of(body, plan)
        self._at = 0

    @property
    def size(self) -> int:
        """Length in octets."""
        return self._size

    async def read(self, offset: int, octets: int) -> bytes:
        """Return what follows, or what there is at 0; each piece as it comes.

        Raises:
            OSError: the stored body cannot be read.
        """
        if offset == 0:
            self._pieces, self._at = pieces_of(self._body, self._plan), 0
        assert offset == self._at, "a conversion is read from the front"
        piece = await anext(self._pieces, b"")
        self._at += len(piece)
        return piece


async def as_text(
    attempt: Attempt, by: str, memory_octets_max: int
) -> Attempt | Failed:
    """Return the attempt with its message as text, if it is binary.

    Args:
        attempt: what is to be delivered.
        by: who converts: host and queue id.
        memory_octets_max: up to this size the message is converted at once.

    Raises:
        OSError: the stored body cannot be read.
    """
    if attempt.envelope.body is not BodyType.BINARY:
        return attempt
    message = attempt.message
    separator = b"\r\n" * message.has_separator
    plan = await plan_for(message, edited_header(message) + separator, _TEXT, by)
    if plan is None:
        return attempt
    if isinstance(plan, Unconvertible):
        return Failed("5.6.3", f"{plan.reason}; mailboxes take no binary content")
    body = await _converted(message.body, plan, memory_octets_max)
    head = plan.head.removesuffix(separator)
    text = Message(head, body, has_separator=message.has_separator)
    return msgspec.structs.replace(attempt, message=text)


async def _converted(body: Body, plan: Plan, memory_octets_max: int) -> Body:
    pieces: list[bytes] = []
    size = 0
    async for piece in pieces_of(body, plan):
        size += len(piece)
        if size <= memory_octets_max:
            pieces.append(piece)
        else:
            pieces.clear()
    if size <= memory_octets_max:
        return MemoryBody(b"".join(pieces))
    return Converted(body, plan, size)
