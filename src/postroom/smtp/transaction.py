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

    ``chunked`` sends it in chunks where CHUNKING is offered (RFC 3030). ``binary``
    says that it may be any octets, ``utf8`` that its header holds UTF-8 (RFC 6531),
    ``requiretls`` that it must go over TLS all the way (RFC 8689): servers that do not
    offer BINARYMIME, SMTPUTF8 or REQUIRETLS do not get it. ``by`` is the BY value as
    it is at this moment (RFC 2852); with mode R the server must offer DELIVERBY.
    ``priority`` is said as MT-PRIORITY where that is offered (RFC 6710 §4.3); 0 is
    what every message has without it.
    """

    sender: Address
    recipients: tuple[Address, ...]
    size_octets: int = 0
    eight_bit: bool = False
    ret: str = ""
    envid: str = ""
    wishes: tuple[Wish, ...] = ()
    chunked: bool = False
    binary: bool = False
    utf8: bool = False
    requiretls: bool = False
    by: str = ""
    priority: int = 0


class TransactionDone(msgspec.Struct, frozen=True):
    """A transaction is over; transactions end in the order in which they were given.

    ``results`` has the reply that decided about each recipient: a refusal of MAIL, of
    its RCPT, of DATA, or the reply to the content; None if the connection ended
    before one came, so that it is unknown whether the message was taken. ``verbs``
    names the command each of them answers; None with a reply says that it is our own
    and the server was not asked.
    """

    number: int
    results: tuple[Reply | None, ...]
    verbs: tuple[Verb | None, ...]


_UTF8 = Reply.of(
    553, "5.6.7", "Address outside ASCII cannot be sent to a host without SMTPUTF8"
)
_UTF8_HEADER = Reply.of(
    554, "5.6.7", "Header outside ASCII cannot be sent to a host without SMTPUTF8"
)
_BAD = Reply.of(553, "5.1.3", "Address cannot be written in SMTP")
_BINARY = Reply.of(
    554, "5.6.1", "Binary content cannot be sent to a host without BINARYMIME"
)
_REQUIRETLS = Reply.of(554, "5.7.30", "REQUIRETLS support required")
_NO_DELIVERBY = Reply.of(
    554, "5.3.3", "Message must be delivered in time; the host has no DELIVERBY"
)
_BY_TOO_SHORT = Reply.of(
    554, "5.3.3", "Message must be delivered sooner than the host promises"
)
_TOO_MANY = Reply.of(452, "4.5.3", "More than the host takes in one transaction")


class Progress:
    """The results of one transaction as replies come in."""

    __slots__ = (
        "_results",
        "_verbs",
        "_verdicts",
        "accepted",
        "asks_verdicts",
        "chunk_refused",
        "finished",
        "mail_refused",
        "needs_utf8",
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
        self.asks_verdicts = False  # with PRDR
        self.chunk_refused = False
        self.needs_utf8 = False  # and not only allowed (RFC 6531 §3.4)
        self.finished = False
        count = len(value.recipients)
        self._results: list[Reply | None] = [None] * count
        self._verbs: list[Verb | None] = [None] * count
        self._verdicts: dict[int, Reply] = {}

    def sendable(self, offered: Extensions) -> list[int]:
        """Decide what cannot be sent to this server; return the recipients that can."""
        objection = _objection(self.value, offered)
        if objection:
            self.decide_rest(objection, None)
            return []
        rest = []
        self.needs_utf8 = self.value.utf8 or not self.value.sender.is_ascii
        for i, address in enumerate(self.value.recipients):
            if address.is_ascii:
                objection = _malformed(address)
            else:
                self.needs_utf8 = True
                objection = _malformed(address) if offered.smtputf8 else _UTF8
            if objection:
                self._decide(i, objection, None)
            else:
                rest.append(i)
        if "LIMITS" in offered.keywords:
            rest = self._within_limits(rest, offered)
        return rest

    def _within_limits(self, places: list[int], offered: Extensions) -> list[int]:
        """Leave out those that are too many for one transaction (RFC 9422 §4)."""
        recipients = self.value.recipients
        most = offered.recipients_max or len(places)
        domains_max = offered.recipient_domains_max or len(places)
        domains: set[str] = set()
        rest: list[int] = []
        for i in places:
            key = recipients[i].domain_key
            known = key in domains
            if len(rest) < most and (known or len(domains) < domains_max):
                domains.add(key)
                rest.append(i)
            else:
                self._decide(i, _TOO_MANY, None)
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

    def verdict(self, index: int, reply: Reply) -> None:
        """Take what PRDR says of one recipient; a good word waits for the last one."""
        if reply.code // 100 == 2:
            self._verdicts[index] = _bounded(reply)
        else:
            self.content(index, reply)

    def final(self, reply: Reply) -> None:
        """Take the reply to the content as a whole; with PRDR the last one."""
        if self._verdicts and reply.code // 100 == 2:
            for index, verdict in self._verdicts.items():
                self.content(index, verdict)
        self.decide_rest(reply, Verb.CONTENT)

    def decide_rest(self, reply: Reply, verb: Verb | None) -> None:
        """Let this reply decide about every recipient that is still open."""
        for index in range(len(self._results)):
            self._decide(index, reply, verb)

    def done(self) -> TransactionDone:
        """Return what became of it."""
        return TransactionDone(self.number, tuple(self._results), tuple(self._verbs))

    def _decide(self, index: int, reply: Reply, verb: Verb | None) -> None:
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


def _objection(value: Transaction, offered: Extensions) -> Reply | None:
    """Why none of the recipients can be served by a server that offers this."""
    if value.requiretls and not offered.requiretls:  # RFC 8689 §4.2.1
        return _REQUIRETLS
    if value.binary and not offered.binary_mime:  # RFC 3030 §3
        return _BINARY
    if value.utf8 and not offered.smtputf8:  # RFC 6531 §3.5
        return _UTF8_HEADER
    if value.by and _is_return(value.by):  # RFC 2852 §4.1.4.1
        if not offered.deliver_by:
            return _NO_DELIVERBY
        if offered.deliver_by_s_min > int(value.by.partition(";")[0]):
            return _BY_TOO_SHORT
    if not (value.sender.is_ascii or offered.smtputf8):  # RFC 6531 §3.2
        return _UTF8
    return _malformed(value.sender)


def _is_return(by: str) -> bool:
    return by.partition(";")[2][:1].upper() == "R"


def _malformed(address: Address) -> Reply | None:
    """Why an address cannot leave; one made by hand must not forge a command."""
    try:
        Address.from_text(address.to_text())
    except AddressError:
        return _BAD
    return None


def mail_line(
    transaction: Transaction,
    offered: Extensions,
    *,
    utf8: bool = False,
    asks_verdicts: bool = False,
) -> str:
    """Write MAIL with what the server offered to understand (RFC 5321 §4.1.1.2).

    ``utf8`` says that SMTPUTF8 is needed, ``asks_verdicts`` asks for a reply per
    recipient after the content.
    """
    line = f"MAIL From:<{transaction.sender.to_text()}>"
    if transaction.size_octets and offered.size:  # RFC 1870 §5
        line += f" SIZE={transaction.size_octets}"
    if transaction.binary:  # RFC 3030 §3
        line += " BODY=BINARYMIME"
    elif transaction.eight_bit and offered.eight_bit_mime:  # RFC 6152 §3
        line += " BODY=8BITMIME"
    if transaction.ret and offered.dsn:  # RFC 3461 §5.2.1 (b)
        line += f" RET={transaction.ret}"
    if transaction.envid and offered.dsn:  # RFC 3461 §5.2.1 (a)
        line += f" ENVID={transaction.envid}"
    if utf8 and offered.smtputf8:  # RFC 6531 §3.4
        line += " SMTPUTF8"
    if transaction.requiretls:  # RFC 8689 §4.2.1
        line += " REQUIRETLS"
    if transaction.by and offered.deliver_by:  # RFC 2852 §4.1.4
        line += f" BY={transaction.by}"
    if transaction.priority and offered.mt_priority:  # RFC 6710 §4.2
        line += f" MT-PRIORITY={transaction.priority}"
    if asks_verdicts:  # draft-hall-prdr-00 §4.2
        line += " PRDR"
    return line


def _with_delay(notify: str) -> str:
    """Ask to be told of delays where BY cannot be said (RFC 2852 §4.1.4.2)."""
    if not notify:
        return "FAILURE,DELAY"
    upper = notify.upper()
    return notify if "NEVER" in upper or "DELAY" in upper else f"{notify},DELAY"


def rcpt_line(transaction: Transaction, place: int, offered: Extensions) -> str:
    """Write the RCPT of one recipient (RFC 5321 §4.1.1.3)."""
    line = f"RCPT To:<{transaction.recipients[place].to_text()}>"
    if (transaction.wishes or transaction.by) and offered.dsn:
        wish = transaction.wishes[place] if transaction.wishes else Wish()
        notify = wish.notify
        if transaction.by and not offered.deliver_by:
            notify = _with_delay(notify)
        if notify:  # RFC 3461 §5.2.1 (c)
            line += f" NOTIFY={notify}"
        # RFC 6533 §4: outside ASCII only in a transaction with SMTPUTF8
        if wish.orcpt.isascii() and wish.orcpt:  # RFC 3461 §5.2.1 (d)
            line += f" ORCPT={wish.orcpt}"
    return line
