"""One attempt's work for one connection: what is sent, and where the answer goes."""

import asyncio
from collections.abc import Sequence

from postroom.dns.names import to_ascii
from postroom.mail.address import Address, AddressError
from postroom.mail.envelope import BodyType, Recipient, said_orcpt
from postroom.mail.headers import edited_header
from postroom.mail.message import Body
from postroom.mail.outcome import Attempt, Outcome
from postroom.mail.trace import delivered_to_field
from postroom.smtp.transaction import Transaction, Wish

CHUNKED_FROM_OCTETS = 64 * 1024
"""Larger content goes in chunks where that is offered: a host may then refuse it after
the first of them. For letters DATA does as well, and nothing of them is sent before the
host has asked for it."""


class Job:
    """Recipients of one attempt that go in one transaction.

    Attributes:
        attempt: what it belongs to.
        hop: the routed name, for opening a connection.
        transaction: the envelope as the client core wants it.
        head: header block with its separator, edits applied.
        body: the rest of the content.
        done: one outcome per recipient, in order.
        began: whether the content has begun to be sent; until then it may be given
            to another connection.
        moves: how often it was given to another connection.
    """

    __slots__ = (
        "attempt",
        "began",
        "body",
        "done",
        "head",
        "hop",
        "moves",
        "transaction",
    )

    def __init__(
        self,
        attempt: Attempt,
        recipients: Sequence[Recipient],
        done: "asyncio.Future[list[Outcome]]",
        *,
        requiretls: bool = False,
    ) -> None:
        message, envelope = attempt.message, attempt.envelope
        head = edited_header(message)
        if recipients[0].orcpt:
            head = _mark(recipients) + head
        if message.has_separator:
            head += b"\r\n"
        self.attempt = attempt
        self.hop = attempt.route.hop
        self.head = head
        self.body: Body = message.body
        size = len(head) + self.body.size
        sender = envelope.sender
        addresses = [recipient.address for recipient in recipients]
        self.transaction = Transaction(
            sender if sender.is_ascii else _in_ascii(sender),
            tuple([one if one.is_ascii else _in_ascii(one) for one in addresses]),
            size,
            envelope.body is BodyType.EIGHT_BIT,
            envelope.ret,
            envelope.envid,
            _wishes(recipients),
            size > CHUNKED_FROM_OCTETS,
            envelope.body is BodyType.BINARY,
            # RFC 6531 §3.4: not because it once was said, but because it is needed
            envelope.smtputf8 and not head.isascii(),
            requiretls,
            priority=envelope.priority,
        )
        self.done = done
        self.began = False
        self.moves = 0

    def settle(self, outcomes: list[Outcome]) -> None:
        """Give the answer, unless nobody waits for it any more."""
        if not self.done.done():
            self.done.set_result(outcomes)

    def settle_all(self, outcome: Outcome) -> None:
        """Give every recipient the same answer."""
        self.settle([outcome] * len(self.transaction.recipients))

    def fail(self, error: Exception) -> None:
        """Pass on a fault of ours: the stored body cannot be read, or a bug."""
        if not self.done.done():
            self.done.set_exception(error)


def _in_ascii(address: Address) -> Address:
    """Write a domain in A-labels where that is all it takes to do without SMTPUTF8."""
    if not address.local.isascii():
        return address
    domain = to_ascii(address.domain)
    return Address(address.local, domain) if domain is not None else address


def _wishes(recipients: Sequence[Recipient]) -> tuple[Wish, ...]:
    """Return what each recipient asks of reports; empty if none asks for anything."""
    for recipient in recipients:
        if recipient.notify or recipient.orcpt:
            break
    else:
        return ()
    return tuple([_wish(recipient) for recipient in recipients])


def _wish(recipient: Recipient) -> Wish:
    if recipient.notify or recipient.orcpt:
        return Wish(recipient.notify, said_orcpt(recipient))
    return Wish()


def _mark(recipients: Sequence[Recipient]) -> bytes:
    """Return the field by which mail that an alias sent on is known if it comes back.

    Only if it is the same alias for all of this transaction; otherwise the count of
    hops must do.
    """
    aliases = {recipient.orcpt.partition(" ")[2] for recipient in recipients}
    alias = aliases.pop()
    if aliases or not alias:
        return b""
    try:
        return delivered_to_field(Address.from_text(alias))
    except AddressError:
        return b""
