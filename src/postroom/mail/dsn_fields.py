"""The part of a delivery report that programs read: ``message/delivery-status``.

One group of fields for the message, then one for each recipient (RFC 3464 §2). Every
value is ASCII, cleaned and folded here, so that no text of others can begin a field of
its own. Pure.
"""

import re
from collections.abc import Sequence

from postroom.mail.deliver_by import deadline_us
from postroom.mail.envelope import accepted_as, from_xtext
from postroom.mail.outcome import Deferred, Delivered, Outcome
from postroom.mail.reported import (
    RecipientResult,
    ReportedMessage,
    Reporter,
    ReportKind,
    clean,
    code_of,
    original_recipient,
    safe_name,
    said_of,
)

_FOLD_AT = 78
_WORD_CHARS_MAX = 900
_STATUS = re.compile(r"[245]\.(?:0|[1-9]\d{0,2})\.(?:0|[1-9]\d{0,2})")
# A word of a folded value that would look like a field is no danger: continuation
# lines begin with a blank.
_ATOM = re.compile(r"[^A-Za-z0-9!#$%&'*+\-/=?^_`{|}~]")


def delivery_status(
    kind: ReportKind,
    about: ReportedMessage,
    results: Sequence[RecipientResult],
    reporter: Reporter,
    retry_until_us: int,
) -> bytes:
    """Return the content of the part."""
    groups = [_message_fields(about, reporter)]
    groups += [
        _recipient_fields(kind, about, result, reporter, retry_until_us)
        for result in results
    ]
    # RFC 3464 §2.3: each group is preceded by an empty line.
    return "\r\n".join(groups).encode("ascii", "replace")


def status_of(kind: ReportKind, outcome: Outcome) -> str:
    """Return a status code fit for the field (RFC 3464 §2.3.4, RFC 3461 §6.3)."""
    status = outcome.status
    if isinstance(outcome, Delivered):
        classes = "2"
    else:
        # RFC 3464 §2.3.3: what was given up may have failed for passing reasons
        classes = "4" if kind is ReportKind.DELAYED else "54"
    if status[:1] in classes and _STATUS.fullmatch(status):
        return status
    return f"{'4' if isinstance(outcome, Deferred) else classes[0]}.0.0"


def _message_fields(about: ReportedMessage, reporter: Reporter) -> str:
    envelope = about.envelope
    origin = envelope.origin
    lines = []
    if envelope.envid:  # RFC 3461 §6.3 (a): decoded
        lines.append(_field("Original-Envelope-Id", from_xtext(envelope.envid)))
    lines.append(_field("Reporting-MTA", f"dns; {reporter.hostname}"))
    if origin.client_ip and origin.helo:  # RFC 3464 §2.2.4
        name = safe_name(origin.helo)
        lines.append(_field("Received-From-MTA", f"dns; {name} ([{origin.client_ip}])"))
    if envelope.arrival_us:
        lines.append(_field("Arrival-Date", reporter.date(envelope.arrival_us)))
    if envelope.deliver_by:  # RFC 2852 §5
        lines.append(_field("Deliver-By-Date", reporter.date(deadline_us(envelope))))
    lines.append(_field("X-Postroom-Queue-ID", about.queue_id))
    return "".join(lines)


def _recipient_fields(
    kind: ReportKind,
    about: ReportedMessage,
    result: RecipientResult,
    reporter: Reporter,
    retry_until_us: int,
) -> str:
    outcome, recipient = result.outcome, result.recipient
    is_remote = bool(
        outcome.peer and (code_of(outcome) or isinstance(outcome, Delivered))
    )
    lines = []
    original = original_recipient(recipient)
    if original:  # RFC 3461 §6.3 (d): only if it was given
        lines.append(
            _field("Original-Recipient", f"{_type(original[0])}; {original[1]}")
        )
    # RFC 3464 §2.3.2: as it was when we accepted it, which may be an alias.
    accepted, actual = accepted_as(recipient), recipient.address.to_text()
    lines.append(_address("Final-Recipient", accepted))
    lines.append(_field("Action", kind.value))
    lines.append(_field("Status", status_of(kind, outcome)))
    if is_remote:
        # RFC 3464 §2.3.6: says that the remote system issued the diagnostic.
        name, _, ip = outcome.peer.partition(" ")
        comment = f" ({clean(ip)})" if ip else ""
        lines.append(_field("Remote-MTA", f"dns; {safe_name(name)}{comment}"))
    if said := said_of(outcome):
        source = "smtp" if code_of(outcome) or is_remote else "X-Postroom"
        lines.append(_lines("Diagnostic-Code", source, said))
    if result.last_us:
        lines.append(_field("Last-Attempt-Date", reporter.date(result.last_us)))
    if not is_remote:  # RFC 3464 §2.3.8: of the final MTA, and that is we
        lines.append(_field("Final-Log-ID", about.queue_id))
    if kind is ReportKind.DELAYED and retry_until_us:
        # RFC 3464 §2.3.9: must not appear in other reports.
        lines.append(_field("Will-Retry-Until", reporter.date(retry_until_us)))
    if actual != accepted:  # whom the alias stands for, as sendmail names it
        lines.append(_address("X-Actual-Recipient", actual))
    return "".join(lines)


def _address(name: str, text: str) -> str:
    # RFC 6533 §3: outside ASCII the type is utf-8, escaped where 7 bits are the rule
    return _field(name, f"{'rfc822' if text.isascii() else 'utf-8'}; {text}")


def _type(text: str) -> str:
    return _ATOM.sub("?", text) or "unknown"  # RFC 3464 §2.3.1


def _field(name: str, value: str) -> str:
    """One field, folded at blanks; what has none is cut hard at the line limit."""
    return _folded(f"{name}:", value) + "\r\n"


def _lines(name: str, kind: str, said: Sequence[str]) -> str:
    """One field whose value has several lines of its own (RFC 3461 §9.2)."""
    first = _folded(f"{name}:", f"{kind}; {said[0]}")
    return "\r\n".join([first, *(_folded("", line) for line in said[1:])]) + "\r\n"


def _folded(line: str, value: str) -> str:
    start, out = line, []
    for word in _seven_bit(clean(value)).split(" "):
        # A line must not be empty but for blanks: such a line would end the group.
        if len(line) + len(word) >= _FOLD_AT and line.strip(" ") and line != start:
            out.append(line)
            line = ""
        line += f" {word[:_WORD_CHARS_MAX]}"
    if line.strip(" ") or not out:
        out.append(line if line.strip(" ") else " ?")
    return "\r\n".join(out)


def _seven_bit(text: str) -> str:
    """Escape what is not ASCII by code point, as RFC 6533 §3 does."""
    if text.isascii():
        return text
    return "".join(char if char.isascii() else f"\\x{{{ord(char):X}}}" for char in text)
