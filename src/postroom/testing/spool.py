"""A real spool for tests: in a temporary directory, with messages made in one call.

There is no fake spool. The real one opens in a few milliseconds, and what is tested
on it holds.
"""

import os
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from postroom.mail.address import Address
from postroom.mail.envelope import Envelope
from postroom.mail.ids import QueueIds
from postroom.mail.message import MemoryBody, Message
from postroom.mail.now import Now
from postroom.mail.route import LOCAL_HOP, Route
from postroom.mail.units import Size
from postroom.net.clock import read_now
from postroom.spool.engine import Emit, Shard, open_shard
from postroom.spool.files import Seam
from postroom.spool.settings import SpoolSettings
from postroom.spool.spool import NewMessage, NewRecipient, Spool

SYSTEM = Seam()
"""The real disk."""

QUICK = SpoolSettings(reserve_octets=Size(0), reserve_inodes=0)
"""Settings for tests: no reserve, so that a small disk will do."""

MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108
"""A directory in memory, so that tests do not wait for disks; None without one."""


@asynccontextmanager
async def temporary_shard(
    *,
    directory: str | None = None,
    settings: SpoolSettings = QUICK,
    clock: Callable[[], Now] = read_now,
    emit: Emit | None = None,
    seam: Seam = SYSTEM,
) -> AsyncIterator[Shard]:
    """Lend an open shard, by default of a new spool in memory that goes afterwards."""
    with tempfile.TemporaryDirectory(prefix="spool-", dir=MEMORY) as made:
        shard = await open_shard(
            directory or made, 0, settings, clock=clock, emit=emit, seam=seam
        )
        try:
            yield shard
        finally:
            await shard.aclose()


class Letters:
    """Makes messages for a shard, each with the next queue id."""

    def __init__(
        self, shard: Spool | None = None, clock: Callable[[], Now] = read_now
    ) -> None:
        self._clock = clock
        self._ids = QueueIds(
            0 if shard is None else shard.shard,
            0 if shard is None else shard.last_number,
        )

    def letter(
        self,
        *recipients: str | NewRecipient,
        sender: str = "betty@gonzo.test",
        body: bytes = b"hello\r\n",
    ) -> NewMessage:
        """Return a message; a text recipient is due now.

        ``"joe@whizzer.test"`` goes by SMTP to its domain, ``"joe"`` to a mailbox, and
        ``":list"`` is an alias still to be expanded.
        """
        now = self._clock()
        chosen = tuple(
            self.recipient(each) if isinstance(each, str) else each
            for each in recipients or ("joe@whizzer.test",)
        )
        return NewMessage(
            queue_id=self._ids.next(now.utc_us),
            envelope=Envelope(sender=Address.from_text(sender), arrival_us=now.utc_us),
            message=Message(b"Subject: test\r\n", MemoryBody(body)),
            recipients=chosen,
        )

    def recipient(self, text: str) -> NewRecipient:
        """Return one recipient, as ``letter`` understands texts."""
        due_us = self._clock().utc_us
        if text.startswith(":"):
            return NewRecipient(Address.from_text(text[1:]), None, due_us=due_us)
        address = Address.from_text(text)
        route = (
            Route("smtp", address.domain_key, f"MX of {address.domain_key}")
            if address.domain
            else Route("mailbox", LOCAL_HOP, "local user")
        )
        return NewRecipient(address, route, due_us=due_us)
