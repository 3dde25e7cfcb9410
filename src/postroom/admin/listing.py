"""``mailq`` over the whole queue: counted first, then listed, holding few at a time."""

from collections.abc import AsyncIterator
from typing import NamedTuple

from postroom.admin.mailq import ZoneOffset, mailq_entry, mailq_foot, mailq_head
from postroom.admin.queue import may_see
from postroom.admin.whole import WholeQueue
from postroom.spool.selection import QueueFilter


class MailqForm(NamedTuple):
    """How ``mailq`` is to look, and for whom.

    Attributes:
        verbose: the longer form.
        user: only messages that this user has submitted here; None for all.
        spool_directory: what the head line names.
        zone_offset_s: the local zone.
        wanted: which messages.
    """

    verbose: bool
    user: str | None
    spool_directory: str
    zone_offset_s: ZoneOffset
    wanted: QueueFilter = QueueFilter()


async def mailq_lines(queue: WholeQueue, form: MailqForm) -> AsyncIterator[str]:
    """Yield what ``mailq`` prints; what could not be reached is not called empty."""
    total = await _total(queue, form)
    if total or not queue.problems:
        for line in mailq_head(total, form.spool_directory, verbose=form.verbose):
            yield line
    shown = 0
    async for entry in queue.entries(form.wanted):
        if form.user is None or may_see(form.user, entry):
            shown += 1
            for line in mailq_entry(
                entry, verbose=form.verbose, zone_offset_s=form.zone_offset_s
            ):
                yield line
    yield mailq_foot(shown)


async def _total(queue: WholeQueue, form: MailqForm) -> int:
    if form.user is not None:
        entries = queue.entries(form.wanted)
        return sum([may_see(form.user, entry) async for entry in entries])
    if form.wanted.is_empty:
        return (await queue.counts()).counts.get("messages", 0)
    total = 0
    async for counted in queue.count(form.wanted):
        total = counted.messages
    return total
