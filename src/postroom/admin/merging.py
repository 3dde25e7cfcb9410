"""One list of the queue out of those of several shards."""

import heapq
from collections.abc import AsyncIterator, Sequence

from postroom.spool.spool import Entry


async def merge_entries(
    sources: Sequence[AsyncIterator[Entry]],
) -> AsyncIterator[Entry]:
    """Merge sources that are each in order of arrival, holding one entry of each."""
    heads: list[tuple[int, str, int, Entry]] = []
    for number, source in enumerate(sources):
        if (entry := await anext(source, None)) is not None:
            heads.append((entry.arrival_us, entry.queue_id, number, entry))
    heapq.heapify(heads)
    while heads:
        *_, number, entry = heads[0]
        yield entry
        follower = await anext(sources[number], None)
        if follower is None:
            heapq.heappop(heads)
        else:
            key = (follower.arrival_us, follower.queue_id, number, follower)
            heapq.heapreplace(heads, key)
