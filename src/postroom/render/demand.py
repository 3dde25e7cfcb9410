"""What a hop demands of content: seven bits, short lines, or nothing at all."""

from typing import Final

import msgspec

from postroom.smtp.extensions import Extensions

LINE_OCTETS_MAX: Final = 998
"""A line of content without its CRLF (RFC 5322 §2.1.1, RFC 5321 §4.5.3.1.6)."""


class Demand(msgspec.Struct, frozen=True):
    """What content must be to be sent; in any case its lines must be short.

    ``seven_bit`` asks for ASCII only (RFC 6152 §3). ``was_binary`` says that it was
    taken with BODY=BINARYMIME, so that CR, LF and NUL are data where they stand alone,
    and what cannot be converted must not be sent (RFC 3030 §3).
    """

    seven_bit: bool = False
    was_binary: bool = False


def demand_of(
    offered: Extensions, *, is_binary: bool, long_lines: bool
) -> Demand | None:
    """Return what has to be seen to before content goes to a hop; None: nothing.

    Args:
        offered: what the hop offers.
        is_binary: the content was taken with BODY=BINARYMIME.
        long_lines: long lines are to be converted also where 8 bits may pass.
    """
    if is_binary:
        if offered.binary_mime:
            return None
        return Demand(seven_bit=not offered.eight_bit_mime, was_binary=True)
    if not offered.eight_bit_mime:
        return Demand(seven_bit=True)
    return Demand() if long_lines else None


def meets(content: bytes, demand: Demand) -> bool:
    """Whether a body is fit as it is; seen in a few calls, without looking at parts."""
    if demand.was_binary or (demand.seven_bit and not content.isascii()):
        return False
    return not has_long_line(content) and b"\0" not in content


def has_long_line(content: bytes, octets_max: int = LINE_OCTETS_MAX) -> bool:
    """Whether a line is longer than that, not counting its CRLF."""
    at, end = 0, len(content)
    while end - at > octets_max:
        # Stride: each window of the limit must hold a line's end.
        found = content.rfind(b"\r\n", at, at + octets_max + 2)
        if found < 0:
            return True
        at = found + 2
    return False
