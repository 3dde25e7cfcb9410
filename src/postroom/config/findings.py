"""What a check finds: problems keep the server from working, warnings do not."""

from collections.abc import Iterator
from typing import Literal

import msgspec


class Finding(msgspec.Struct, frozen=True):
    """One sentence: what is wrong, on which object, and what to do about it."""

    kind: Literal["problem", "warning"]
    text: str


Findings = Iterator[Finding]


def problem(text: str) -> Finding:
    """Return something that keeps the server from working as it should."""
    return Finding("problem", text)


def warning(text: str) -> Finding:
    """Return something unsafe, or probably not meant."""
    return Finding("warning", text)
