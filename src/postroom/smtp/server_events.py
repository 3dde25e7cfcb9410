"""What the server's side of a session tells: all that can come of a client's octets."""

from typing import ClassVar

import msgspec

from postroom.mail.reply import Reply
from postroom.smtp.commands import AuthResponse, Command, Refused
from postroom.smtp.data import Problem
from postroom.smtp.dialogue import Verb


class Chunk(msgspec.Struct, frozen=True, gc=False):
    """A piece of the content in canonical form: dots removed, lines ended by CRLF."""

    data: bytes


class BdatStart(msgspec.Struct, frozen=True, gc=False):
    """The first chunk of a message begins (RFC 3030). Nothing is owed.

    ``Chunk`` events follow, and an ``EndOfChunk``, or ``EndOfData`` for the last.
    """


class EndOfChunk(msgspec.Struct, frozen=True, gc=False):
    """A chunk that is not the last has come; owed is one reply (RFC 3030 §2).

    ``size_octets`` is how long it was. With ``refusal`` the message cannot be taken
    any more: throw away what came and answer with it. What is answered by a refusal
    spoils the message for all chunks that follow.
    """

    verb: ClassVar[Verb] = Verb.BDAT
    size_octets: int
    refusal: Reply | None = None


class EndOfData(msgspec.Struct, frozen=True, gc=False):
    """The content has ended; owed is one reply, in LMTP one per accepted recipient.

    Where the client asked for PRDR, 353 may be given instead, with a reply for each
    recipient and one for all behind it (draft-hall-prdr-00 §4.5).

    ``size_octets`` counts the canonical content, also of what was swallowed. With a
    ``problem`` the chunks so far are not the whole: throw them away and answer with
    ``refusal`` (for every recipient).
    """

    verb: ClassVar[Verb] = Verb.CONTENT
    size_octets: int
    problem: Problem | None = None
    refusal: Reply | None = None


class TooManyErrors(msgspec.Struct, frozen=True, gc=False):
    """The client was told 421 for its many errors, or for not speaking SMTP at all.

    Nothing is owed; write what is to be sent, then close.
    """

    verb: str
    argument: str
    reply: Reply
    rule: str


class Closed(msgspec.Struct, frozen=True, gc=False):
    """No event will follow: close the connection after writing what is to be sent.

    ``by_peer`` tells that the client went without QUIT, perhaps amid a message.
    """

    by_peer: bool


Event = (
    Command
    | AuthResponse
    | BdatStart
    | Chunk
    | EndOfChunk
    | EndOfData
    | Refused
    | TooManyErrors
    | Closed
)
"""Everything that can happen; ``match`` on it."""
