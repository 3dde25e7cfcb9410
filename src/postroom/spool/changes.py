"""One change to the spool as the writer sees it: rows to add, change and remove.

The loop thread prepares it, the writer applies many in one transaction, the loop
thread is told. Rare changes carry an ``Act`` that does its own statements inside the
transaction.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import apsw
import msgspec

from postroom.spool.rows import MessageRows, Row
from postroom.spool.spool import RecipientState, SpoolError

COUNTED = (
    "messages",
    "recipients",
    "octets",
    "ready",
    "expanding",
    "held",
    "shunted",
    "last_number",
)
"""The columns of the table ``counters``."""

STATE_COUNTED = ("ready", "expanding", "held", "shunted")
"""The counter of each recipient state, by its number."""


class BadChange(SpoolError):
    """This change alone cannot be applied; the text says why."""


class Group:
    """The transaction under way: its connection, and what it counts and touches."""

    def __init__(self, connection: apsw.Connection, counts: dict[str, int]) -> None:
        self.connection = connection
        self.counts = dict(counts)
        self.touched: set[int] = set()
        """Messages that may have lost their last recipient."""
        self.files: list[str] = []
        """Body files to remove once this is committed."""


Act = Callable[[Group], Any]


class Change(msgspec.Struct):
    """What one call of the spool asks of the writer, and what came of it.

    ``gone`` and ``later`` concern recipients that are leased, ``gone_state`` and
    ``moved`` tell their states before (and after) for the counters;
    ``message`` is their message, or 0.
    """

    future: asyncio.Future[Any]
    new: list[MessageRows] = []
    message: int = 0
    gone: list[tuple[int, int]] = []
    gone_state: RecipientState = RecipientState.READY
    later: list[Row] = []
    moved: list[tuple[int, int]] = []
    warned: bool = False
    survived: bool = False
    act: Act | None = None
    done: Callable[[bool], None] | None = None
    frees: bool = False
    result: Any = None
    error: Exception | None = None

    @property
    def can_wait(self) -> bool:
        """Whether it only takes away: if it is lost, an attempt is repeated."""
        return self.frees and self.act is None
