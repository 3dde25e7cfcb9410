"""Lanes: how the senders of a hop are dealt out, so that one cannot fill it."""

from zlib import crc32

from postroom.mail.address import Address

LARGE_OCTETS = 128 * 1024
"""From this size on a message has lanes of its own beside the small ones'."""


def lane_of(sender: Address, size: int, lanes: int) -> int:
    """Return the lane: a small hash of the sender, large messages apart."""
    lane = crc32(f"{sender.local}@{sender.domain}".encode()) % lanes
    return lane + lanes if size > LARGE_OCTETS else lane
