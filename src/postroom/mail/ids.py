"""Queue ids: time-ordered, eleven of ``[0-9A-Za-z]``, unchanged for life.

An id is one 63-bit number: microseconds since 2025 (53 bits) and the shard where the
message was born (10 bits). Written in base 62 with a fixed width, so the order of the
texts is the order of the numbers, which is the order of arrival. The number is the
spool's row id; the text is what people and logs see.
"""

from functools import lru_cache
from typing import NewType

QueueId = NewType("QueueId", str)
"""The name of one queued message."""

QUEUE_ID_LENGTH = 11
SHARDS_MAX = 1024
_EPOCH_US = 1_735_689_600_000_000  # 2025-01-01T00:00:00Z
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_VALUES = {digit: value for value, digit in enumerate(_DIGITS)}
# Two digits at a time: half the steps of one by one.
_PAIRS = [a + b for a in _DIGITS for b in _DIGITS]


@lru_cache(maxsize=4096)
def to_number(queue_id: QueueId) -> int:
    """Return the 63-bit number behind a queue id."""
    number = 0
    for digit in queue_id:
        number = number * 62 + _VALUES[digit]
    return number


def from_number(number: int) -> QueueId:
    """Return the queue id of a 63-bit number."""
    front, rest = divmod(number, 3844 * 3844)
    high, low = divmod(rest, 3844)
    return QueueId(_front(front) + _PAIRS[high] + _PAIRS[low])


@lru_cache(maxsize=256)
def _front(number: int) -> str:
    """Write the first seven digits, which change only every 14 milliseconds."""
    pairs = []
    for _ in range(3):
        number, rest = divmod(number, 3844)
        pairs.append(_PAIRS[rest])
    return _DIGITS[number] + "".join(reversed(pairs))


def number_of_time(utc_us: int) -> int:
    """Return the least number that an id given out at this moment can have."""
    return max(utc_us - _EPOCH_US, 0) * SHARDS_MAX


def parse_queue_id(text: str) -> QueueId:
    """Check a queue id typed by a person.

    Raises:
        ValueError: the text cannot be a queue id.
    """
    if len(text) != QUEUE_ID_LENGTH or not (text.isascii() and text.isalnum()):
        raise ValueError(
            f'"{text}" is no queue id: they have {QUEUE_ID_LENGTH} letters'
        )
    if to_number(QueueId(text)) >= 1 << 63:
        raise ValueError(f'"{text}" is no queue id: it lies out of range')
    return QueueId(text)


def birth_shard(queue_id: QueueId) -> int:
    """Return the shard the message was accepted in: a hint where to look first."""
    return to_number(queue_id) % SHARDS_MAX


class QueueIds:
    """Gives out the ids of one shard, strictly increasing even if the clock goes back.

    Args:
        shard: number of the shard, 0 to 1023.
        last: the largest number already in the shard's spool, 0 if none.
    """

    def __init__(self, shard: int, last: int = 0) -> None:
        assert 0 <= shard < SHARDS_MAX
        self._shard = shard
        self._tick = last // SHARDS_MAX

    def next(self, utc_us: int) -> QueueId:
        """Return a new id for a message that arrives at ``utc_us``."""
        self._tick = max(self._tick + 1, utc_us - _EPOCH_US)
        return from_number(self._tick * SHARDS_MAX + self._shard)
