"""What answers are read from: DNS messages, and the aliases file."""

from ipaddress import ip_address
from typing import get_args

from postroom.dns.answer import (
    Continues,
    DnsFailed,
    NotOurs,
    Query,
    Records,
    RecordType,
    Refused,
    TtlLimits,
    read_reply,
)
from postroom.mail.address import Address
from postroom.mail.units import Size
from postroom.tables.aliases import Targets, parse_aliases
from postroom.tables.settings import TableSettings
from postroom.tables.table import LineError, Parsed
from postroom.tables.targets import INCLUDE

KINDS: tuple[RecordType, ...] = get_args(RecordType)
QUERIES = {kind: Query.make("a.test", kind, 4711) for kind in KINDS}
LIMITS = TtlLimits(ttl_us_max=86_400_000_000, negative_ttl_us_max=3_600_000_000)
TABLE = TableSettings(entries_max=100, line_octets_max=Size(2000))
HEADER = 11
"""Octets of an input before its records: the kind, and a header without its id."""


def seed_of(kind: RecordType, wire: bytes) -> bytes:
    """Return the input that stands for a reply."""
    start = 12 + len(QUERIES[kind].question)
    return bytes([KINDS.index(kind)]) + wire[2:12] + wire[start:]


def dns_answers(data: bytes) -> None:
    """Octets behind a question of ours: judged, and only what may be told is."""
    if len(data) < HEADER:
        return
    kind = KINDS[data[0] % len(KINDS)]
    query = QUERIES[kind]
    head = query.wire[:2] + data[1:3] + b"\0\1" + data[5:HEADER]
    found = read_reply(head + query.question + data[HEADER:], query, LIMITS)
    match found:
        case Records(values, ttl_us, exchanges):
            assert 0 <= ttl_us <= LIMITS.ttl_us_max
            assert (exchanges and not values) if kind == "MX" else values
            for mx in exchanges:
                assert 0 <= mx.preference <= 65535
                judge_name(mx.exchange)
            for value in values:
                if kind in ("A", "AAAA"):
                    assert ip_address(value).version == (4 if kind == "A" else 6)
                elif kind != "TXT":
                    judge_name(value)
        case Continues(target, seen):
            judge_name(target)
            assert target in seen
        case Refused(reason) | DnsFailed(reason):
            assert reason.isprintable()
        case NotOurs():
            assert data[1] & 0xF8 != 0x80


def judge_name(name: str) -> None:
    assert name.isascii()
    assert name.isprintable()
    assert name == name.lower()


def aliases(data: bytes) -> None:
    """An aliases file: refused with its line, or read, each target in one form."""
    text = data.decode("utf-8", "replace")
    parsed = read_aliases(text)
    if isinstance(parsed, LineError):
        assert 1 <= parsed.line <= text.count("\n") + 1
        assert parsed.error
        return
    for name, targets in parsed.entries.items():
        assert name == name.lower()
        assert not any(char.isspace() for char in name)
        assert targets
        for target in targets:
            judge_target(target)
    for warned in parsed.warnings:
        assert 1 <= warned.line <= text.count("\n") + 1


def read_aliases(text: str) -> Parsed[Targets] | LineError:
    try:
        return parse_aliases(text, TABLE)
    except LineError as error:
        return error


def judge_target(target: str) -> None:
    """Whether a target is one of those that expansion knows."""
    if target[0] in "|/":
        return
    if target.startswith(INCLUDE):
        assert target.removeprefix(INCLUDE).startswith("/")
        return
    address = Address.from_text(target.removeprefix("\\"))
    assert not address.is_null
    assert address.to_text() == target.removeprefix("\\")
