"""How the commands write times, sizes and texts of strangers for people."""

import sys
from datetime import datetime

from rich.console import Console
from rich.text import Text

from postroom.mail.now import SECOND_US

WIDTH_OFF_TERMINAL = 160


def console() -> Console:
    """Return a console on standard output; a pipe gets wide lines."""
    is_terminal = sys.stdout.isatty()
    return Console(width=None if is_terminal else WIDTH_OFF_TERMINAL)


def plain(text: str) -> Text:
    """No markup, and no control characters from a peer on the operator's terminal."""
    return Text(printable(text))


def printable(text: str) -> str:
    """Return a text with question marks for what cannot be printed."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else "?" for c in text)


def rough(duration_us: int) -> str:
    """Return a duration with its largest unit only."""
    for unit, seconds in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if duration_us >= seconds * SECOND_US:
            return f"{duration_us // (seconds * SECOND_US)}{unit}"
    return f"{max(duration_us, 0) // SECOND_US}s"


def moment(utc_us: int) -> str:
    """Return a moment in local time."""
    return f"{datetime.fromtimestamp(utc_us / SECOND_US):%Y-%m-%d %H:%M:%S}"


def messages(number: int) -> str:
    """Return ``1 message`` or ``2 messages``."""
    return f"{number:,} message" if number == 1 else f"{number:,} messages"


def octets(number: int) -> str:
    """Return a size as people read it."""
    if number < 1024:
        return f"{number} octets"
    size = float(number)
    for unit in ("KiB", "MiB", "GiB"):
        size /= 1024
        if size < 1024:
            return f"{size:.1f} {unit}"
    return f"{size / 1024:.1f} TiB"
