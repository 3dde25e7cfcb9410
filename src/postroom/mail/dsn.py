"""Delivery reports: failure, delay, and success where it was asked for. Pure.

A report is a ``multipart/report`` of three parts (RFC 3464, RFC 6522): words for a
person, fields for a program, and the message, or its header, that it is about. All
text that came from peers and clients is made harmless on its way in: no octet of it
can end a line, a field or a part. The size is bounded by ``returned_octets_max`` and
``recipients_max``, not by what is reported on.
"""

import re
from collections.abc import Sequence

import msgspec

from postroom.mail.address import NULL_SENDER
from postroom.mail.dsn_words import SUBJECTS, ReportKind, advice, beginning
from postroom.mail.envelope import BodyType, Envelope, Recipient
from postroom.mail.headers import find
from postroom.mail.ids import QueueId
from postroom.mail.message import MemoryBody, Message
from postroom.mail.outcome import Deferred, Delivered, Failed, Outcome
from postroom.mail.trace import date_text

RETURNED_OCTETS_MAX = 50 * 1024
"""Messages above this are returned by their header only."""
RECIPIENTS_MAX = 200
"""Recipients described in one report; of more, the number is given."""
_TEXT_CHARS_MAX = 1_000
_FOLD_AT = 78
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
_HEXCHAR = re.compile(r"\+([0-9A-F]{2})")
_STATUS = re.compile(r"[245]\.\d{1,3}\.\d{1,3}")
_MESSAGE_ID = re.compile(rb"<[!-;=?-~]{1,200}>")
_NAME = re.compile(r"[^A-Za-z0-9._:\-\[\]]")


class Reporter(msgspec.Struct, frozen=True):
    """Who reports, and when. Times in microseconds UTC, the zone east in seconds."""

    hostname: str
    utc_us: int
    zone_offset_s: int = 0
    returned_octets_max: int = RETURNED_OCTETS_MAX
    recipients_max: int = RECIPIENTS_MAX

    def date(self, utc_us: int) -> str:
        """Write a moment as header fields do."""
        return date_text(utc_us, self.zone_offset_s)


class ReportedMessage(msgspec.Struct, frozen=True):
    """The message a report is about.

    ``header`` is its block (edits applied), ``body`` its content if it was read
    (see ``wants_body``), None to return the header only.
    """

    queue_id: QueueId
    envelope: Envelope
    header: bytes
    body: bytes | None = None


class RecipientResult(msgspec.Struct, frozen=True):
    """What became of one recipient; ``last_us`` is when it was last tried (UTC)."""

    recipient: Recipient
    outcome: Outcome
    last_us: int


class Report(msgspec.Struct, frozen=True):
    """A report, ready to be queued.

    Its envelope has the null sender and the sender of the reported message as its
    recipient (RFC 3461 §6.1).
    """

    message: Message
    envelope: Envelope


def wants_body(
    kind: ReportKind,
    envelope: Envelope,
    size_octets: int,
    octets_max: int = RETURNED_OCTETS_MAX,
) -> bool:
    """Whether the body is to be read and given to ``make_report``.

    Only for failures, unless the sender asked for headers (RFC 3461 §4.3, §6.2).
    """
    full = envelope.ret.upper() != "HDRS"
    return kind is ReportKind.FAILED and full and size_octets <= octets_max


def make_report(
    kind: ReportKind,
    about: ReportedMessage,
    results: Sequence[RecipientResult],
    reporter: Reporter,
    report_id: QueueId,
    retry_until_us: int = 0,
) -> Report:
    """Write a report to the sender of a message, which must not be the null sender.

    Args:
        kind: what happened to all of these recipients.
        about: the message.
        results: the recipients, at least one.
        reporter: this host, and now.
        report_id: the queue id the report itself will have.
        retry_until_us: for delays, until when delivery is tried (UTC).
    """
    sender = about.envelope.sender
    assert not sender.is_null
    assert results
    shown = results[: reporter.recipients_max]
    returned_type, returned = _returned(kind, about, reporter)
    parts = (
        _part("text/plain; charset=utf-8", "Notification", _words(
            kind, shown, len(results), reporter, retry_until_us
        )),
        _part("message/delivery-status", "Delivery report", _fields(
            kind, about, shown, reporter, retry_until_us
        )),
        _part(returned_type, "Undelivered message", returned),
    )  # fmt: skip
    boundary = _boundary(report_id, about.queue_id, parts)
    mark = b"--" + boundary.encode("ascii")
    body = b"".join(
        (
            b"This is a MIME-encapsulated message.\r\n",
            *(b"\r\n" + mark + b"\r\n" + part for part in parts),
            b"\r\n" + mark + b"--\r\n",
        )
    )
    header = _header(kind, about, reporter, report_id, boundary)
    eight_bit = not (header.isascii() and body.isascii())
    envelope = Envelope(
        sender=NULL_SENDER,  # RFC 5321 §4.5.5
        recipients=(Recipient(sender),),
        body=BodyType.EIGHT_BIT if eight_bit else BodyType.SEVEN_BIT,
        smtputf8=not sender.is_ascii,
        arrival_us=reporter.utc_us,
    )
    return Report(Message(header, MemoryBody(body)), envelope)


def _header(
    kind: ReportKind,
    about: ReportedMessage,
    reporter: Reporter,
    report_id: QueueId,
    boundary: str,
) -> bytes:
    host = reporter.hostname
    lines = [
        f"Date: {reporter.date(reporter.utc_us)}",
        f"From: Mail Delivery System <MAILER-DAEMON@{host}>",
        f"To: <{_clean(about.envelope.sender.to_text())}>",
        f"Subject: {SUBJECTS[kind]}",
        f"Message-ID: <{report_id}.{about.queue_id}@{host}>",
        "Auto-Submitted: auto-replied",  # RFC 3834 §5
        "MIME-Version: 1.0",
        "Content-Type: multipart/report; report-type=delivery-status;",  # RFC 6522 §3
        f'\tboundary="{boundary}"',
    ]
    original = _MESSAGE_ID.fullmatch(find(about.header, "Message-ID") or b"")
    if original:  # RFC 3834 §3.1.5
        lines.insert(5, f"In-Reply-To: {original[0].decode('ascii')}")
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


# The words


def _words(
    kind: ReportKind,
    results: Sequence[RecipientResult],
    total: int,
    reporter: Reporter,
    retry_until_us: int,
) -> bytes:
    until = reporter.date(retry_until_us) if retry_until_us else ""
    blocks = [beginning(kind, reporter.hostname, until)]
    blocks += [_recipient_words(kind, result) for result in results]
    if total > len(results):
        blocks.append(f"... and {total - len(results)} more recipients.")
    text = "\n\n".join(blocks) + "\n"
    return text.replace("\n", "\r\n").encode("utf-8", "replace")


def _recipient_words(kind: ReportKind, result: RecipientResult) -> str:
    outcome = result.outcome
    lines = [f"<{_clean(result.recipient.address.to_text())}>"]
    original = _original_recipient(result.recipient)
    if original and original[1] != result.recipient.address.to_text():
        lines[0] += f" (for {_clean(original[1])})"
    said = _wrapped(_diagnostic(outcome))
    if said:
        by = f"{_clean(outcome.peer)} said: " if outcome.peer and _code(outcome) else ""
        lines.append(f"    {by}{said}")
    if kind is ReportKind.FAILED:
        if isinstance(outcome, Deferred):
            lines.append("    This went on until the time allowed was over.")
        lines.append(f"    {advice(outcome.status)}")
    return "\n".join(lines)


def _wrapped(text: str) -> str:
    out, line = [], ""
    for word in text.split(" "):
        if line and len(line) + len(word) > _FOLD_AT - 8:
            out.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    return "\n    ".join([*out, line])


# The fields


def _fields(
    kind: ReportKind,
    about: ReportedMessage,
    results: Sequence[RecipientResult],
    reporter: Reporter,
    retry_until_us: int,
) -> bytes:
    groups = [_message_fields(about, reporter)]
    groups += [_recipient_fields(kind, r, reporter, retry_until_us) for r in results]
    # RFC 3464 §2.3: each group is preceded by an empty line.
    return "\r\n".join(groups).encode("ascii", "replace")


def _message_fields(about: ReportedMessage, reporter: Reporter) -> str:
    envelope = about.envelope
    origin = envelope.origin
    lines = []
    if envelope.envid:  # RFC 3461 §6.3: decoded
        lines.append(_field("Original-Envelope-Id", _from_xtext(envelope.envid)))
    lines.append(_field("Reporting-MTA", f"dns; {reporter.hostname}"))
    if origin.client_ip and origin.helo:
        helo = _NAME.sub("?", origin.helo)
        lines.append(_field("Received-From-MTA", f"dns; {helo} ([{origin.client_ip}])"))
    if envelope.arrival_us:
        lines.append(_field("Arrival-Date", reporter.date(envelope.arrival_us)))
    lines.append(_field("X-Postroom-Queue-ID", about.queue_id))
    return "".join(lines)


def _recipient_fields(
    kind: ReportKind,
    result: RecipientResult,
    reporter: Reporter,
    retry_until_us: int,
) -> str:
    outcome = result.outcome
    lines = []
    original = _original_recipient(result.recipient)
    if original:
        kind_of, text = original
        lines.append(_field("Original-Recipient", f"{kind_of}; {_seven_bit(text)}"))
    lines.append(_final_recipient(result.recipient))
    lines.append(_field("Action", kind.value))
    lines.append(_field("Status", _status(kind, outcome)))
    if outcome.peer and (_code(outcome) or isinstance(outcome, Delivered)):
        # RFC 3464 §2.3.6: says that the remote system issued the diagnostic.
        name, _, ip = outcome.peer.partition(" ")
        comment = f" ({_clean(ip)})" if ip else ""
        lines.append(_field("Remote-MTA", f"dns; {_NAME.sub('?', name)}{comment}"))
    said = _diagnostic(outcome)
    if said:
        source = "smtp" if _code(outcome) else "X-Postroom"
        lines.append(_field("Diagnostic-Code", f"{source}; {said}"))
    if result.last_us:
        lines.append(_field("Last-Attempt-Date", reporter.date(result.last_us)))
    if kind is ReportKind.DELAYED and retry_until_us:
        # RFC 3464 §2.3.9: must not appear in other reports.
        lines.append(_field("Will-Retry-Until", reporter.date(retry_until_us)))
    return "".join(lines)


def _final_recipient(recipient: Recipient) -> str:
    text = recipient.address.to_text()
    if text.isascii():
        return _field("Final-Recipient", f"rfc822; {text}")
    # RFC 6533 §3: outside ASCII the type is utf-8, escaped where 7 bits are the rule
    return _field("Final-Recipient", f"utf-8; {_seven_bit(text)}")


def _original_recipient(recipient: Recipient) -> tuple[str, str] | None:
    kind, _, xtext = recipient.orcpt.partition(";")
    if not xtext:
        return None
    return _NAME.sub("?", kind), _from_xtext(xtext)


def _status(kind: ReportKind, outcome: Outcome) -> str:
    if _STATUS.fullmatch(outcome.status):
        return outcome.status
    if isinstance(outcome, Delivered):
        return "2.0.0"
    return "5.0.0" if isinstance(outcome, Failed) else "4.0.0"


def _diagnostic(outcome: Outcome) -> str:
    code = _code(outcome)
    text = _clean(outcome.text)
    if code and not text.startswith(str(code)):
        return f"{code} {_clean(outcome.status)} {text}".rstrip()
    return text


def _code(outcome: Outcome) -> int:
    return 0 if isinstance(outcome, Delivered) else outcome.code


def _field(name: str, value: str) -> str:
    """One field, folded at blanks; what has none is cut hard at the line limit."""
    line, out = f"{name}:", []
    for word in _clean(value).split(" "):
        if len(line) + len(word) >= _FOLD_AT and line != f"{name}:":
            out.append(line)
            line = ""
        line += f" {word[:900]}"
    return "\r\n".join([*out, line]) + "\r\n"


# What is returned


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


# Escaping


def _clean(text: str) -> str:
    return _UNSAFE.sub("?", text[:_TEXT_CHARS_MAX])


def _from_xtext(text: str) -> str:
    """Decode xtext (RFC 3461 §4)."""
    return _HEXCHAR.sub(lambda match: chr(int(match[1], 16)), text)


def _seven_bit(text: str) -> str:
    """Escape what is not ASCII by code point, as RFC 6533 §3 does."""
    return "".join(char if char.isascii() else f"\\x{{{ord(char):X}}}" for char in text)
