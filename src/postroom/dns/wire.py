"""Reads the records of a DNS message (RFC 1035 §4.1). Pure.

Bounded work, whatever the octets are: in 64 KiB there is room for five thousand
pointers at one name of 127 labels, and following each of them anew would keep a worker
busy for seconds. So a name that is pointed at is read once and remembered, and a
message with more records than anybody needs is none. What makes no sense raises
``WireError``.
"""

import re
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

import msgspec

RECORDS_MAX = 1000
"""How many records one message may have."""

NAME_OCTETS_MAX = 255  # RFC 1035 §2.3.4
LABEL_OCTETS_MAX = 63  # RFC 1035 §2.3.4
JUMPS_MAX = 127  # a name has no more labels that a pointer could stand behind

NS, CNAME, SOA, PTR, MX, TXT = 2, 5, 6, 12, 15, 16
A, AAAA, OPT = 1, 28, 41
TYPES = {"A": A, "CNAME": CNAME, "PTR": PTR, "MX": MX, "TXT": TXT, "AAAA": AAAA}
"""The types that are asked for, by name (RFC 1035 §3.2.2)."""

_IN = 1
_HEADER_OCTETS = 12
_FIXED_OCTETS = 10  # type, class, TTL and length, behind the owner
_PLAIN = re.compile(rb"[A-Za-z0-9_\-.]*")
_ODD = re.compile(r"[^A-Za-z0-9_\-]")


class WireError(ValueError):
    """The octets are no DNS message; the text says why."""


class WireRecord(msgspec.Struct, frozen=True, gc=False):
    """One record of class IN; its data is between ``start`` and ``end``.

    ``owner`` is lower case without final dot; empty where nobody asks for it.
    """

    owner: str
    rdtype: int
    ttl_s: int
    start: int
    end: int


class _Name(NamedTuple):
    """A name: its text, its octets when written out, and where what follows begins."""

    text: str
    octets: int
    end: int


_ROOT = _Name("", 1, 0)


class WireMessage:
    """The records of one message, and what their data says.

    Args:
        wire: the octets, whose header and one question have been looked at.
        start: where the answer section begins.

    Attributes:
        rcode: the response code, with what EDNS adds to it (RFC 6891 §6.1.3).
        is_authoritative: whether AA is set.

    Raises:
        WireError: it makes no sense, or has too many records.
    """

    def __init__(self, wire: bytes, start: int) -> None:
        self._wire = wire
        self._known: dict[int, _Name] = {}
        self.is_authoritative = bool(wire[2] & 0x04)
        answers, authorities, others = (_number(wire, at) for at in (6, 8, 10))
        if answers + authorities + others > RECORDS_MAX:
            raise WireError(f"more than {RECORDS_MAX} records")
        self.answer, at = self._section(start, answers, owners=True)
        self.authority, at = self._section(at, authorities)
        self.rcode = wire[3] & 0x0F | self._extended_rcode(at, others)

    def name(self, record: WireRecord, skip: int = 0) -> str:
        """Return the name that is a record's data, behind ``skip`` octets."""
        found = self._name(record.start + skip)
        if found.end != record.end:
            raise WireError("a name does not end with its record")
        return found.text

    def number(self, record: WireRecord) -> int:
        """Return the number of two octets that a record's data begins with."""
        if record.end - record.start < 2:
            raise WireError("a record is too short")
        return _number(self._wire, record.start)

    def address(self, record: WireRecord) -> str:
        """Return the IP address that is a record's data."""
        data = self._wire[record.start : record.end]
        if len(data) != (4 if record.rdtype == A else 16):
            raise WireError("an address of the wrong length")
        return str(IPv4Address(data) if record.rdtype == A else IPv6Address(data))

    def text(self, record: WireRecord) -> str:
        """Return the strings of a TXT record joined, octets as Latin-1."""
        strings, at = list[bytes](), record.start
        while at < record.end:
            after = at + 1 + self._wire[at]
            strings.append(self._wire[at + 1 : after])
            at = after
        if at != record.end or not strings:
            raise WireError("a string does not end with its record")
        return b"".join(strings).decode("latin-1")

    def soa_minimum_s(self, record: WireRecord) -> int:
        """Return the MINIMUM field of a SOA record (RFC 1035 §3.3.13): its last."""
        if record.end - record.start < 22:  # two names and five numbers
            raise WireError("a SOA record is too short")
        return int.from_bytes(self._wire[record.end - 4 : record.end], "big")

    def _section(
        self, at: int, count: int, *, owners: bool = False
    ) -> tuple[list[WireRecord], int]:
        """Read so many records; return those of class IN, and where they end."""
        wire, records = self._wire, list[WireRecord]()
        for _ in range(count):
            owner = self._name(at).text if owners else ""
            at = self._behind_name(at)
            start = at + _FIXED_OCTETS
            end = start + _number(wire, at + 8)
            if end > len(wire):
                raise WireError("a record is cut off")
            if _number(wire, at + 2) == _IN:
                ttl_s = int.from_bytes(wire[at + 4 : at + 8], "big")
                records.append(WireRecord(owner, _number(wire, at), ttl_s, start, end))
            at = end
        return records, at

    def _extended_rcode(self, at: int, count: int) -> int:
        """Return the upper bits of the response code, from the OPT record if any."""
        wire, upper = self._wire, 0
        for _ in range(count):
            at = self._behind_name(at)
            size = _number(wire, at + 8)
            if _number(wire, at) == OPT:
                upper = wire[at + 4] << 4  # its TTL begins with them
            at += _FIXED_OCTETS + size
            if at > len(wire):
                raise WireError("a record is cut off")
        return upper

    def _behind_name(self, at: int) -> int:
        """Return where a name ends, without following pointers."""
        while length := _octet(self._wire, at):
            if length >= 0xC0:
                return at + 2
            if length > LABEL_OCTETS_MAX:
                raise WireError("a label of no known kind")
            at += 1 + length
        return at + 1

    def _name(self, start: int, jumps: int = 0) -> _Name:
        """Read the name that begins somewhere."""
        wire, labels, at, rest = self._wire, list[bytes](), start, _ROOT
        while length := _octet(wire, at):
            if length >= 0xC0:
                rest = self._pointed(_number(wire, at) & 0x3FFF, start, jumps)
                break
            if length > LABEL_OCTETS_MAX:
                raise WireError("a label of no known kind")
            labels.append(wire[at + 1 : at + 1 + length])
            at += 1 + length
            if at - start >= NAME_OCTETS_MAX:
                raise WireError("a name is too long")
        octets = at - start + rest.octets
        if octets > NAME_OCTETS_MAX:
            raise WireError("a name is too long")
        return _Name(_joined(labels, rest.text), octets, at + 2 if length else at + 1)

    def _pointed(self, target: int, start: int, jumps: int) -> _Name:
        """Read the name that a pointer leads to, once for all pointers.

        Pointers lead backwards (RFC 1035 §4.1.4: to a prior occurrence), so that they
        come to an end.
        """
        known = self._known.get(target)
        if known is None:
            if not _HEADER_OCTETS <= target < start:
                raise WireError("a pointer that does not lead back to a name")
            if jumps >= JUMPS_MAX:
                raise WireError("too many pointers behind one another")
            known = self._known[target] = self._name(target, jumps + 1)
        return known


def _number(wire: bytes, at: int) -> int:
    if at + 2 > len(wire):
        raise WireError("it is cut off")
    return wire[at] << 8 | wire[at + 1]


def _octet(wire: bytes, at: int) -> int:
    if at >= len(wire):
        raise WireError("it is cut off")
    return wire[at]


def _joined(labels: list[bytes], rest: str) -> str:
    r"""Join labels with the rest of a name; odd octets become ``\DDD``."""
    if not labels:
        return rest
    joined = b".".join(labels)
    if _PLAIN.fullmatch(joined) and joined.count(b".") == len(labels) - 1:
        text = joined.decode("ascii").lower()
    else:
        text = ".".join(_ODD.sub(_escaped, one.decode("latin-1")) for one in labels)
        text = text.lower()
    return f"{text}.{rest}" if rest else text


def _escaped(odd: re.Match[str]) -> str:
    return f"\\{ord(odd[0]):03d}"
