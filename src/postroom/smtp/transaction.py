"""One mail transaction of a client: what is to be sent, and what became of it.

Every recipient gets exactly one result, whatever the peer does and whenever it stops
doing it: the reply that decided, or None when nothing did.
"""

from typing import NamedTuple

import msgspec

from postroom.mail.address import Address, AddressError
from postroom.mail.reply import Reply
from postroom.smtp.dialogue import Verb
from postroom.smtp.extensions import Extensions

KEPT_LINES_MAX = 20
"""Lines that are kept of a reply about one recipient."""
KEPT_CHARS_MAX = 512
"""Characters that are kept of each; RFC 5321 §4.5.3.1.5 allows no more."""


class Wish(NamedTuple):
    """What one recipient's RCPT asks of reports (RFC 3461 §4.1, §4.2); empty: nothing.

    Both are as on the wire, ``orcpt`` in xtext.
    """

    notify: str = ""
    orcpt: str = ""


class Transaction(msgspec.Struct, frozen=True):
    """What a transaction announces. The content follows when the server wants it.

    ``size_octets`` is the size of the content in CRLF form without doubled dots, 0 if
    unknown; ``eight_bit`` says that it has octets outside ASCII. ``ret``, ``envid``
    and ``wishes`` (one per recipient, or none at all) are said to servers that offer
    DSN; others are not told of them (RFC 3461 §5.2.2).
    """

    sender: Address
    recipients: tuple[Address, ...]
    size_octets: int = 0
    eight_bit: bool = False
    ret: str = ""
    envid: str = ""
    wishes: tuple[Wish, ...] = ()


class TransactionDone(msgspec.Struct, frozen=True):
    """A transaction is over; transactions end in the order in which they were given.

    ``results`` has the reply that decided about each recipient: a refusal of MAIL, of
    its RCPT, of DATA, or the reply to the content; None if the connection ended
    before one came, so that it is unknown whether the message was taken. ``verbs``
    names the command each of them answers (None with None).
    """

    number: int
    results: tuple[Reply | None, ...]
    verbs: tuple[Verb | None, ...]


_UTF8 = Reply.of(553, "5.6.7", "Address outside ASCII cannot be sent to this server")
_BAD = Reply.of(553, "5.1.3", "Address cannot be written in SMTP")


class Progress:
    """The results of one transaction as replies come in."""

    __slots__ = (
        "_results",
        "_verbs",
        "accepted",
        "finished",
        "mail_refused",
        "number",
        "outstanding",
        "value",
    )

    def __init__(self, number: int, value: Transaction) -> None:
        self.number = number
        self.value = value
        self.accepted: list[int] = []  # recipients whose fate the content decides
        self.mail_refused = False
        self.outstanding = 0  # replies that are out
        self.finished = False
        count = len(value.recipients)
        self._results: list[Reply | None] = [None] * count
        self._verbs: list[Verb | None] = [None] * count

    def sendable(self) -> list[int]:
        """Decide what cannot even be said; return the recipients that can."""
        objection = _unsayable(self.value.sender)
        if objection:
            self.decide_rest(objection, Verb.MAIL)
            return []
        rest = []
        for i, address in enumerate(self.value.recipients):
            objection = _unsayable(address)
            if objection:
                self._decide(i, objection, Verb.RCPT)
            else:
                rest.append(i)
        return rest

    def mail(self, reply: Reply) -> None:
        """Take the reply to MAIL; a refusal decides about all."""
        if reply.code // 100 != 2:
            self.mail_refused = True
            self.decide_rest(reply, Verb.MAIL)

    def rcpt(self, index: int, reply: Reply) -> None:
        """Take the reply to one RCPT."""
        if reply.code // 100 == 2:
            assert not self.mail_refused, "the table has no such row"
            self.accepted.append(index)
        else:
            self._decide(index, _bounded(reply), Verb.RCPT)

    def content(self, index: int, reply: Reply) -> None:
        """Take the LMTP reply for one recipient."""
        self._decide(index, _bounded(reply), Verb.CONTENT)

    def decide_rest(self, reply: Reply, verb: Verb) -> None:
        """Let this reply decide about every recipient that is still open."""
        for index in range(len(self._results)):
            self._decide(index, reply, verb)

    def done(self) -> TransactionDone:
        """Return what became of it."""
        return TransactionDone(self.number, tuple(self._results), tuple(self._verbs))

    def _decide(self, index: int, reply: Reply, verb: Verb) -> None:
        if self._results[index] is None:
            self._results[index] = reply
            self._verbs[index] = verb


def _bounded(reply: Reply) -> Reply:
    """Cut a reply that one recipient got: a thousand have one each, in memory."""
    lines = reply.lines
    if len(lines) == 1 and len(lines[0]) <= KEPT_CHARS_MAX:
        return reply
    kept = tuple([line[:KEPT_CHARS_MAX] for line in lines[:KEPT_LINES_MAX]])
    return Reply(reply.code, reply.status, kept)


def _unsayable(address: Address) -> Reply | None:
    """Why an address cannot leave; one made by hand must not forge a command."""
    if not address.is_ascii:  # RFC 6531 §3.2: not without SMTPUTF8
        return _UTF8
    try:
        Address.from_text(address.to_text())
    except AddressError:
        return _BAD
    return None


def mail_line(transaction: Transaction, offered: Extensions) -> str:
    """Write MAIL with what the server offered to understand (RFC 5321 §4.1.1.2)."""
    line = f"MAIL From:<{transaction.sender.to_text()}>"
    if transaction.size_octets and offered.size:  # RFC 1870 §5
        line += f" SIZE={transaction.size_octets}"
    if transaction.eight_bit and offered.eight_bit_mime:  # RFC 6152 §3
        line += " BODY=8BITMIME"
    if transaction.ret and offered.dsn:  # RFC 3461 §5.2.1 (b)
        line += f" RET={transaction.ret}"
    if transaction.envid and offered.dsn:  # RFC 3461 §5.2.1 (a)
        line += f" ENVID={transaction.envid}"
    return line


def rcpt_line(transaction: Transaction, place: int, offered: Extensions) -> str:
    """Write the RCPT of one recipient (RFC 5321 §4.1.1.3)."""
    line = f"RCPT To:<{transaction.recipients[place].to_text()}>"
    if transaction.wishes and offered.dsn:
        wish = transaction.wishes[place]
        if wish.notify:  # RFC 3461 §5.2.1 (c)
            line += f" NOTIFY={wish.notify}"
        if wish.orcpt:  # RFC 3461 §5.2.1 (d)
            line += f" ORCPT={wish.orcpt}"
    return line
