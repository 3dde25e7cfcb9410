"""What the submission service needs of the rest: to judge, to keep, to look up.

A letter that a local program hands in goes through ``Submitter`` and ``Draft`` as one
that came by SMTP goes through a session: sender, recipients, content, one answer. The
other things that ``sendmail`` is called for are ``Errands``.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple, Protocol

import msgspec

from postroom.mail.address import Address
from postroom.mail.envelope import Envelope, Origin, Recipient
from postroom.mail.ids import QueueId
from postroom.mail.outcome import Say
from postroom.services.answer import Answer
from postroom.services.queue_run import QueueSelection
from postroom.services.reception import Conversation


class Refused(msgspec.Struct, frozen=True, gc=False):
    """Not taken. ``status`` is an enhanced code (4: for now), ``text`` says why."""

    status: str
    text: str


class Submitted(msgspec.Struct, frozen=True):
    """The letter is durable.

    ``finished`` is done when every recipient was tried once, or nothing more will be
    said; None if nobody asked to listen.
    """

    queue_id: QueueId
    finished: Awaitable[None] | None = None


class Draft(Protocol):
    """One letter on its way in; whoever began it must call ``abandon`` at the end."""

    async def add_recipient(self, recipient: Recipient) -> Refused | None:
        """Judge a recipient; None: it is taken."""

    async def open(self) -> QueueId:
        """Wait until there is room for the content; return the id it will have."""

    async def add(self, data: bytes) -> None:
        """Take a piece of the content, in canonical form. Too much is no error yet."""

    async def finish(self, say: Say | None) -> Submitted | Refused:
        """Judge and keep the whole; returns after the commit. ``say`` is told more."""

    async def abandon(self) -> None:
        """Give back what is held. After ``finish`` the letter itself stays."""


class Submitter(Protocol):
    """Takes letters."""

    async def begin(self, envelope: Envelope) -> Draft | Refused:
        """Judge the sender; ``envelope.recipients`` is still empty."""


class Errands(NamedTuple):
    """The other things that ``sendmail`` is called for.

    ``mailq(verbose, user, selection)`` yields the lines of the queue as this user may
    see it; ``newaliases()`` reads the alias tables anew; ``run_queue(selection,
    user)`` has messages tried, quarantined or let go; ``verify(address, verbose)``
    says where mail for an address would go; ``converse`` runs an SMTP session to its
    end.
    """

    mailq: Callable[[bool, str, QueueSelection], AsyncIterator[str]]
    newaliases: Callable[[], Awaitable[Answer]]
    run_queue: Callable[[QueueSelection, str], Awaitable[Answer]]
    verify: Callable[[Address, bool], Awaitable[Answer]]
    converse: Callable[[Conversation, Origin], Awaitable[None]]
