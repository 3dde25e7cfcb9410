"""Counters and rates that all workers share, in one memory map, without a lock.

The map has one row per worker, and a worker writes its own row only. A count is
raised by adding to one's own row first and then summing over all rows; if the sum is
over the bound, what was added is taken back. Of several workers that add at the same
moment each sees the others' additions, so the bound is never passed; at worst two that
compete for the last place are both refused, once.

Rows::

    header   secret for hashing keys (16 octets), unused (48)
    row      keys of counters | counts | keys of rates | arrival times

Each is a table of ``slots`` 64-bit cells. A key is known by a 64-bit keyed hash and
lives in one of the 16 cells of its bucket; different keys never share a cell, so counts
are exact. A cell whose count is 0 (whose time is past) is kept until its room is
needed. When a bucket is full of live entries the answer is *no*: bounds hold, and
``full`` counts how often it happened.

Rates: each row keeps the arrival time (see ``gcra``) that its worker computed from the
latest of all rows, so the newest one is the state of the whole. Two workers that judge
the same key within the same microseconds may both allow what should have been one
event; such a lapse is bounded by the number of workers and does not add up.

Not safe for threads: to be used from the event loop only.
"""

import hashlib
import os
import threading
from mmap import mmap

from postroom.limits.gcra import Allowed, Rate, decide

Buffer = bytearray | memoryview | mmap
"""What the map may be: shared memory, or a plain buffer for one process."""

BUCKET = 16
SLOTS = 4_096
"""Default cells per table: 128 KiB a row."""
_ROOM = 4
"""Cells for each key that may count at a time: a bucket is then all but never full."""
_SLOTS_MAX = 1 << 20
_HEADER_OCTETS = 64
_SECRET_OCTETS = 16
_TABLES = 4
_WORD_OCTETS = 8
_CACHED_MAX = 8_192


def map_octets(rows: int, slots: int = SLOTS) -> int:
    """Return how large the map must be for so many workers."""
    assert rows >= 1
    assert slots % BUCKET == 0
    return _HEADER_OCTETS + rows * slots * _TABLES * _WORD_OCTETS


def slots_for(keys: int) -> int:
    """Return how many cells a table needs for so many keys that count at a time."""
    needed = -(-keys * _ROOM // SLOTS) * SLOTS
    return min(max(SLOTS, needed), _SLOTS_MAX)


def prepare_map(buffer: Buffer) -> None:
    """Write the header; once, by whoever made the map (zeroed), before its use."""
    memoryview(buffer).cast("B")[:_SECRET_OCTETS] = os.urandom(_SECRET_OCTETS)


class SharedCounters:
    """One worker's view of the map.

    Args:
        buffer: the map, as large as ``map_octets`` says, prepared.
        rows: how many workers share it.
        row: which row is ours, from 0.
    """

    def __init__(self, buffer: Buffer, rows: int, row: int) -> None:
        octets = memoryview(buffer).cast("B")
        size = (len(octets) - _HEADER_OCTETS) // (rows * _TABLES * _WORD_OCTETS)
        assert 0 <= row < rows
        assert len(octets) == map_octets(rows, size)
        self._secret = bytes(octets[:_SECRET_OCTETS])
        words = octets[_HEADER_OCTETS:].cast("q")
        stride = size * _TABLES
        tables = [
            [
                words[r * stride + t * size : r * stride + (t + 1) * size]
                for t in range(_TABLES)
            ]
            for r in range(rows)
        ]
        fence = threading.Lock()
        others = [table for r, table in enumerate(tables) if r != row]
        self._rows = tables
        mine = tables[row]
        self._counts = _Table(mine[0], mine[1], [(o[0], o[1]) for o in others], fence)
        self._times = _Table(mine[2], mine[3], [(o[2], o[3]) for o in others], fence)
        self._marks: dict[str, int] = {}
        self._views = [*(view for table in tables for view in table), words, octets]

    @classmethod
    def private(cls, slots: int = SLOTS) -> "SharedCounters":
        """Make one that is shared with nobody: one process, tests."""
        buffer = bytearray(map_octets(1, slots))
        prepare_map(buffer)
        return cls(buffer, 1, 0)

    @property
    def full(self) -> int:
        """How often a bucket had no room and the answer was no for that reason."""
        return self._counts.full + self._times.full

    def add(self, key: str, n: int, bound: int) -> bool:
        """Raise a count by ``n`` unless the sum over all workers would pass ``bound``.

        If it says True, ``release`` is owed.
        """
        return self._counts.add(self._mark(key), n, bound)

    def release(self, key: str, n: int = 1) -> None:
        """Lower a count that this worker raised."""
        self._counts.release(self._mark(key), n)

    def count(self, key: str) -> int:
        """Return the sum over all workers."""
        return self._counts.total(self._mark(key))

    def others(self, *keys: str) -> int:
        """Return how many other workers have raised the count of any of the keys."""
        return self._counts.others([self._mark(key) for key in keys])

    def hit(self, key: str, rate: Rate, mono_us: int, events: int = 1) -> int:
        """Count events against a rate: 0 if allowed, else microseconds to wait.

        Args:
            key: what is limited; keep keys of different rates apart by a prefix.
            rate: the limit in force.
            mono_us: now, on the system-wide monotonic clock.
            events: how many at once; 0 only looks whether an event would be too many.
        """
        return self._times.hit(self._mark(key), rate, mono_us, events)

    def zero_row(self, row: int) -> None:
        """Forget the counts of a worker that died; its rates age by themselves.

        To be called by the supervisor after the worker was reaped and before its
        row is given to another.
        """
        counts = self._rows[row][1]
        counts[:] = memoryview(bytes(counts.nbytes)).cast("q")

    def close(self) -> None:
        """Let go of the map."""
        for view in self._views:
            view.release()

    def _mark(self, key: str) -> int:
        mark = self._marks.get(key)
        if mark is None:
            digest = hashlib.blake2b(
                key.encode("utf-8", "surrogatepass"),
                digest_size=_WORD_OCTETS,
                key=self._secret,
            ).digest()
            mark = int.from_bytes(digest, "little", signed=True) or 1
            if len(self._marks) >= _CACHED_MAX:
                self._marks.clear()
            self._marks[key] = mark
        return mark


class _Table:
    """Keys and values of our row, and those of the others to read."""

    def __init__(
        self,
        keys: "memoryview[int]",
        values: "memoryview[int]",
        others: "list[tuple[memoryview[int], memoryview[int]]]",
        fence: threading.Lock,
    ) -> None:
        self._keys = keys
        self._values = values
        self._others = others
        self._fence = fence
        self._buckets = len(keys) // BUCKET
        # A row that is taken over may hold the rates of its worker before.
        self._cells = {mark: cell for cell, mark in enumerate(keys) if mark}
        self.full = 0

    def add(self, mark: int, n: int, bound: int) -> bool:
        cell = self._cells.get(mark)
        if cell is None:
            cell = self._place(mark, 0)
            if cell is None:
                return False
        values = self._values
        values[cell] += n
        total = values[cell]
        if self._others:
            self._publish()
            total += self._elsewhere_sum(mark)
        if total <= bound:
            return True
        values[cell] -= n
        return False

    def release(self, mark: int, n: int) -> None:
        cell = self._cells[mark]
        assert self._values[cell] >= n
        self._values[cell] -= n

    def total(self, mark: int) -> int:
        cell = self._cells.get(mark)
        own = 0 if cell is None else self._values[cell]
        return own + self._elsewhere_sum(mark)

    def others(self, marks: list[int]) -> int:
        count = 0
        for keys, values in self._others:
            there = [self._find(keys, mark) for mark in marks]
            count += any(cell is not None and values[cell] for cell in there)
        return count

    def hit(self, mark: int, rate: Rate, mono_us: int, events: int) -> int:
        cell = self._cells.get(mark)
        tat_us = 0 if cell is None else self._values[cell]
        for keys, values in self._others:
            there = self._find(keys, mark)
            if there is not None:
                tat_us = max(tat_us, values[there])
        verdict = decide(tat_us, mono_us, rate, events)
        if not isinstance(verdict, Allowed):
            return verdict.wait_us
        if not events:  # a mere look: nothing to keep, and no room needed for it
            return 0
        if cell is None:
            cell = self._place(mark, mono_us)
            if cell is None:
                return rate.interval_us
        self._values[cell] = verdict.tat_us
        return 0

    def _publish(self) -> None:
        # A processor may let a later read overtake an earlier write. Taking a lock
        # is a full barrier: what we added is visible before we look at the others.
        self._fence.acquire()
        self._fence.release()

    def _elsewhere_sum(self, mark: int) -> int:
        total = 0
        for keys, values in self._others:
            cell = self._find(keys, mark)
            if cell is not None:
                total += values[cell]
        return total

    def _find(self, keys: "memoryview[int]", mark: int) -> int | None:
        start = mark % self._buckets * BUCKET
        bucket = keys[start : start + BUCKET].tolist()
        return start + bucket.index(mark) if mark in bucket else None

    def _place(self, mark: int, spent: int) -> int | None:
        """Give the key a cell; one whose value is at most ``spent`` may be reused."""
        start = mark % self._buckets * BUCKET
        for cell in range(start, start + BUCKET):
            if not self._keys[cell]:
                break
        else:
            for cell in range(start, start + BUCKET):
                if self._values[cell] <= spent:
                    break
            else:
                self.full += 1
                return None
        self._cells.pop(self._keys[cell], None)
        # In this order: nobody may see the key with another's value.
        self._keys[cell] = 0
        self._values[cell] = 0
        self._keys[cell] = mark
        self._cells[mark] = cell
        return cell
