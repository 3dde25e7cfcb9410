"""What a delivery report says to a person: what happened, to whom, and what to do.

Pure. Text that came from peers or clients is made harmless before it gets here.
"""

from enum import StrEnum


class ReportKind(StrEnum):
    """What a report tells; the values are those of Action (RFC 3464 §2.3.3)."""

    FAILED = "failed"
    DELAYED = "delayed"
    DELIVERED = "delivered"
    RELAYED = "relayed"
    EXPANDED = "expanded"


SUBJECTS = {
    ReportKind.FAILED: "Undelivered mail returned to sender",
    ReportKind.DELAYED: "Your mail is delayed, delivery goes on being tried",
    ReportKind.DELIVERED: "Your mail was delivered",
    ReportKind.RELAYED: "Your mail was passed on to another system",
    ReportKind.EXPANDED: "Your mail was passed on to the members of a list",
}

_BEGINNINGS = {
    ReportKind.FAILED: (
        "Your message could not be delivered to the recipients named below.\n"
        "It will not be tried again. The reason, and what can be done, stands\n"
        "below each recipient."
    ),
    ReportKind.DELAYED: (
        "This is a warning only: YOU NEED NOT SEND YOUR MESSAGE AGAIN.\n"
        "It could not be delivered yet to the recipients named below."
    ),
    ReportKind.DELIVERED: (
        "Your message was delivered to the recipients named below. This does\n"
        "not mean that it was read."
    ),
    ReportKind.RELAYED: (
        "Your message was passed on for the recipients named below to a mail\n"
        "system that does not report deliveries. No further report will come\n"
        "unless it fails."
    ),
    ReportKind.EXPANDED: (
        "The addresses named below stand for several others, to whom your\n"
        "message was passed on. Failures may still be reported."
    ),
}

# By the status without its class (RFC 3463 §3), the most precise first.
_ADVICE = (
    ("1.1", "Check the part of the address before the @ for a misspelling."),
    ("1.10", "The domain takes no mail at all. Ask the recipient for another address."),
    ("1.2", "Check the part of the address after the @ for a misspelling."),
    ("1.", "Check the address."),
    ("2.1", "The mailbox is closed. Ask the recipient for another address."),
    ("2.2", "The mailbox is full. Tell the recipient by other means, or wait."),
    ("2.3", "The message is too large. Send it in smaller pieces."),
    ("3.4", "The message is too large. Send it in smaller pieces."),
    ("3.", "The recipient's mail system is in trouble. Send the message again later."),
    ("4.6", "The mail goes round in circles. Tell your postmaster."),
    ("4.", "The recipient's mail system could not be reached. Send the message again"
     "\n    later, or tell the recipient's postmaster by other means."),
    ("5.3", "There were too many recipients. Send the message in smaller groups."),
    ("5.", "The two mail systems misunderstood each other. Tell your postmaster."),
    ("6.", "The form of the message was not accepted. Send it as plain text."),
    ("7.", "The recipient's mail system refuses the message by its rules. If they seem"
     "\n    wrong to you, ask its postmaster, and enclose this report."),
)  # fmt: skip


def advice(status: str) -> str:
    """Return one sentence on what the sender can do about a failure."""
    detail = status.partition(".")[2]
    for prefix, sentence in _ADVICE:
        if detail == prefix or (prefix.endswith(".") and detail.startswith(prefix)):
            return sentence
    return "Send the message again later, or ask your postmaster."


def beginning(kind: ReportKind, hostname: str, retry_until: str) -> str:
    """Return the first paragraphs of a report.

    ``retry_until`` is the date until which a delayed message is tried, or empty.
    """
    text = f"This is the mail system at {hostname}.\n\n{_BEGINNINGS[kind]}"
    if kind is ReportKind.DELAYED and retry_until:
        text += f"\nIt will be tried until {retry_until}."
    return text
