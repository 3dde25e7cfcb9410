"""Who is to blame for a crash: counts against what was in hand, and puts one aside.

Each crash counts against all that was in hand. What is near the limit is then tried
apart from the others, further apart after each crash that does not tell; at the limit a
message goes aside only if no other has been in hand as often. A count is cleared once
its message has left the hand of a worker that goes on (``InHand``).
"""

from typing import Any

import apsw

from postroom.spool import statements
from postroom.spool.claims import Broken

APART_US = 1_000_000
DOUBLINGS_MAX = 6
"""So many crashes beyond the limit, those who are still equally suspect go together."""


def count_crash(
    connection: apsw.Connection, left: list[int], limit: int, now_us: int
) -> list[Broken]:
    """Count one crash for messages that were in hand; part of a transaction.

    Args:
        connection: the shard's.
        left: the numbers of the messages.
        limit: at this many crashes a message is put aside.
        now_us: from when those near the limit are tried again, one after another.

    Returns:
        What has to be put aside.
    """
    found: list[Any] = connection.execute(
        "UPDATE messages SET crashes = crashes + 1 WHERE id IN carray(?)"
        " RETURNING id, crashes",
        (statements.numbers(left),),
    ).fetchall()
    counts = {number: crashes for number, crashes in found if crashes >= limit - 1}
    top = max(counts.values(), default=0)
    guilty = sorted(number for number, crashes in counts.items() if crashes == top)
    if top < limit or (len(guilty) > 1 and top < limit + DOUBLINGS_MAX):
        guilty = []
    apart_us = APART_US << min(max(top - limit + 1, 0), DOUBLINGS_MAX)
    for place, number in enumerate(sorted(counts.keys() - set(guilty))):
        connection.execute(
            "UPDATE recipients SET due = max(due, ?) WHERE message = ?",
            (now_us + place * apart_us, number),
        )
    reason = f"in hand at {top} crashes of its worker"
    return [Broken(number, (), reason) for number in guilty]
