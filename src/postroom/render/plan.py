"""The plan of a conversion: which stretches of a body leave how."""

from enum import Enum
from typing import assert_never

import msgspec

from postroom.render.encoders import Base64, Encoder, Mask, QuotedPrintable


class Way(Enum):
    """How a stretch of a body leaves."""

    AS_IS = "as is"
    QUOTED_PRINTABLE = "quoted-printable"
    BASE64 = "base64"
    MASKED = "masked"


class Stretch(msgspec.Struct, frozen=True, gc=False):
    """Octets of the body from ``start`` to ``end``.

    ``closed`` says that the content ends with it, so that its last line must, too.
    """

    start: int
    end: int
    way: Way = Way.AS_IS
    closed: bool = False

    def encoder(self) -> Encoder | None:
        """Return what its octets go through, None if they stay."""
        match self.way:
            case Way.AS_IS:
                return None
            case Way.QUOTED_PRINTABLE:
                return QuotedPrintable(closed=self.closed)
            case Way.BASE64:
                return Base64(closed=self.closed)
            case Way.MASKED:
                return Mask()
            case _:
                assert_never(self.way)


class Inserted(msgspec.Struct, frozen=True, gc=False):
    """Octets that stand in place of a part's header."""

    octets: bytes


class Plan(msgspec.Struct, frozen=True):
    """A message made fit: its header with the separator, and what its body becomes.

    ``is_changed`` is false where the message was fit as it is.
    """

    head: bytes
    pieces: tuple[Stretch | Inserted, ...]
    is_changed: bool = True


class Unconvertible(msgspec.Struct, frozen=True):
    """The message cannot be made fit without loss; ``reason`` says why, for people."""

    reason: str
