"""Service extensions: what a client reads in a server's hello (``offer.py`` says ours).

A keyword that is not known is kept by name and otherwise ignored (RFC 5321 §2.2.2).
"""

import re
from collections.abc import Iterable

import msgspec

from postroom.mail.reply import Reply

# ehlo-keyword = (ALPHA / DIGIT) *(ALPHA / DIGIT / "-")
_KEYWORD = re.compile(r"([A-Za-z0-9][A-Za-z0-9\-]*)(?:[ =](.*))?")
_SIZE = re.compile(r"[0-9]{1,20}")
# min-by-time = 1*9DIGIT (RFC 2852 §2)
_BY_MIN = re.compile(r"[0-9]{1,9}")
# limits-param = limit-name-value 0*[SP limit-name-value] (RFC 9422 §3)
_LIMIT = re.compile(r"(?<!\S)([A-Za-z0-9_\-]+)=([0-9]{1,6})(?!\S)")


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

    def without(self, keywords: Iterable[str]) -> "Extensions":
        """Return them as if these had not been offered."""
        hidden = frozenset(keyword.upper() for keyword in keywords)
        return Extensions(
            {name: said for name, said in self.keywords.items() if name not in hidden}
        )

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
    def chunking(self) -> bool:
        """Content may come in chunks that are sent ahead (RFC 3030 §2, RFC 2920)."""
        return "CHUNKING" in self.keywords and "PIPELINING" in self.keywords

    @property
    def binary_mime(self) -> bool:
        """Content may be any octets, in chunks (RFC 3030 §3)."""
        return "BINARYMIME" in self.keywords and self.chunking

    @property
    def smtputf8(self) -> bool:
        """Addresses and header may hold UTF-8 (RFC 6531)."""
        return "SMTPUTF8" in self.keywords

    @property
    def dsn(self) -> bool:
        """MAIL and RCPT may ask for delivery reports (RFC 3461)."""
        return "DSN" in self.keywords

    @property
    def deliver_by(self) -> bool:
        """MAIL may say until when a message is to be delivered (RFC 2852)."""
        return "DELIVERBY" in self.keywords

    @property
    def deliver_by_s_min(self) -> int:
        """The shortest time the server promises with BY (RFC 2852 §2); 0: any."""
        value = self.keywords.get("DELIVERBY", "").partition(",")[0]
        return int(value) if _BY_MIN.fullmatch(value) else 0

    @property
    def mt_priority(self) -> bool:
        """MAIL may say how urgent a message is (RFC 6710)."""
        return "MT-PRIORITY" in self.keywords

    @property
    def requiretls(self) -> bool:
        """MAIL may demand TLS on all of the way (RFC 8689)."""
        return "REQUIRETLS" in self.keywords

    @property
    def prdr(self) -> bool:
        """The content may get a reply per recipient (draft-hall-prdr-00 §4.1)."""
        return "PRDR" in self.keywords

    @property
    def recipients_max(self) -> int:
        """Recipients that one transaction may name (RFC 9422 §4); 0: not said."""
        return self._limit("RCPTMAX")

    @property
    def messages_max(self) -> int:
        """Transactions that one session may hold (RFC 9422 §4); 0: not said."""
        return self._limit("MAILMAX")

    @property
    def recipient_domains_max(self) -> int:
        """Domains of one transaction's recipients (RFC 9422 §4); 0: not said."""
        return self._limit("RCPTDOMAINMAX")

    def _limit(self, name: str) -> int:
        # RFC 9422 §4: zero would allow nothing; it and what is no number say nothing
        for match in _LIMIT.finditer(self.keywords.get("LIMITS", "")):
            if match[1].upper() == name:
                return int(match[2])
        return 0

    @property
    def starttls(self) -> bool:
        """The session can be encrypted (RFC 3207)."""
        return "STARTTLS" in self.keywords

    @property
    def auth_mechanisms(self) -> tuple[str, ...]:
        """The SASL mechanisms offered (RFC 4954), in upper case."""
        return tuple(self.keywords.get("AUTH", "").upper().split())
