"""What HELP says: the commands that there are, or one of them explained.

Only what this listener understands is told of. An unknown topic is 504 5.3.0.
"""

from functools import lru_cache

from postroom.mail.reply import Reply
from postroom.smtp.settings import ServerSettings

_TEXTS: dict[str, tuple[str, ...]] = {
    "EHLO": (
        "EHLO <name>",
        "Introduce yourself, by your host's name or [address],",
        "and be told which extensions are offered.",
    ),
    "HELO": ("HELO <name>", "Introduce yourself, as clients of old do."),
    "LHLO": ("LHLO <name>", "Introduce yourself to this LMTP server."),
    "MAIL": (
        "MAIL FROM:<sender> [parameters]",
        "Begin a message. The sender is told if it cannot be delivered;",
        "<> is for messages that nobody is to be told of.",
    ),
    "RCPT": (
        "RCPT TO:<recipient> [parameters]",
        "Name one recipient; say it once for each of them.",
    ),
    "DATA": (
        "DATA",
        "The message follows, header and body. A line with a dot alone ends it;",
        "double a dot that begins a line.",
    ),
    "BDAT": (
        "BDAT <octets> [LAST]",
        "So many octets of the message follow at once; LAST ends it.",
    ),
    "RSET": ("RSET", "Forget the message that was begun."),
    "QUIT": ("QUIT", "End the session."),
    "NOOP": ("NOOP [text]", "Do nothing."),
    "HELP": ("HELP [topic]", "Explain a command."),
    "VRFY": ("VRFY <user>", "Ask whether there is such a user."),
    "EXPN": ("EXPN <list>", "Ask who is on a list."),
    "ETRN": (
        "ETRN <domain> | @<domain> | #<hop>",
        "Have mail tried now that waits for a domain, a domain and all below it,",
        "or a next hop.",
    ),
    "VERB": ("VERB", "Be told what is done with your messages."),
    "STARTTLS": ("STARTTLS", "Encrypt the session."),
    "AUTH": ("AUTH <mechanism> [initial response]", "Log in."),
}


@lru_cache(maxsize=64)
def guide(topic: str, settings: ServerSettings, *, lmtp: bool) -> Reply:
    """Return the answer to HELP, about a topic or in general."""
    known = _known(settings, lmtp=lmtp)
    if not topic:
        return Reply(
            214,
            "2.0.0",
            (
                f"Commands: {' '.join(known)}",
                "HELP <command> explains one of them.",
                "For questions write to postmaster at this host.",
            ),
        )
    word = topic.upper()
    if word not in known:
        shown = topic[:32] if topic.isascii() else "?"
        return Reply(504, "5.3.0", (f'HELP topic "{shown}" unknown',))
    return Reply(214, "2.0.0", _TEXTS[word])


def _known(settings: ServerSettings, *, lmtp: bool) -> tuple[str, ...]:
    absent = {"EHLO", "HELO"} if lmtp else {"LHLO"}
    for word, is_there in (
        ("BDAT", settings.chunking),
        ("EXPN", settings.expn),
        ("ETRN", settings.etrn),
        ("VERB", settings.verb),
        ("STARTTLS", settings.starttls),
        ("AUTH", settings.auth_mechanisms),
    ):
        if not is_there:
            absent.add(word)
    return tuple(word for word in _TEXTS if word not in absent)
