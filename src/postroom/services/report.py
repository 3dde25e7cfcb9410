"""Queues reports: who is told of a failure or a delay, and by which message.

The sender is told. If the message was a report itself (null sender), a failure is told
to the address for double bounces, and a delay to nobody. Such a double bounce carries
a mark, and so does whatever comes of it (aliases, lists, reports about it): if that
fails with a null sender nobody is told. The log has it, and the circle ends.
"""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from postroom.mail import dsn
from postroom.mail.address import Address
from postroom.mail.dsn_words import ReportKind
from postroom.mail.envelope import Envelope, Origin, Recipient
from postroom.mail.headers import edited_header, find
from postroom.mail.ids import QueueId
from postroom.mail.message import Message
from postroom.mail.now import Now
from postroom.mail.outcome import Outcome
from postroom.observe.events import MessageQueued, ReportDropped, ReportQueued
from postroom.route.drive import drive
from postroom.schedule.retry import expires_us
from postroom.schedule.settings import RetrySettings
from postroom.services.lanes import lane_of
from postroom.services.workshop import Workshop
from postroom.spool.spool import Lease, NewMessage, NewRecipient, RecipientState

LAST = Origin(protocol="report", listener="double bounce")
"""The origin of reports about reports, and of reports about those."""


class Reported(NamedTuple):
    """A recipient that somebody is to hear of."""

    recipient: Recipient
    outcome: Outcome


class About(NamedTuple):
    """The kind of report and whom it goes to."""

    kind: ReportKind
    to: Address


class Reporter:
    """Writes reports about the mail of one worker."""

    def __init__(
        self, shop: Workshop, retry: RetrySettings, double_bounce_to: str
    ) -> None:
        self._shop = shop
        self._retry = retry
        self._double_bounce_to = double_bounce_to

    async def report(
        self,
        lease: Lease,
        failed: Sequence[Reported],
        delayed: Sequence[Reported],
        now: Now,
    ) -> tuple[NewMessage, ...]:
        """Return the reports due about an attempt, to be queued as it is settled.

        A body that cannot be read is left out of them.
        """
        new = []
        for kind, reported in (
            (ReportKind.FAILED, _wanted(failed, "FAILURE")),
            (ReportKind.DELAYED, _wanted(delayed, "DELAY")),
        ):
            if reported and (to := self._told(lease, kind, now)) is not None:
                new.append(await self._message(lease, About(kind, to), reported, now))
        return tuple(new)

    def _told(self, lease: Lease, kind: ReportKind, now: Now) -> Address | None:
        sender = lease.envelope.sender
        if not sender.is_null:
            return sender
        last = self._double_bounce()
        is_last = lease.envelope.origin == LAST
        if kind is ReportKind.FAILED and not is_last and last is not None:
            return last
        reason = "the message was a report itself"
        self._shop.emit(
            ReportDropped(utc_us=now.utc_us, about=lease.queue_id, reason=reason)
        )
        return None

    def _double_bounce(self) -> Address | None:
        if not self._double_bounce_to:
            return None
        address = Address.from_text(self._double_bounce_to)
        if address.domain:
            return address
        return Address(address.local, self._shop.generation().hostname)

    async def _message(
        self, lease: Lease, about: About, reported: Sequence[Reported], now: Now
    ) -> NewMessage:
        report_id = self._shop.ids.next(now.utc_us)
        envelope = lease.envelope
        report = dsn.make_report(
            about.kind,
            dsn.ReportedMessage(
                queue_id=lease.queue_id,
                envelope=msgspec.structs.replace(envelope, sender=about.to),
                header=edited_header(lease.message),
                body=await self._body(about.kind, lease),
            ),
            [dsn.RecipientResult(r, outcome, now.utc_us) for r, outcome in reported],
            dsn.Reporter(
                hostname=self._shop.generation().hostname,
                utc_us=now.utc_us,
                zone_offset_s=self._shop.zone_offset_s(now.utc_us),
            ),
            report_id,
            retry_until_us=expires_us(envelope.arrival_us, self._retry),
        )
        self._tell(report_id, lease, about, report, now)
        return NewMessage(
            queue_id=report_id,
            envelope=msgspec.structs.replace(report.envelope, origin=_origin(envelope)),
            message=report.message,
            recipients=(await self._recipient(about.to, report.message, now),),
            message_id=_message_id(report),
        )

    async def _body(self, kind: ReportKind, lease: Lease) -> bytes | None:
        message = lease.message
        if not dsn.wants_body(kind, lease.envelope, message.size):
            return None
        try:
            return await message.body.read(0, message.body.size)
        except OSError as error:
            what = f"{lease.queue_id}: not in its report: {error}"
            self._shop.tell(what, level="warning")
            return None

    async def _recipient(
        self, address: Address, message: Message, now: Now
    ) -> NewRecipient:
        """Route the report. What cannot be routed now is looked at once more later."""
        generation = self._shop.generation()
        routing = await drive(generation.router.classify(address), generation.facts)
        route = routing.to_route()
        return NewRecipient(
            address=address,
            route=route,
            lane=lane_of(Address("", ""), message.size, self._shop.lanes),
            due_us=now.utc_us,
            state=RecipientState.READY if route else RecipientState.EXPANDING,
        )

    def _tell(
        self,
        report_id: QueueId,
        lease: Lease,
        about: About,
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
                message_id=_message_id(report),
                origin=Origin(),
            )
        )


def wants(recipient: Recipient, condition: str) -> bool:
    """Whether the sender is to hear of this (RFC 3461 §4.1)."""
    return not recipient.notify or condition in recipient.notify.upper()


def _wanted(reported: Sequence[Reported], condition: str) -> list[Reported]:
    """Leave out recipients whose sender wanted no such report."""
    return [one for one in reported if wants(one.recipient, condition)]


def _origin(about: Envelope) -> Origin:
    if about.sender.is_null or about.origin == LAST:
        return LAST
    return Origin(protocol="report")


def _message_id(report: dsn.Report) -> str:
    value = find(report.message.header, "Message-ID")
    return value.decode("ascii", "replace") if value else ""
