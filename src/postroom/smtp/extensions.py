"""Service extensions: what a server's hello offers, and what a client reads in one.

A keyword that is not known is kept by name and otherwise ignored (RFC 5321 §2.2.2).
"""

import re
from functools import lru_cache

import msgspec

from postroom.mail.reply import Reply
from postroom.smtp.dialogue import Verb
from postroom.smtp.settings import ServerSettings

# ehlo-keyword = (ALPHA / DIGIT) *(ALPHA / DIGIT / "-")
_KEYWORD = re.compile(r"([A-Za-z0-9][A-Za-z0-9\-]*)(?:[ =](.*))?")
_SIZE = re.compile(r"[0-9]{1,20}")


@lru_cache(maxsize=64)
def hello_reply(
    settings: ServerSettings,
    hostname: str,
    verb: Verb = Verb.EHLO,
    *,
    tls: bool = False,
    authenticated: bool = False,
    mechanisms: tuple[str, ...] | None = None,
) -> Reply:
    """Return the answer to HELO, EHLO or LHLO (RFC 5321 §4.1.1.1).

    ``tls`` and ``authenticated`` say what the session already has, so that it is not
    offered again (RFC 3207 §4.2, RFC 4954 §4). ``mechanisms`` are those that work just
    now; None: all of the settings.
    """
    if verb is Verb.HELO:
        return Reply(250, "", (hostname,))
    lines = [hostname, "PIPELINING", "8BITMIME"]
    size = int(settings.message_octets_max)
    lines.append(f"SIZE {size}" if size else "SIZE")  # RFC 1870 §4
    lines.append("ENHANCEDSTATUSCODES")
    if settings.dsn:
        lines.append("DSN")  # RFC 3461 §2: no parameters
    if settings.starttls and not tls:
        lines.append("STARTTLS")
    if mechanisms is None:
        mechanisms = settings.auth_mechanisms
    if mechanisms and not authenticated:
        lines.append(f"AUTH {' '.join(mechanisms)}")
    lines.append("HELP")
    return Reply(250, "", tuple(lines))


class Extensions(msgspec.Struct, frozen=True):
    """What a server offered.

    ``keywords`` are all of them in upper case with their parameters as written.
    ``size_octets_max`` is the limit that SIZE named, 0 if none.
    """

    keywords: dict[str, str] = {}

    @classmethod
    def from_reply(cls, reply: Reply) -> "Extensions":
        """Read the reply to EHLO; its first line only names the server."""
        keywords: dict[str, str] = {}
        for line in reply.lines[1:]:
            match = _KEYWORD.fullmatch(line.strip())
            if match:
                keywords.setdefault(match[1].upper(), (match[2] or "").strip())
        return cls(keywords)

    def __contains__(self, keyword: str) -> bool:
        return keyword in self.keywords

    @property
    def pipelining(self) -> bool:
        """Commands may be sent ahead of replies (RFC 2920)."""
        return "PIPELINING" in self.keywords

    @property
    def size(self) -> bool:
        """MAIL may declare the size (RFC 1870)."""
        return "SIZE" in self.keywords

    @property
    def size_octets_max(self) -> int:
        """The largest message the server says it takes; 0: it does not say."""
        value = self.keywords.get("SIZE", "")
        return int(value) if _SIZE.fullmatch(value) else 0

    @property
    def eight_bit_mime(self) -> bool:
        """MAIL may declare 8-bit content (RFC 6152)."""
        return "8BITMIME" in self.keywords

    @property
    def dsn(self) -> bool:
        """MAIL and RCPT may ask for delivery reports (RFC 3461)."""
        return "DSN" in self.keywords

    @property
    def starttls(self) -> bool:
        """The session can be encrypted (RFC 3207)."""
        return "STARTTLS" in self.keywords

    @property
    def auth_mechanisms(self) -> tuple[str, ...]:
        """The SASL mechanisms offered (RFC 4954), in upper case."""
        return tuple(self.keywords.get("AUTH", "").upper().split())
