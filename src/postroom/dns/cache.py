"""A bounded memory of answers, each for as long as its TTL allows. Pure."""

from postroom.dns.answer import Answer, DnsFailed, RecordType


class AnswerCache:
    """Keeps up to ``entries_max`` answers; the oldest goes first.

    Args:
        entries_max: how many answers are kept.
        failure_ttl_us: how long a failed look-up is remembered (RFC 2308 §7).
    """

    def __init__(self, entries_max: int, failure_ttl_us: int) -> None:
        self._entries_max = entries_max
        self._failure_ttl_us = failure_ttl_us
        self._entries: dict[tuple[str, RecordType], tuple[int, Answer]] = {}

    def get(self, name: str, rdtype: RecordType, mono_us: int) -> Answer | None:
        """Return an answer that is still good, else None."""
        entry = self._entries.get((name, rdtype))
        if entry is None:
            return None
        if entry[0] <= mono_us:
            del self._entries[name, rdtype]
            return None
        return entry[1]

    def put(self, name: str, rdtype: RecordType, answer: Answer, mono_us: int) -> None:
        """Remember an answer from now on."""
        if isinstance(answer, DnsFailed):
            ttl_us = self._failure_ttl_us
        else:
            ttl_us = answer.ttl_us
        self._entries.pop((name, rdtype), None)
        if ttl_us <= 0:
            return
        while len(self._entries) >= self._entries_max and self._entries:
            del self._entries[next(iter(self._entries))]
        self._entries[name, rdtype] = mono_us + ttl_us, answer

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()

    def __len__(self) -> int:
        return len(self._entries)
