"""Queues reports: who is told of what became of a message, and by which message.

The sender is told, of what it wanted to hear (RFC 3461 §4.1). If the message was a
report itself (null sender), a failure is told to the address for double bounces, and
all else to nobody. Such a double bounce carries a mark, and so does whatever comes of
it (aliases, lists, reports about it): if that fails with a null sender nobody is told.
The log has it, and the circle ends. The mark is in its header, too, for it may leave us
and come back: two postmasters whose aliases lead to each other would never rest.

No more reports leave for one address or domain than ``Ration`` allows.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from postroom.mail import dsn
from postroom.mail.address import Address
from postroom.mail.automatic import is_bulk
from postroom.mail.envelope import Envelope, Origin, Recipient, released_us
from postroom.mail.headers import edited_header, find
from postroom.mail.ids import QueueId
from postroom.mail.message import Message
from postroom.mail.now import Now
from postroom.mail.outcome import Delivered, Outcome
from postroom.mail.reported import (
    LAST_FIELD,
    Posting,
    RecipientResult,
    ReportedMessage,
    ReportKind,
)
from postroom.mail.reported import Reporter as ReportingHost
from postroom.observe.events import MessageQueued, ReportDropped, ReportQueued
from postroom.route.drive import drive
from postroom.schedule.retry import expires_us
from postroom.schedule.settings import RetrySettings
from postroom.services.lanes import lane_of
from postroom.services.ration import HeldBack, Ration
from postroom.services.report_settings import ReportSettings
from postroom.services.workshop import Workshop
from postroom.spool.spool import Lease, NewMessage, NewRecipient, RecipientState

LAST = Origin(protocol="report", listener="double bounce")
"""The origin of reports about reports, and of reports about those."""
REPORT = Origin(protocol="report")
"""The origin of all other reports."""

_CONDITIONS = {
    ReportKind.FAILED: "FAILURE",
    ReportKind.DELAYED: "DELAY",
    ReportKind.DELIVERED: "SUCCESS",
    ReportKind.RELAYED: "SUCCESS",
    ReportKind.EXPANDED: "SUCCESS",
}
_FOR_POSTMASTER = (
    "You get this report because the message it is about has no sender who could be "
    'told. "Your message" below means that message.'
)


class Reported(NamedTuple):
    """A recipient that somebody is to hear of."""

    recipient: Recipient
    outcome: Outcome


class _About(NamedTuple):
    """One report to be written."""

    kind: ReportKind
    to: Address
    reported: Sequence[Reported]
    note: str = ""


class Reporter:
    """Writes reports about the mail of one worker.

    Args:
        shop: what is worked with.
        retry: until when delivery is tried.
        settings: those of reports.
        ration: how many reports may leave for whom.
    """

    def __init__(
        self,
        shop: Workshop,
        retry: RetrySettings,
        settings: ReportSettings,
        ration: Ration,
    ) -> None:
        self._shop = shop
        self._retry = retry
        self._settings = settings
        self._ration = ration

    async def report(
        self,
        lease: Lease,
        happened: Mapping[ReportKind, Sequence[Reported]],
        now: Now,
    ) -> tuple[NewMessage, ...]:
        """Return the reports due, one of each kind, to be queued as it is settled.

        A body that cannot be read is left out of them.
        """
        new = []
        for kind in ReportKind:
            some = happened.get(kind, ())
            reported = [one for one in some if _is_wanted(one, kind)]
            to = self._told(lease, kind, now) if reported else None
            if to is not None:
                made = await self._message(lease, _About(kind, to, reported), now)
                if made is not None:
                    new.append(made)
        return tuple(new)

    def _told(self, lease: Lease, kind: ReportKind, now: Now) -> Address | None:
        envelope = lease.envelope
        sender = envelope.sender
        if not sender.is_null:
            return sender
        if kind is not ReportKind.FAILED:
            return None  # RFC 3461 §5.2: never to the null sender
        is_marked = find(lease.message.header, LAST_FIELD) is not None
        last = None if is_marked else self._double_bounce(envelope.origin)
        if last is None:
            reason = "there is no sender to tell"
            self._drop(lease, kind, reason, now)
        return last

    def _double_bounce(self, origin: Origin) -> Address | None:
        settings = self._settings
        kind = "reports" if origin.protocol == REPORT.protocol else "others"
        if origin == LAST or kind not in settings.double_bounces:
            return None
        if not settings.double_bounce_to:
            return None
        address = Address.from_text(settings.double_bounce_to)
        if address.domain:
            return address
        return Address(address.local, self._shop.generation().hostname)

    async def _message(
        self, lease: Lease, about: _About, now: Now
    ) -> NewMessage | None:
        generation = self._shop.generation()
        routing = await drive(generation.router.classify(about.to), generation.facts)
        route = routing.to_route()
        is_ours = route is not None and route.hop == "local"
        allowed = self._ration.ask(about.to, now, is_ours=is_ours)
        if isinstance(allowed, HeldBack):
            self._drop(lease, about.kind, allowed.reason, now)
            return None
        report_id = self._shop.ids.next(now.utc_us)
        notes = [_FOR_POSTMASTER] if lease.envelope.sender.is_null else []
        notes += [allowed.note] if allowed.note else []
        report = await self._write(
            lease, about._replace(note=" ".join(notes)), report_id, now
        )
        self._tell(report_id, lease, about, report, now)
        recipient = NewRecipient(
            address=about.to,
            route=route,
            lane=lane_of(Address("", ""), report.message.size, self._shop.lanes),
            due_us=now.utc_us,
            # What cannot be routed now is looked at once more later.
            state=RecipientState.READY if route else RecipientState.EXPANDING,
        )
        origin = _origin(lease.envelope)
        return NewMessage(
            queue_id=report_id,
            envelope=msgspec.structs.replace(report.envelope, origin=origin),
            message=report.message,
            recipients=(recipient,),
            message_id=_message_id(report.message),
        )

    async def _write(
        self, lease: Lease, about: _About, report_id: QueueId, now: Now
    ) -> dsn.Report:
        settings, envelope = self._settings, lease.envelope
        host = ReportingHost(
            hostname=self._shop.generation().hostname,
            utc_us=now.utc_us,
            zone_offset_s=self._shop.zone_offset_s(now.utc_us),
            returned_octets_max=int(settings.returned_octets_max),
            recipients_max=settings.recipients_max,
        )
        until_us = expires_us(
            released_us(envelope), self._retry, sender_is_null=envelope.sender.is_null
        )
        results = [
            RecipientResult(recipient, outcome, now.utc_us)
            for recipient, outcome in about.reported
        ]
        header = edited_header(lease.message)
        body = await self._body(about.kind, lease, header)
        message = ReportedMessage(lease.queue_id, envelope, header, body)
        is_last = _origin(envelope) == LAST
        posting = Posting(report_id, about.to, until_us, about.note, is_last)
        return dsn.make_report(about.kind, message, results, host, posting)

    async def _body(
        self, kind: ReportKind, lease: Lease, header: bytes
    ) -> bytes | None:
        message, envelope = lease.message, lease.envelope
        octets_max = int(self._settings.returned_octets_max)
        if not dsn.wants_body(kind, envelope, message.size, octets_max):
            return None
        if not envelope.ret and is_bulk(header):
            return None  # as sendmail does with a negative Precedence
        try:
            return await message.body.read(0, message.body.size)
        except OSError as error:
            what = f"{lease.queue_id}: not in its report: {error}"
            self._shop.tell(what, level="warning")
            return None

    def _drop(self, lease: Lease, kind: ReportKind, reason: str, now: Now) -> None:
        self._shop.emit(
            ReportDropped(
                utc_us=now.utc_us,
                about=lease.queue_id,
                reason=f"{kind.value}: {reason}",
            )
        )

    def _tell(
        self,
        report_id: QueueId,
        lease: Lease,
        about: _About,
        report: dsn.Report,
        now: Now,
    ) -> None:
        self._shop.emit(
            ReportQueued(
                utc_us=now.utc_us,
                queue_id=report_id,
                about=lease.queue_id,
                kind=about.kind.value,
                recipient=about.to,
            )
        )
        self._shop.emit(
            MessageQueued(
                utc_us=now.utc_us,
                queue_id=report_id,
                sender=report.envelope.sender,
                size_octets=report.message.size,
                recipients=1,
                message_id=_message_id(report.message),
                origin=Origin(),
            )
        )


def wants(recipient: Recipient, kind: ReportKind) -> bool:
    """Whether the sender is to hear of this (RFC 3461 §4.1, §5.2)."""
    condition = _CONDITIONS[kind]
    if not recipient.notify:  # RFC 3461 §4.1: as if FAILURE,DELAY were given
        return condition != "SUCCESS"
    return condition in recipient.notify.upper()


def _is_wanted(one: Reported, kind: ReportKind) -> bool:
    if isinstance(one.outcome, Delivered) and one.outcome.tells:
        return "NEVER" not in one.recipient.notify.upper()  # RFC 2852 §4.1.4
    return wants(one.recipient, kind)


def _origin(about: Envelope) -> Origin:
    return LAST if about.sender.is_null or about.origin == LAST else REPORT


def _message_id(message: Message) -> str:
    value = find(message.header, "Message-ID")
    return value.decode("ascii", "replace") if value else ""
