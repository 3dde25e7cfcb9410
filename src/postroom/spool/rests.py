"""Hops that are left alone, and their mail that is too old to be left alone with them.

A rest is one row, however much waits for the hop: recipients are not changed by it,
they are only not found due meanwhile. What must not wait for the rest's end are
messages whose sender is to be warned, or that are to be given up: ``Elders`` finds them
round by round. The acts run in the writer thread, the questions in the reader thread.
"""

# ruff: noqa: S608 (statements are made of constants only; values are bound)
from collections.abc import Sequence

import apsw
import msgspec

from postroom.mail.ids import number_of_time
from postroom.spool import claims, rows, statements
from postroom.spool.bodies import BodyDirectory
from postroom.spool.changes import Group
from postroom.spool.claims import Bounds, Broken, Found
from postroom.spool.leases import Watch
from postroom.spool.rows import RecipientRow
from postroom.spool.spool import Patience, Rest

LOOKED_AT_MAX = 5_000
"""How many messages one question for elders looks at."""
ELDERS_MAX = 50
"""How many messages one such question returns."""
_RECIPIENTS_MAX = 1_000
_FORGOTTEN_AFTER_US = 86_400_000_000
"""So long after its end a rest is forgotten: had the hop mail, it would rest again."""
FIRST = -1
_NEVER = 1 << 62

_RESTING = (
    "r.state = 0 AND EXISTS(SELECT 1 FROM rests WHERE hop = r.hop AND until > ?1)"
)
_LAST = "SELECT max(id) FROM (SELECT id FROM messages WHERE id > ? AND id <= ? LIMIT ?)"
# An id tells when its message came, so no index of ages is needed. What its sender had
# held (RFC 4865) is as old as its release.
_ELDERS = f"""
SELECT CAST(json_group_array(id) AS BLOB) FROM (
    SELECT id FROM messages AS m WHERE id > ?2 AND id <= ?3
    AND ((id <= CASE sender WHEN '' THEN ?5 ELSE ?4 END
            AND hold_until <= CASE sender WHEN '' THEN ?8 ELSE ?7 END)
        OR (warned = 0 AND sender <> '' AND id <= ?6 AND hold_until <= ?9))
    AND EXISTS(SELECT 1 FROM recipients AS r WHERE message = m.id AND {_RESTING})
    ORDER BY id LIMIT ?10)
"""
_RECIPIENTS = (
    f"SELECT CAST(json_group_array(json_array({rows.RECIPIENT_FIELDS})) AS BLOB)"
    f" FROM (SELECT {rows.RECIPIENT_FIELDS} FROM recipients AS r"
    f" WHERE message IN carray(?2) AND {_RESTING}"
    f" ORDER BY message, number LIMIT {_RECIPIENTS_MAX})"
)
_NUMBERS = msgspec.json.Decoder(list[int])
_RECIPIENT_LIST = msgspec.json.Decoder(list[RecipientRow])


class SetRest(msgspec.Struct, frozen=True):
    """Notes the rest of a hop."""

    hop: str
    rest: Rest

    def __call__(self, group: Group) -> None:
        """Apply."""
        rest = self.rest
        group.connection.execute(
            "INSERT OR REPLACE INTO rests(hop, until, status, text) VALUES(?, ?, ?, ?)",
            (self.hop, rest.until_us, rest.status, rest.text),
        )


class EndRests(msgspec.Struct, frozen=True):
    """Forgets the rests of some hops; None: of all."""

    hops: tuple[str, ...] | None

    def __call__(self, group: Group) -> None:
        """Apply."""
        if self.hops is None:
            group.connection.execute("DELETE FROM rests")
            return
        for hop in self.hops:
            group.connection.execute("DELETE FROM rests WHERE hop = ?", (hop,))


def read_rests(connection: apsw.Connection, now_us: int) -> dict[str, Rest]:
    """Read all rests as a shard is opened, and remove those long over. Blocks."""
    long_ago = (now_us - _FORGOTTEN_AFTER_US,)
    connection.execute("DELETE FROM rests WHERE until < ?", long_ago)
    found = connection.execute("SELECT hop, until, status, text FROM rests")
    return {hop: Rest(until, status, text) for hop, until, status, text in found}


class ElderPage(msgspec.Struct, frozen=True):
    """Leases of elders, and the last message looked at; None: the round is over."""

    found: Found
    next_after: int | None


class Search(Bounds, frozen=True, kw_only=True):
    """Where to look for elders, and who is one."""

    after: int
    now_us: int
    patience: Patience


def elders(
    connection: apsw.Connection, search: Search, watch: Watch, bodies: BodyDirectory
) -> ElderPage:
    """Find messages at resting hops that are too old to wait. Blocks."""
    now_us, patience = search.now_us, search.patience
    spans_us = (
        patience.expire_us,
        patience.bounce_expire_us,
        patience.warn_after_us or _NEVER,
    )
    ages = [number_of_time(now_us - span_us) for span_us in spans_us]
    released_us = [now_us - span_us for span_us in spans_us]
    newest = max(ages)
    bound = (search.after, newest, LOOKED_AT_MAX)
    last: int | None = connection.execute(_LAST, bound).get
    if last is None:
        return ElderPage(Found([], []), None)
    bounds = (*ages, *released_us)
    packed = connection.execute(
        _ELDERS, (now_us, search.after, last, *bounds, ELDERS_MAX)
    ).get
    numbers = _NUMBERS.decode(packed)
    found = of_messages(connection, numbers, search, watch, bodies)
    return ElderPage(found, numbers[-1] if len(numbers) == ELDERS_MAX else last)


def of_messages(
    connection: apsw.Connection,
    numbers: Sequence[int],
    search: Search,
    watch: Watch,
    bodies: BodyDirectory,
) -> Found:
    """Find leases of recipients of some messages that wait for resting hops. Blocks."""
    if not numbers:
        return Found([], [])
    bound = (search.now_us, statements.numbers(numbers))
    broken: list[Broken] = []
    try:
        packed = connection.execute(_RECIPIENTS, bound).get
        found = _RECIPIENT_LIST.decode(packed)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        if len(numbers) == 1:  # its turn comes, and it is put aside then
            return Found([], [])
        halves = (numbers[: len(numbers) // 2], numbers[len(numbers) // 2 :])
        parts = [of_messages(connection, n, search, watch, bodies) for n in halves]
        return Found(
            [lease for part in parts for lease in part.leases],
            [each for part in parts for each in part.broken],
        )
    groups = claims.grouped(found, search.recipients_max, watch.busy)
    return claims.leases_of(connection, groups, search, watch, bodies, broken)
