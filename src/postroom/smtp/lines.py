"""Octets in, lines out. The one place that says where a line of the dialogue ends.

Only CRLF ends a line (RFC 5321 §2.3.8); a CR or LF alone is part of it. A line over
its limit is swallowed to its end in bounded memory and told as ``LineFault``. Work is
linear in the input however it is cut up.
"""

from enum import Enum
from typing import Final

CRLF: Final = b"\r\n"
_BEGIN_OCTETS = 16


class LineFault(Enum):
    """Why a line could not be had."""

    TOO_LONG = "too long"


class Inbox:
    """What has arrived and was not looked at yet.

    ``octets`` is what is looked at next, empty if nothing is there; ``ended`` says that
    no more will come, ``swallowing`` that the line which is
    arriving is over its limit already, ``overlong`` is how the last such line began.
    """

    __slots__ = (
        "_arrivals",
        "_at",
        "_searched",
        "ended",
        "octets",
        "overlong",
        "swallowing",
    )

    def __init__(self) -> None:
        self.octets = b""
        self._at = 0  # where the next line begins
        self._searched = 0  # up to here there is no CRLF
        self._arrivals: list[bytes] = []
        self.swallowing = False
        self.overlong = b""
        self.ended = False

    def add(self, data: bytes) -> None:
        """Take octets from the peer; ``b""`` says that no more will come."""
        if not data:
            self.ended = True
        elif self.octets:
            self._arrivals.append(data)
        else:
            self.octets = data

    def __len__(self) -> int:
        return len(self.octets) - self._at + sum(map(len, self._arrivals))

    def head(self, octets_max: int) -> bytes:
        """Return the first octets that are there, without taking them."""
        data = self.octets
        if self._arrivals and len(data) - self._at < octets_max:
            data = self._join()
        return data[self._at : self._at + octets_max]

    def line(self, octets_max: int) -> bytes | LineFault | None:
        """Return the next line without its CRLF; None if it is not complete yet.

        ``octets_max`` is the limit with CRLF.
        """
        data = self.octets
        if not data:
            return None
        end = data.find(CRLF, self._searched)
        while end < 0:
            if not self._arrivals:
                self._keep(octets_max)
                return None
            data = self._join()
            end = data.find(CRLF, self._searched)
        line = data[self._at : end]
        self._at = self._searched = end + 2
        if self._at == len(data):
            self.octets = b""
            self._at = self._searched = 0
            if self._arrivals:
                self._join()
        if self.swallowing or len(line) + 2 > octets_max:
            if not self.swallowing:
                self.overlong = line[:_BEGIN_OCTETS]
            self.swallowing = False
            return LineFault.TOO_LONG
        return line

    def _keep(self, octets_max: int) -> None:
        data = self.octets
        if len(data) - self._at >= octets_max:
            if not self.swallowing:
                self.overlong = data[self._at : self._at + _BEGIN_OCTETS]
            self.swallowing = True
            self.octets = data = b"\r" if data.endswith(b"\r") else b""
            self._at = 0
        # the last octet may be the CR whose LF is still to come
        self._searched = max(self._at, len(data) - 1)

    def _join(self) -> bytes:
        self._arrivals.insert(0, self.octets[self._at :])
        self._searched -= self._at
        self._at = 0
        self.octets = b"".join(self._arrivals)
        self._arrivals.clear()
        return self.octets

    def take(self) -> bytes:
        """Return all that is there and forget it."""
        data = self._join() if self._at or self._arrivals else self.octets
        self.octets = b""
        self._at = self._searched = 0
        return data

    def put_back(self, data: bytes) -> None:
        """Undo a ``take`` in part; only right after it."""
        self.octets = data
        self._at = self._searched = 0

    def clear(self) -> None:
        """Forget everything, also a line that is being swallowed."""
        self.take()
        self.swallowing = False
