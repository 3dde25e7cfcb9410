"""A bounded memory of answers, each for as long as its TTL allows. Pure.

Bounded twice: by number, and by size, since whoever has a domain decides how large its
answers are.
"""

from typing import NamedTuple

from postroom.dns.answer import Answer, DnsFailed, Records, RecordType

Key = tuple[str, RecordType]

_ENTRY_OCTETS = 400
"""What an answer takes beside its records, in CPython and roughly."""
_RECORD_OCTETS = 120
"""What a record takes beside its text."""


class _Entry(NamedTuple):
    until_us: int
    answer: Answer
    octets: int


class AnswerCache:
    """Keeps answers within two bounds; the oldest goes first.

    Args:
        entries_max: how many answers are kept.
        octets_max: how much memory they take together, about.
        failure_ttl_us: how long a failed look-up is remembered (RFC 2308 §7).
    """

    def __init__(self, entries_max: int, octets_max: int, failure_ttl_us: int) -> None:
        self._entries_max = entries_max
        self._octets_max = octets_max
        self._failure_ttl_us = failure_ttl_us
        self._entries: dict[Key, _Entry] = {}
        self._octets = 0

    @property
    def octets(self) -> int:
        """How much memory the answers take, about."""
        return self._octets

    def get(self, name: str, rdtype: RecordType, mono_us: int) -> Answer | None:
        """Return an answer that is still good, else None."""
        entry = self._entries.get((name, rdtype))
        if entry is None:
            return None
        if entry.until_us <= mono_us:
            self._drop((name, rdtype))
            return None
        return entry.answer

    def put(self, name: str, rdtype: RecordType, answer: Answer, mono_us: int) -> None:
        """Remember an answer from now on."""
        if isinstance(answer, DnsFailed):
            ttl_us = self._failure_ttl_us
        else:
            ttl_us = answer.ttl_us
        key, octets = (name, rdtype), _octets(answer)
        if key in self._entries:
            self._drop(key)
        if ttl_us <= 0 or octets > self._octets_max or not self._entries_max:
            return
        while (
            len(self._entries) >= self._entries_max
            or self._octets + octets > self._octets_max
        ):
            self._drop(next(iter(self._entries)))
        self._entries[key] = _Entry(mono_us + ttl_us, answer, octets)
        self._octets += octets

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self._octets = 0

    def _drop(self, key: Key) -> None:
        self._octets -= self._entries.pop(key).octets

    def __len__(self) -> int:
        return len(self._entries)


def _octets(answer: Answer) -> int:
    """Return how much memory an answer takes, about."""
    if not isinstance(answer, Records):
        return _ENTRY_OCTETS
    names = sum(len(mx.exchange) for mx in answer.exchanges)
    texts = sum(map(len, answer.values))
    count = len(answer.exchanges) + len(answer.values)
    return _ENTRY_OCTETS + names + texts + count * _RECORD_OCTETS
