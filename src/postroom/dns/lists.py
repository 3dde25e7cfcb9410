"""Lists of clients in the DNS (RFC 5782): what to ask, and what an answer means. Pure.

A list is written as Postfix writes it: ``zen.spamhaus.org=127.0.0.[2..11]*3`` is the
zone, which of its answers count, and with what weight; a negative weight is for lists
of good clients. An answer outside 127.0.0.0/8 means nothing: a zone that was given up
often answers with an address of the web for whatever is asked.
"""

import re
from enum import Enum
from ipaddress import ip_address

import msgspec

from postroom.dns.names import to_ascii

WEIGHT_MAX = 1_000
_SPEC = re.compile(
    r"(?P<zone>[^=*\s]+)(?:=(?P<answers>[^*\s]+))?(?:\*(?P<weight>-?\d{1,4}))?"
)
_PART = re.compile(r"\d{1,3}(?:\.\.\d{1,3})?(?:;\d{1,3}(?:\.\.\d{1,3})?)*")
_DOT = re.compile(r"\.(?![^\[]*\])")  # one that is not within brackets
_EXAMPLE = 'write "zen.spamhaus.org=127.0.0.[2..11]*3"'

Octets = frozenset[int]


class Meaning(Enum):
    """What an address in an answer says."""

    LISTED = "listed"
    """The client is on the list."""
    TROUBLE = "trouble"
    """The list does not serve us, or has ended: nothing is said of the client."""
    NOTHING = "nothing"
    """Another answer than those that count."""


class DnsList(msgspec.Struct, frozen=True):
    """One list: its zone, its weight, and the answers that count (none named: all)."""

    zone: str
    weight: int = 1
    answers: tuple[Octets, Octets, Octets, Octets] | None = None

    @classmethod
    def from_text(cls, text: str) -> "DnsList":
        """Read ``zone``, ``zone=127.0.0.[2..11]``, ``zone*-5`` and the like.

        Raises:
            ValueError: the text is no list; the message says what is expected.
        """
        found = _SPEC.fullmatch(text)
        zone = to_ascii(found["zone"]) if found else None
        if not found or zone is None or "." not in zone:
            raise ValueError(f'"{text}" is no DNS list: {_EXAMPLE}')
        weight = int(found["weight"] or 1)
        if not weight or abs(weight) > WEIGHT_MAX:
            raise ValueError(
                f'"{text}": a weight is a number from -{WEIGHT_MAX} to {WEIGHT_MAX}, '
                "but not 0"
            )
        answers = found["answers"]
        return cls(zone, weight, _answers(text, answers) if answers else None)

    def question(self, ip: str) -> str:
        """Return the name to ask for: the address backwards, then the zone.

        Raises:
            ValueError: ``ip`` is no address.
        """
        return f"{reversed_address(ip)}.{self.zone}"

    def meaning(self, answer: str) -> Meaning:
        """Say what one address in the answer means."""
        try:
            parts = [int(part) for part in answer.split(".")]
        except ValueError:
            return Meaning.NOTHING
        if len(parts) != 4 or parts[0] != 127:
            return Meaning.TROUBLE
        # RFC 5782 §5: 127.0.0.1 must not be listed; a list of the world says it.
        # 127.255.255.0/24: errors of Spamhaus (wrong zone, public resolver, too many).
        if parts[1:3] == [255, 255] or parts == [127, 0, 0, 1]:
            return Meaning.TROUBLE
        if self.answers is None:
            return Meaning.LISTED
        is_meant = all(
            part in some for part, some in zip(parts, self.answers, strict=True)
        )
        return Meaning.LISTED if is_meant else Meaning.NOTHING


def reversed_address(ip: str) -> str:
    """Return an address backwards: IPv4 by octets, IPv6 by nibbles (RFC 5782 §2.4).

    Raises:
        ValueError: the text is no address.
    """
    address = ip_address(ip)
    address = getattr(address, "ipv4_mapped", None) or address
    return address.reverse_pointer.rsplit(".", 2)[0]


def _answers(text: str, pattern: str) -> tuple[Octets, Octets, Octets, Octets]:
    sets = [_octets(text, part) for part in _DOT.split(pattern)]
    if len(sets) != 4:
        raise ValueError(f'"{text}": an answer has four parts: {_EXAMPLE}')
    if 127 not in sets[0]:
        raise ValueError(f'"{text}": lists answer in 127.0.0.0/8: {_EXAMPLE}')
    return sets[0], sets[1], sets[2], sets[3]


def _octets(text: str, part: str) -> Octets:
    if part.startswith("[") and part.endswith("]"):
        part = part[1:-1]
    if not _PART.fullmatch(part):
        raise ValueError(f'"{text}": "{part}" is no part of an address: {_EXAMPLE}')
    found: set[int] = set()
    for piece in part.split(";"):
        first, _, last = piece.partition("..")
        low, high = int(first), int(last or first)
        if not low <= high <= 255:
            raise ValueError(f'"{text}": "{piece}" is no range within 0..255')
        found.update(range(low, high + 1))
    return frozenset(found)
