"""The part of a delivery report that people read: what happened, to whom, what to do.

Plain text, at most 78 columns where words allow it. Text that came from peers or
clients is made harmless on its way in. Pure.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from postroom.mail.envelope import accepted_as
from postroom.mail.headers import find
from postroom.mail.outcome import Deferred, Delivered
from postroom.mail.reported import (
    RecipientResult,
    ReportedMessage,
    Reporter,
    ReportKind,
    clean,
    code_of,
    original_recipient,
    said_of,
)

_COLUMNS = 76
_SUBJECT_CHARS_MAX = 200
_LONG_WORD = re.compile(r"(\S{200})(?=\S)")  # RFC 5322 §2.1.1: 998 octets a line

SUBJECTS = {
    ReportKind.FAILED: "Undelivered mail returned to sender",
    ReportKind.DELAYED: "Your mail is delayed; we will keep trying to deliver it",
    ReportKind.DELIVERED: "Your mail was delivered",
    ReportKind.RELAYED: "Your mail was passed on to another system",
    ReportKind.EXPANDED: "Your mail was passed on to several recipients",
}

_BEGINNINGS = {
    ReportKind.FAILED: "Your message could not be delivered to {whom}. It will not be "
    "tried again. What happened and what you can do is explained below.",
    ReportKind.DELAYED: "This is a warning only: YOU NEED NOT SEND YOUR MESSAGE AGAIN. "
    "It could not be delivered to {whom} yet.",
    ReportKind.DELIVERED: "Your message was delivered to {whom}. That does not mean "
    "that it was read. You get this report because it was asked for.",
    ReportKind.RELAYED: "Your message was passed on for {whom}, to a mail system that "
    "does not report deliveries. You will hear of it again only if it fails. You get "
    "this report because it was asked for.",
    ReportKind.EXPANDED: "Your message was passed on to those whom {whom} {stand} for. "
    "You may still hear of failures. You get this report because it was asked for.",
}


class Words(NamedTuple):
    """What a status means to a person, and what to do about it."""

    happened: str
    advice: str


_BY_RULES = "The recipient's mail system refuses the message by its rules."
_ASK_POSTMASTER = (
    "If the rules seem wrong to you, ask the postmaster there, and enclose this report."
)
_PROVE = "This must be put right at your end: give this report to your postmaster."
_UNREACHABLE = "The recipient's mail system could not be reached."
_LATER = (
    "Send the message again later, or tell the recipient's postmaster by other means."
)
_TOO_LARGE = Words(
    "The message is too large.",
    "Send it in smaller pieces, or put what is large where it can be fetched.",
)
_BOTH_POSTMASTERS = "Give this report to your postmaster, or to the recipient's."
_OTHER_ADDRESS = "Ask the recipient for another address."

# By the status without its class (RFC 3463 §3, RFC 5248), the most precise first.
_WORDS = {
    "1.1": Words(
        "There is no such mailbox.",
        "Check the part of the address before the @ for a misspelling.",
    ),
    "1.2": Words(
        "There is no such domain.",
        "Check the part of the address after the @ for a misspelling.",
    ),
    "1.3": Words(
        "The address is not written as it must be.",
        "Check the address; there may be a character in it that does not belong.",
    ),
    "1.6": Words("The mailbox has moved.", _OTHER_ADDRESS),
    "1.7": Words(
        "The recipient's mail system does not take your own address.",
        "Check the address you send from.",
    ),
    "1.8": Words(
        "The recipient's mail system does not know the domain of your own address.",
        "Check the address you send from.",
    ),
    "1.10": Words("The domain takes no mail at all.", _OTHER_ADDRESS),
    "1.": Words("The address cannot be used.", "Check the address."),
    "2.1": Words("The mailbox is closed.", _OTHER_ADDRESS),
    "2.2": Words(
        "The mailbox is full.",
        "Tell the recipient by other means, and send the message again later.",
    ),
    "2.3": _TOO_LARGE,
    "2.4": Words(
        "The address is that of a mailing list, and something is wrong with the list.",
        "Tell the owner of the list, or the postmaster there.",
    ),
    "2.": Words(
        "The mailbox cannot take the message.",
        "Ask the recipient by other means what is wrong with it.",
    ),
    "3.1": Words(
        "The recipient's mail system is full.", "Send the message again later."
    ),
    "3.2": Words("The recipient's mail system takes no mail at present.", _LATER),
    "3.3": Words(
        "The recipient's mail system cannot do what the message asks for.",
        "Send it again without special demands, such as a time limit.",
    ),
    "3.4": _TOO_LARGE,
    "3.5": Words("A mail system on the way is not set up properly.", _BOTH_POSTMASTERS),
    "3.": Words(
        "The recipient's mail system is in trouble.", "Send the message again later."
    ),
    "4.3": Words(
        "The name servers of the recipient's domain did not answer.", _LATER
    ),
    "4.4": Words(
        "The recipient's domain names no mail system that could be found.",
        "Check the part of the address after the @ for a misspelling.",
    ),
    "4.6": Words(
        "The mail goes round in circles: it came back to where it had been before.",
        "An alias or a forwarding is wrong. Tell the recipient or your postmaster.",
    ),
    "4.7": Words("It could not be delivered within the time allowed.", _LATER),
    "4.": Words(_UNREACHABLE, _LATER),
    "5.3": Words(
        "There were too many recipients.", "Send the message in smaller groups."
    ),
    "5.": Words(
        "The two mail systems misunderstood each other.", "Tell your postmaster."
    ),
    "6.7": Words(
        "There are letters in an address that the recipient's mail system cannot take.",
        "Use addresses in plain letters (a to z) for yourself and for the recipient.",
    ),
    "6.": Words(
        "The form of the message was not accepted.",
        "Send it as plain text, without attachments.",
    ),
    "7.1": Words(
        f"{_BY_RULES} Perhaps you may not write to this address.", _ASK_POSTMASTER
    ),
    "7.2": Words(
        "You may not write to this list.", "Ask the owner of the list to admit you."
    ),
    "7.4": Words(
        "The mail systems found no protection or login that both accept.",
        _BOTH_POSTMASTERS,
    ),
    "7.5": Words(
        "The connection to the recipient's mail system could not be protected, or not "
        "so that it can be trusted.",
        _BOTH_POSTMASTERS,
    ),
    "7.8": Words("A mail system refused the login that it asks of ours.", _PROVE),
    "7.10": Words(
        "A protected connection (TLS) is needed, and there was none.",
        _BOTH_POSTMASTERS,
    ),
    "7.30": Words(
        "The message demands that all connections on its way be protected, and the "
        "recipient's mail system does not promise that.",
        "Send it without that demand, or ask the recipient's postmaster.",
    ),
    "7.20": Words(f"{_BY_RULES} A signature (DKIM) is missing or wrong.", _PROVE),
    "7.21": Words(f"{_BY_RULES} A signature (DKIM) is missing or wrong.", _PROVE),
    "7.22": Words(f"{_BY_RULES} A signature (DKIM) is missing or wrong.", _PROVE),
    "7.23": Words(f"{_BY_RULES} Our host may not send for your domain (SPF).", _PROVE),
    "7.24": Words(f"{_BY_RULES} The SPF record of your domain is wrong.", _PROVE),
    "7.25": Words(f"{_BY_RULES} Our host has no proper name in DNS.", _PROVE),
    "7.26": Words(f"{_BY_RULES} It is not proven that you sent it (DMARC).", _PROVE),
    "7.28": Words(
        f"{_BY_RULES} It has had too much mail at once.", "Send it again later."
    ),
    "7.": Words(_BY_RULES, _ASK_POSTMASTER),
}  # fmt: skip
_UNKNOWN = Words(
    "The message could not be delivered.",
    "Send the message again later, or ask your postmaster.",
)


def words_for(status: str) -> Words:
    """Return what a status code means; any text will do as one."""
    detail = status.partition(".")[2]
    subject = detail.partition(".")[0]
    return _WORDS.get(detail) or _WORDS.get(f"{subject}.") or _UNKNOWN


class Telling(NamedTuple):
    """What there is to tell besides the recipients.

    ``total`` is how many recipients there are, also those that are not shown;
    ``returned_whole`` says that the message follows, not its header only; ``note`` is
    a paragraph for the end, or empty.
    """

    total: int
    retry_until_us: int = 0
    returned_whole: bool = False
    note: str = ""


def human_part(
    kind: ReportKind,
    about: ReportedMessage,
    results: Sequence[RecipientResult],
    reporter: Reporter,
    telling: Telling,
) -> bytes:
    """Return the text in UTF-8 with CRLF."""
    is_one = telling.total == 1
    whom = "the address below" if is_one else f"the {telling.total} addresses below"
    stand = "stands" if is_one else "stand"
    beginning = _BEGINNINGS[kind].format(whom=whom, stand=stand)
    if kind is ReportKind.DELAYED and telling.retry_until_us:
        beginning += (
            f" We will keep trying until {reporter.date(telling.retry_until_us)}."
        )
    blocks = [f"This is the mail system at {reporter.hostname}."]
    if telling.note:
        blocks.append(_wrapped(telling.note))
    blocks += [_wrapped(beginning), _message_words(about, reporter)]
    blocks += [_recipient_words(kind, about, result) for result in results]
    if telling.total > len(results):
        blocks.append(f"... and {telling.total - len(results)} more recipients.")
    what = "your message" if telling.returned_whole else "the header of your message"
    blocks.append(_wrapped(f"The same facts for programs, and {what}, follow."))
    text = "\n\n".join(blocks) + "\n"
    return text.replace("\n", "\r\n").encode("utf-8", "replace")


def _message_words(about: ReportedMessage, reporter: Reporter) -> str:
    lines = []
    subject = (find(about.header, "Subject") or b"").decode("utf-8", "replace")
    if subject and "=?" not in subject:  # encoded words are nothing for people
        lines.append(f"Subject: {clean(subject[:_SUBJECT_CHARS_MAX])}")
    if about.envelope.arrival_us:
        lines.append(f"Received: {reporter.date(about.envelope.arrival_us)}")
    lines.append(f"Queue id: {about.queue_id}")
    return _indented("About this message:", lines)


def _recipient_words(
    kind: ReportKind, about: ReportedMessage, result: RecipientResult
) -> str:
    outcome, recipient = result.outcome, result.recipient
    name = f"<{clean(recipient.address.to_text())}>"
    written = _written(result)
    if written:
        name += f" (you wrote to: {written})"
    paragraphs = []
    if not isinstance(outcome, Delivered):
        happened = words_for(outcome.status).happened
        if kind is ReportKind.FAILED and isinstance(outcome, Deferred):
            happened = f"We kept trying until the time allowed was over. {happened}"
        paragraphs.append(_wrapped(happened, 4))
    if dialogue := _dialogue(about, result):
        paragraphs.append("\n".join(dialogue))
    if kind is ReportKind.FAILED:
        advice = words_for(outcome.status).advice
        paragraphs.append(_wrapped(f"What you can do: {advice}", 4))
    return f"{name}\n" + "\n\n".join(paragraphs)


def _written(result: RecipientResult) -> str:
    """Return the address that the sender wrote, if it is another one."""
    recipient = result.recipient
    own = recipient.address.to_text()
    original = original_recipient(recipient)
    written = original[1] if original and original[1] else accepted_as(recipient)
    return "" if written.lower() == own.lower() else clean(written)


def _dialogue(about: ReportedMessage, result: RecipientResult) -> list[str]:
    """Show what the other side said, and to what."""
    outcome = result.outcome
    said = said_of(outcome)
    if not said:
        return []
    if isinstance(outcome, Delivered) or not (outcome.peer and code_of(outcome)):
        return [_wrapped(line, 4) for line in said]
    lines = [f"    {clean(outcome.peer)} said:"]
    if command := _command(outcome.verb, about, result):
        lines.append(f"    >>> {clean(command)}")
    lines += [_wrapped(f"<<< {line}", 4, hanging=4) for line in said]
    return lines


def _command(verb: str, about: ReportedMessage, result: RecipientResult) -> str:
    match verb:
        case "MAIL":
            return f"MAIL From:<{about.envelope.sender.to_text()}>"
        case "RCPT":
            return f"RCPT To:<{result.recipient.address.to_text()}>"
        case "CONTENT":
            return "(the message)"
        case _:
            return verb


def _indented(first: str, lines: Sequence[str]) -> str:
    return "\n".join([first, *(f"    {line}" for line in lines)])


def _wrapped(text: str, indent: int = 0, hanging: int = 0) -> str:
    out, line, room = [], "", _COLUMNS - indent
    for word in _LONG_WORD.sub(r"\1 ", text).split(" "):
        if line and len(line) + len(word) >= room:
            out.append(line)
            line = " " * hanging + word
        else:
            line = f"{line} {word}" if line else word
    return "\n".join(" " * indent + each for each in [*out, line])
