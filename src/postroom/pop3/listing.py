"""The maildrop of a session as its client sees it: numbers, sizes, ids, deletions."""

from collections.abc import Iterator, Sequence

PAGE = 1000
"""How many lines of a listing are made at a time."""


class Maildrop:
    """Message ``index`` counts from 0; clients count from 1 (RFC 1939 §4)."""

    def __init__(self, sizes: Sequence[int], uids: Sequence[str]) -> None:
        assert len(sizes) == len(uids)
        self.sizes = sizes
        self.uids = uids
        self.deleted: set[int] = set()
        self._octets = sum(sizes)
        self._deleted_octets = 0

    @property
    def count(self) -> int:
        """How many messages are not deleted."""
        return len(self.sizes) - len(self.deleted)

    @property
    def octets(self) -> int:
        """Octets of the messages that are not deleted."""
        return self._octets - self._deleted_octets

    def delete(self, index: int) -> None:
        """Mark one as deleted."""
        self.deleted.add(index)
        self._deleted_octets += self.sizes[index]

    def reset(self) -> None:
        """Take all marks off."""
        self.deleted.clear()
        self._deleted_octets = 0

    def summary(self) -> str:
        """Say what there is."""
        noun = "message" if self.count == 1 else "messages"
        return f"{self.count} {noun} ({self.octets} octets)"

    def problem(self, number: int | None) -> str:
        """Say why a message-number cannot be used; empty if it can."""
        if number is None:
            return "a message-number is needed"
        if number > len(self.sizes):
            return f"no such message, only {len(self.sizes)} in mailbox"
        if number - 1 in self.deleted:
            return f"message {number} is deleted"
        return ""

    def pages(self, values: Sequence[int] | Sequence[str]) -> Iterator[bytes]:
        """Yield a listing's lines in pages; deleted messages are left out."""
        deleted = self.deleted
        for first in range(0, len(values), PAGE):
            lines = [
                f"{index + 1} {value}\r\n"
                for index, value in enumerate(values[first : first + PAGE], first)
                if index not in deleted
            ]
            yield "".join(lines).encode("ascii")
