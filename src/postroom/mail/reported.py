"""What a delivery report is about: the message, the recipients, and who reports.

The values that both halves of a report are made from, and how text that came from
peers and clients is made harmless on its way in: no octet of it can end a line, a
field or a part. Pure.
"""

import re
from collections.abc import Sequence
from enum import StrEnum

import msgspec

from postroom.mail.address import Address
from postroom.mail.envelope import Envelope, Recipient, from_xtext, given_orcpt
from postroom.mail.ids import QueueId
from postroom.mail.outcome import Delivered, Outcome
from postroom.mail.trace import date_text

RETURNED_OCTETS_MAX = 50 * 1024
"""Messages above this are returned by their header only."""
LAST_FIELD = "X-Postroom-Report"
"""The field of a report about a report: nobody is told if that fails, wherever it has
been meanwhile."""
TOLD_CHARS_MAX = 100_000
"""Room for what other hosts said in one report; see ``shortened``."""
RECIPIENTS_MAX = 200
"""Recipients described in one report; of more, the number is given."""
_TEXT_CHARS_MAX = 1_000
_OF_OUR_SYSTEM = (".2", ".3")  # RFC 3463 §3.3, §3.4: mailbox and system status
_TOLD_CHARS_LEAST = 120
# Controls, line ends, what turns the direction of writing, halves of surrogate pairs.
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]+")
_NAME = re.compile(r"[^A-Za-z0-9._:\-\[\]]")


class ReportKind(StrEnum):
    """What a report tells; the values are those of Action (RFC 3464 §2.3.3)."""

    FAILED = "failed"
    DELAYED = "delayed"
    DELIVERED = "delivered"
    RELAYED = "relayed"
    EXPANDED = "expanded"


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


class Posting(msgspec.Struct, frozen=True):
    """One report as a letter.

    ``report_id`` is the queue id it will have, ``to`` whom it goes to: the sender of
    the message, or who is told in its place. ``retry_until_us`` says of delays until
    when delivery is tried (UTC); ``note`` is a paragraph more for the reader;
    ``is_last`` marks it with ``LAST_FIELD``.
    """

    report_id: QueueId
    to: Address
    retry_until_us: int = 0
    note: str = ""
    is_last: bool = False


def original_recipient(recipient: Recipient) -> tuple[str, str] | None:
    """Return the type and the text of the ORCPT that was given, decoded."""
    kind, semicolon, xtext = given_orcpt(recipient).partition(";")
    return (safe_name(kind), from_xtext(xtext)) if semicolon else None


def code_of(outcome: Outcome) -> int:
    """Return the number of the reply that decided, 0 if none did."""
    return 0 if isinstance(outcome, Delivered) else outcome.code


def said_of(outcome: Outcome) -> tuple[str, ...]:
    """Return what the other side said: the lines of its reply, else what is known.

    What is wrong with our own mailboxes and files stands in our log: it names paths,
    which are not the sender's business.
    """
    if isinstance(outcome, Delivered):
        return (clean(outcome.text),) if outcome.text else ()
    if outcome.said:
        return tuple(clean(line) for line in outcome.said)
    is_own = not (outcome.peer or outcome.code)
    if is_own and outcome.status[1:3] in _OF_OUR_SYSTEM:
        return ()
    text = clean(outcome.text)
    if outcome.code and not text.startswith(str(outcome.code)):
        text = f"{outcome.code} {clean(outcome.status)} {text}".rstrip()
    return (text,) if text else ()


def shortened(results: Sequence[RecipientResult]) -> list[RecipientResult]:
    """Share the room that there is for what other hosts said.

    A host that has much to say of each of a thousand recipients must not make a report
    as large as it likes. Each gets an equal part, but some words at least.
    """
    part = max(TOLD_CHARS_MAX // max(len(results), 1), _TOLD_CHARS_LEAST)
    return [_shortened(result, part) for result in results]


def _shortened(result: RecipientResult, chars_max: int) -> RecipientResult:
    outcome = result.outcome
    said = () if isinstance(outcome, Delivered) else outcome.said
    if len(outcome.text) + sum(map(len, said)) <= chars_max:
        return result
    changes: dict[str, object] = {"text": _cut(outcome.text, chars_max)}
    if said:
        changes["said"] = _cut_lines(said, chars_max)
    outcome = msgspec.structs.replace(outcome, **changes)
    return msgspec.structs.replace(result, outcome=outcome)


def _cut_lines(lines: Sequence[str], chars_max: int) -> tuple[str, ...]:
    kept: list[str] = []
    for line in lines:
        kept.append(_cut(line, chars_max))
        chars_max -= len(line)
        if chars_max <= 0:
            break
    return tuple(kept)


def _cut(text: str, chars_max: int) -> str:
    return text if len(text) <= chars_max else f"{text[:chars_max]}..."


def clean(text: str) -> str:
    """Make a text fit for one line, bounded."""
    return _UNSAFE.sub("?", text[:_TEXT_CHARS_MAX])


def safe_name(text: str) -> str:
    """Make a name fit to stand outside comments and quotes."""
    return _NAME.sub("?", text[:_TEXT_CHARS_MAX])
