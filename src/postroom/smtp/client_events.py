"""What a client connection tells its caller: replies, wishes, ends. Values only."""

import msgspec

from postroom.mail.reply import Reply
from postroom.smtp.dialogue import Verb
from postroom.smtp.extensions import Extensions
from postroom.smtp.transaction import TransactionDone


class Greeting(msgspec.Struct, frozen=True):
    """The server's first reply; after 220 a hello is due, otherwise only ``quit``."""

    reply: Reply


class HelloDone(msgspec.Struct, frozen=True):
    """The reply to EHLO or LHLO, or to the HELO that followed a refused EHLO."""

    reply: Reply
    extensions: Extensions


class BodyWanted(msgspec.Struct, frozen=True):
    """A recipient is accepted, and 354 came if it was asked for: send the content."""

    number: int


class Answered(msgspec.Struct, frozen=True):
    """The reply to RSET, NOOP, QUIT, STARTTLS or AUTH; 334 calls for ``respond``."""

    verb: Verb
    reply: Reply


class Line(msgspec.Struct, frozen=True):
    """A line of the dialogue for a person, only with ``narrate``.

    Verbatim apart from control characters, which become question marks, and secrets,
    which become stars.
    """

    text: str
    outgoing: bool


class ProtocolError(msgspec.Struct, frozen=True):
    """The server talks nonsense; ``text`` says how. ``LostConnection`` follows."""

    text: str


class LostConnection(msgspec.Struct, frozen=True):
    """The dialogue is over; close the connection. ``reply`` is the server's 421."""

    reason: str
    reply: Reply | None = None


ClientEvent = (
    Greeting
    | HelloDone
    | BodyWanted
    | TransactionDone
    | Answered
    | Line
    | ProtocolError
    | LostConnection
)
