"""The shape of a queue: how much waits for whom, how old it is, and who sent it.

Counted exactly, by reading the small tables once on a connection of its own, so that
neither the scheduler's questions nor the writer wait. A million messages take a few
tenths of a second. The age is taken from the queue id: for a second envelope (a list
with an owner) it is the time of its expansion.
"""

from collections.abc import Sequence
from contextlib import closing
from itertools import pairwise

import apsw
import msgspec

from postroom.mail.ids import number_of_time
from postroom.mail.now import MINUTE_US
from postroom.spool.database import open_read_only
from postroom.spool.spool import SpoolError

AGES_US = tuple(m * MINUTE_US for m in (5, 10, 20, 40, 80, 160, 320, 640, 1280))
"""The upper ends of the ages that are counted apart; there is one more, without."""
NAMES_MAX = 20_000
"""How many destinations and sender domains are told apart; the rest is ``OTHERS``."""
OTHERS = "(others)"
_NEVER = 1 << 62

# Each asked for in one packed row: every row is a step of SQLite, and in a busy worker
# a fight for the interpreter lock.
_OF_AGE = """
SELECT CAST(json_group_array(json_array(hop, waiting)) AS BLOB) FROM (
    SELECT hop, count(*) AS waiting FROM recipients NOT INDEXED
    WHERE message <= ? AND message > ? GROUP BY hop)
"""
_STOPPED = """
SELECT CAST(json_group_array(json_array(hop, waiting)) AS BLOB) FROM (
    SELECT hop, count(*) AS waiting FROM recipients NOT INDEXED
    WHERE state > 1 GROUP BY hop)
"""
_SENDERS = """
SELECT CAST(json_group_array(json_array(ending, sent, octets)) AS BLOB) FROM (
    SELECT substr(sender, instr(sender, '@')) AS ending, count(*) AS sent,
        sum(size) AS octets
    FROM messages GROUP BY ending)
"""
_COUNTED = msgspec.json.Decoder(list[tuple[str, int]])
_SENT = msgspec.json.Decoder(list[tuple[str, int, int]])


class HopShape(msgspec.Struct, frozen=True):
    """Recipients that wait for one destination, by age from young to old.

    ``stopped`` are those of them that are held or put aside.
    """

    hop: str
    by_age: tuple[int, ...]
    stopped: int = 0

    @property
    def recipients(self) -> int:
        """How many in all."""
        return sum(self.by_age)

    def __add__(self, other: "HopShape") -> "HopShape":
        """Return the sums."""
        by_age = tuple(map(sum, zip(self.by_age, other.by_age, strict=True)))
        return HopShape(self.hop, by_age, self.stopped + other.stopped)


class SenderShape(msgspec.Struct, frozen=True):
    """Messages that wait, by the domain of their envelope sender; ``""`` for none."""

    domain: str
    messages: int
    octets: int

    def __add__(self, other: "SenderShape") -> "SenderShape":
        """Return the sums."""
        return SenderShape(
            self.domain, self.messages + other.messages, self.octets + other.octets
        )


class Shape(msgspec.Struct, frozen=True):
    """What waits in one or more shards; the largest first."""

    hops: tuple[HopShape, ...] = ()
    senders: tuple[SenderShape, ...] = ()

    def __add__(self, other: "Shape") -> "Shape":
        """Return the sums."""
        hops = {each.hop: each for each in self.hops}
        for hop in other.hops:
            hops[hop.hop] = hops[hop.hop] + hop if hop.hop in hops else hop
        senders = {each.domain: each for each in self.senders}
        for sender in other.senders:
            before = senders.get(sender.domain)
            senders[sender.domain] = before + sender if before else sender
        return _in_order(list(hops.values()), list(senders.values()))


def read_shape(path: str, now_us: int) -> Shape:
    """Count what waits in the shard whose database lies at ``path``. Blocks.

    Raises:
        SpoolError: it cannot be read.
    """
    try:
        with closing(open_read_only(path)) as connection:
            return shape_of(connection, now_us)
    except apsw.Error as error:
        raise SpoolError(f"{path}: {error}") from error


def shape_of(connection: apsw.Connection, now_us: int) -> Shape:
    """Count what waits in an open shard. Blocks."""
    connection.execute("BEGIN")
    try:
        return _in_order(_hops(connection, now_us), _senders(connection))
    finally:
        connection.execute("ROLLBACK")


def _hops(connection: apsw.Connection, now_us: int) -> list[HopShape]:
    # One scan of a slice of the table for each age: the primary key begins with the
    # queue id, and so with the time. It is faster than any index or one large GROUP BY.
    edges = [_NEVER, *(number_of_time(now_us - age) for age in AGES_US), -1]
    counted: dict[str, list[int]] = {}
    for age, bounds in enumerate(pairwise(edges)):
        for hop, count in _COUNTED.decode(connection.execute(_OF_AGE, bounds).get):
            counted.setdefault(hop, [0] * len(edges[1:]))[age] = count
    stopped = dict(_COUNTED.decode(connection.execute(_STOPPED).get))
    return [HopShape(h, tuple(n), stopped.get(h, 0)) for h, n in counted.items()]


def _senders(connection: apsw.Connection) -> list[SenderShape]:
    # What stands behind the first "@" is quickly had, and nearly always the domain;
    # the few endings are made into domains here, not a million rows in SQL.
    found: dict[str, SenderShape] = {}
    for ending, messages, octets in _SENT.decode(connection.execute(_SENDERS).get):
        domain = ending.rpartition("@")[2].lower() if "@" in ending else ""
        shape = SenderShape(domain, messages, octets)
        found[domain] = found[domain] + shape if domain in found else shape
    return list(found.values())


def _in_order(hops: list[HopShape], senders: list[SenderShape]) -> Shape:
    hops.sort(key=lambda each: (-each.recipients, each.hop))
    senders.sort(key=lambda each: (-each.messages, each.domain))
    return Shape(_hops_cut(hops), _senders_cut(senders))


def _hops_cut(hops: Sequence[HopShape]) -> tuple[HopShape, ...]:
    if len(hops) <= NAMES_MAX:
        return tuple(hops)
    rest = HopShape(OTHERS, (0,) * len(hops[0].by_age))
    for each in hops[NAMES_MAX - 1 :]:
        rest += each
    return (*hops[: NAMES_MAX - 1], rest)


def _senders_cut(senders: Sequence[SenderShape]) -> tuple[SenderShape, ...]:
    if len(senders) <= NAMES_MAX:
        return tuple(senders)
    rest = SenderShape(OTHERS, 0, 0)
    for each in senders[NAMES_MAX - 1 :]:
        rest += each
    return (*senders[: NAMES_MAX - 1], rest)
