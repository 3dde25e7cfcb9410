"""Attempts and what came of them. An outcome is a value, never an exception."""

from collections.abc import Callable

import msgspec

from postroom.mail.envelope import Envelope
from postroom.mail.ids import QueueId
from postroom.mail.message import Message
from postroom.mail.now import Now
from postroom.mail.route import Route


class Delivered(msgspec.Struct, frozen=True, tag=True):
    """The recipient's mail is where it should be, or a next hop has taken it over.

    ``status`` is an enhanced code of class 2; ``text`` is what the peer or agent said,
    fit for a log; ``peer`` is ``"mx.example [192.0.2.1]"`` or empty; ``relayed`` says
    that another host answers for it from now on (RFC 3464 §2.3.3); ``reports`` says
    that it was told what the sender wants to hear (RFC 3461 §5.2.1), and tells it.
    ``tells`` says that the sender is to hear of it in any case but NOTIFY=NEVER
    (RFC 2852 §4.1.4).
    """

    status: str
    text: str
    peer: str = ""
    relayed: bool = False
    reports: bool = False
    tells: bool = False


class Deferred(msgspec.Struct, frozen=True, tag=True):
    """Not now; try again later. ``code`` is the reply's number, 0 without a reply.

    ``verb`` names the command that was answered so (``MAIL``, ``RCPT``, ``DATA``,
    ``CONTENT``), ``said`` are the lines of the reply as they came, for reports.
    ``hop_failed`` says that the fault lies with the destination (no connection, DNS,
    421), so that other mail for it should wait too.
    """

    status: str
    text: str
    peer: str = ""
    code: int = 0
    hop_failed: bool = False
    verb: str = ""
    said: tuple[str, ...] = ()


class Failed(msgspec.Struct, frozen=True, tag=True):
    """Never. The sender is to be told. ``code``, ``verb`` and ``said`` are as above."""

    status: str
    text: str
    peer: str = ""
    code: int = 0
    verb: str = ""
    said: tuple[str, ...] = ()


Outcome = Delivered | Deferred | Failed

Say = Callable[[str], None]
"""Takes one line of a live dialogue for ``sendmail -v``; must not block."""


class Attempt(msgspec.Struct, frozen=True):
    """One try to hand one message to one hop.

    ``envelope.recipients`` are just those of this try, in the order in which outcomes
    are owed; ``numbers`` are their numbers within the message, stable over retries.
    ``say`` is where the dialogue is narrated, if someone listens. ``again`` says that
    it was tried before, so that an agent may look whether it already got through.
    ``grade`` tells how urgent it is; the smaller, the sooner it goes.
    """

    queue_id: QueueId
    envelope: Envelope
    numbers: tuple[int, ...]
    message: Message
    route: Route
    now: Now
    say: Say | None = None
    again: bool = False
    grade: int = 0
