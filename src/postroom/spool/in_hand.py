"""Remembers over a crash which messages were being attempted.

A small file, mapped into memory and never synced: it has to outlive the process, not
the machine. A message that kills its worker is found here at the next start; at the
third time it is put aside. If the map is full, further messages are not noted.
"""

import mmap
import os
import struct
from collections.abc import Callable

from postroom.mail.ids import QueueId, to_number

_SLOTS = 4096
_NUMBER = struct.Struct("<q")


class InHand:
    """The messages one worker is attempting now.

    Args:
        path: the file; made if it does not exist.

    Attributes:
        on_left: is told of each message none of whose attempts is under way any more,
            hooks on its outcome included.
    """

    def __init__(self, path: str) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # Not only its length: on a full disk writing to the map would be a signal
            # that ends the process, where this is an error.
            os.posix_fallocate(descriptor, 0, _SLOTS * _NUMBER.size)
            self._map = mmap.mmap(descriptor, _SLOTS * _NUMBER.size)
        finally:
            os.close(descriptor)
        self._free = list(range(_SLOTS - 1, -1, -1))
        self._slots: dict[QueueId, list[int]] = {}
        self.on_left: Callable[[QueueId], None] | None = None

    def left_behind(self) -> list[int]:
        """Return the numbers of the messages that the last holder had in hand."""
        return sorted(set(numbers_in(self._map[:])))

    def forget(self) -> None:
        """Clear what the last holder left, once it is recorded elsewhere."""
        self._map[:] = bytes(len(self._map))

    def begin(self, queue_id: QueueId) -> None:
        """Note that an attempt begins."""
        if self._free and not self._map.closed:
            slot = self._free.pop()
            self._slots.setdefault(queue_id, []).append(slot)
            _NUMBER.pack_into(self._map, slot * _NUMBER.size, to_number(queue_id))

    def done(self, queue_id: QueueId) -> None:
        """Note that one attempt of this message is over."""
        slots = self._slots.get(queue_id)
        if slots and not self._map.closed:
            slot = slots.pop()
            _NUMBER.pack_into(self._map, slot * _NUMBER.size, 0)
            self._free.append(slot)
            if not slots:
                del self._slots[queue_id]
                if self.on_left is not None:
                    self.on_left(queue_id)

    def close(self) -> None:
        """Let go of the file; nothing is in hand any more."""
        self.forget()
        self._map.close()


def numbers_in(octets: bytes) -> list[int]:
    """Return the numbers in such a file, one for each attempt under way."""
    return [number for (number,) in _NUMBER.iter_unpack(octets) if number > 0]
