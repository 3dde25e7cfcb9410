"""Settings of what is told about the system, and where."""

from typing import Literal

import msgspec

from postroom.mail.units import Duration, Size


class LogSettings(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True
):
    """Where log lines go and how they look."""

    to: str = "stdout"
    """``stdout``, ``stderr``, or the path of a file that all workers append to; after
    moving it away, USR1 (or HUP) makes a new one."""
    format: Literal["sendmail", "json"] = "sendmail"
    """``sendmail`` for lines as sendmail writes them, ``json`` for an object a line."""
    sessions: bool = False
    """Whether each connection's begin and orderly end is told too."""
    waiting_max: int = 20_000
    """Events that may wait to be written in each worker; beyond that clients are told
    to come back (421 4.3.2) until the log can be written again, and beyond five times
    that nothing is delivered: mail lines are never dropped."""

    def __post_init__(self) -> None:
        """Refuse what would tell nobody anything, or take no mail."""
        if not self.to:
            raise ValueError('to is empty: write "stdout", "stderr" or a path')
        if self.waiting_max < 1:
            raise ValueError("waiting_max is at least 1: else no mail is accepted")


class HistorySettings(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True
):
    """What happened to messages that have left, for ``postroom trace``."""

    enabled: bool = True
    """Whether it is kept."""
    directory: str = ""
    """Where; empty for ``history`` within the spool's directory."""
    keep: Duration = Duration.from_text("7d")
    """How long it is kept."""
    octets_max: Size = Size(512 << 20)
    """How much each worker keeps; when it is more the oldest goes earlier."""
    file_octets: Size = Size(16 << 20)
    """Size of one file; they are removed whole."""

    def __post_init__(self) -> None:
        """Refuse bounds that would keep nothing."""
        if self.keep <= 0 or self.file_octets <= 0:
            raise ValueError("history: keep and file_octets are more than 0")
        if self.octets_max < 2 * self.file_octets:
            raise ValueError("history: octets_max is at least twice file_octets")
