"""Lanes: how the senders of a hop are dealt out, so that one cannot fill it.

The number of a lane is kept in the queue; it says which grade its mail has.
"""

from zlib import crc32

from postroom.limits.grades import Grade, graded
from postroom.mail.address import Address

LARGE_OCTETS = 128 * 1024
"""From this size on a message has lanes of its own beside the small ones'."""


LANES_MAX = 1_024
"""How many lanes there may be in each grade, and as many for large messages."""


def prioritised(grade: Grade, priority: int) -> Grade:
    """Return the grade of mail with a priority, -9 to 9 (RFC 6710).

    Above 0 it goes among single letters, whoever sends it; below 0 at most as one of
    many, and from -5 on with what goes to lists.
    """
    if priority > 0:
        return Grade.LETTER
    return max(grade, Grade.LIST if priority <= -5 else Grade.BUSY)


def lane_of(sender: Address, size: int, lanes: int, grade: Grade = Grade.LETTER) -> int:
    """Return the lane: a small hash of the sender, large messages and bulk apart."""
    lane = crc32(f"{sender.local}@{sender.domain}".encode()) % lanes
    return graded(lane + lanes if size > LARGE_OCTETS else lane, grade)
