"""Settings of what is told about the system, and where."""

from typing import Literal

import msgspec


class LogSettings(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True
):
    """Where log lines go and how they look."""

    to: str = "stdout"
    """``stdout``, ``stderr``, or the path of a file that all workers append to; after
    moving it away, USR1 makes a new one."""
    format: Literal["sendmail", "json"] = "sendmail"
    """``sendmail`` for lines as sendmail writes them, ``json`` for an object a line."""
    sessions: bool = False
    """Whether each connection's begin and orderly end is told too."""
    waiting_max: int = 20_000
    """Events that may wait to be written in each worker; beyond that no new mail is
    accepted until the log can be written again: mail lines are never dropped."""
