"""Delivery reports: failure, delay, and success where it was asked for. Pure.

A report is a ``multipart/report`` of three parts (RFC 3464, RFC 6522): words for a
person (``dsn_words``), fields for a program (``dsn_fields``), and the message, or its
header, that it is about. All text that came from peers and clients is made harmless on
its way in: no octet of it can end a line, a field or a part. The size is bounded by
``returned_octets_max``, ``recipients_max`` and ``TOLD_CHARS_MAX``, not by what is
reported on.
"""

import re
from collections.abc import Sequence

import msgspec

from postroom.mail.address import NULL_SENDER
from postroom.mail.dsn_fields import delivery_status
from postroom.mail.dsn_words import SUBJECTS, Telling, human_part
from postroom.mail.envelope import BodyType, Envelope, Recipient
from postroom.mail.headers import find
from postroom.mail.ids import QueueId
from postroom.mail.message import MemoryBody, Message
from postroom.mail.reported import (
    LAST_FIELD,
    RETURNED_OCTETS_MAX,
    Posting,
    RecipientResult,
    ReportedMessage,
    Reporter,
    ReportKind,
    clean,
    shortened,
)

_MESSAGE_ID = re.compile(rb"<[!-;=?-~]{1,200}>")


class Report(msgspec.Struct, frozen=True):
    """A report, ready to be queued, from the null sender (RFC 3461 §6.1)."""

    message: Message
    envelope: Envelope


def wants_body(
    kind: ReportKind,
    envelope: Envelope,
    size_octets: int,
    octets_max: int = RETURNED_OCTETS_MAX,
) -> bool:
    """Whether the body is to be read and given to ``make_report``.

    Only for failures, unless the sender asked for headers (RFC 3461 §4.3, §6.2) or
    wants the message protected (RFC 8689 §5). What is binary cannot stand in a report
    as it is; it need not be returned (RFC 3030 §3).
    """
    full = envelope.ret.upper() != "HDRS" and not envelope.requiretls
    full = full and envelope.body is not BodyType.BINARY
    return kind is ReportKind.FAILED and full and size_octets <= octets_max


def make_report(
    kind: ReportKind,
    about: ReportedMessage,
    results: Sequence[RecipientResult],
    reporter: Reporter,
    posting: Posting,
) -> Report:
    """Write a report, never to the null sender.

    Args:
        kind: what happened to all of these recipients.
        about: the message.
        results: the recipients, at least one.
        reporter: this host, and now.
        posting: whom it goes to.
    """
    assert not posting.to.is_null
    assert results
    shown = shortened(results[: reporter.recipients_max])
    retry_until_us = posting.retry_until_us
    returned_type, returned = _returned(kind, about, reporter)
    is_whole = returned_type == "message/rfc822"
    telling = Telling(len(results), retry_until_us, is_whole, posting.note)
    words = human_part(kind, about, shown, reporter, telling)
    facts = delivery_status(kind, about, shown, reporter, retry_until_us)
    is_failure = kind is ReportKind.FAILED
    what = "Undelivered message" if is_failure else "Message"
    parts = (
        _part("text/plain; charset=utf-8", "Notification", words),
        _part("message/delivery-status", "Delivery report", facts),
        _part(returned_type, what if is_whole else f"{what} header", returned),
    )
    boundary = _boundary(posting.report_id, about.queue_id, parts)
    mark = b"--" + boundary.encode("ascii")
    body = b"".join(
        (
            b"This is a MIME-encapsulated message.\r\n",
            *(b"\r\n" + mark + b"\r\n" + part for part in parts),
            b"\r\n" + mark + b"--\r\n",
        )
    )
    header = _header(kind, about, reporter, posting, boundary)
    if not body.isascii():  # RFC 2045 §6.4: what holds 8-bit parts is 8-bit itself
        header += b"Content-Transfer-Encoding: 8bit\r\n"
    eight_bit = not (header.isascii() and body.isascii())
    envelope = Envelope(
        sender=NULL_SENDER,  # RFC 5321 §4.5.5
        recipients=(Recipient(posting.to),),
        body=BodyType.EIGHT_BIT if eight_bit else BodyType.SEVEN_BIT,
        smtputf8=not posting.to.is_ascii,
        requiretls=about.envelope.requiretls,  # RFC 8689 §5
        arrival_us=reporter.utc_us,
    )
    return Report(Message(header, MemoryBody(body)), envelope)


def _header(
    kind: ReportKind,
    about: ReportedMessage,
    reporter: Reporter,
    posting: Posting,
    boundary: str,
) -> bytes:
    host = reporter.hostname
    lines = [
        f"Date: {reporter.date(reporter.utc_us)}",
        f"From: Mail Delivery System <MAILER-DAEMON@{host}>",
        f"To: <{clean(posting.to.to_text())}>",
        f"Subject: {SUBJECTS[kind]}",
        f"Message-ID: <{posting.report_id}.{about.queue_id}@{host}>",
        "Auto-Submitted: auto-replied",  # RFC 3834 §5
        "MIME-Version: 1.0",
        "Content-Type: multipart/report; report-type=delivery-status;",  # RFC 6522 §3
        f'\tboundary="{boundary}"',
    ]
    original = _MESSAGE_ID.fullmatch(find(about.header, "Message-ID") or b"")
    if original:  # RFC 3834 §3.1.5
        message_id = original[0].decode("ascii")
        lines[5:5] = [f"In-Reply-To: {message_id}", f"References: {message_id}"]
    if posting.is_last:
        lines.append(f"{LAST_FIELD}: about a report")
    return ("\r\n".join(lines) + "\r\n").encode("utf-8", "replace")


def _part(content_type: str, description: str, content: bytes) -> bytes:
    encoding = "7bit" if content.isascii() else "8bit"
    head = (
        f"Content-Type: {content_type}\r\n"
        f"Content-Description: {description}\r\n"
        f"Content-Transfer-Encoding: {encoding}\r\n\r\n"
    )
    return head.encode("ascii") + content


def _boundary(report_id: QueueId, original_id: QueueId, parts: Sequence[bytes]) -> str:
    """A boundary that none of the parts contains (RFC 2046 §5.1.1)."""
    boundary = f"=_{report_id}.{original_id}"
    while any(boundary.encode("ascii") in part for part in parts):
        boundary += "_"
    return boundary


def _returned(
    kind: ReportKind, about: ReportedMessage, reporter: Reporter
) -> tuple[str, bytes]:
    limit = reporter.returned_octets_max
    size = len(about.header) + 2 + len(about.body or b"")
    if about.body is not None and wants_body(kind, about.envelope, size, limit):
        return "message/rfc822", b"".join((about.header, b"\r\n", about.body))
    header = about.header
    if len(header) > limit:
        header = header[: header.rfind(b"\n", 0, limit) + 1]
    return "text/rfc822-headers", header  # RFC 6522 §4
