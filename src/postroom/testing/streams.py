"""Two streams joined, for tests of what is said over one."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from postroom.net.connect import wrap
from postroom.net.stream import Stream


@asynccontextmanager
async def stream_pair() -> AsyncIterator[tuple[Stream, Stream]]:
    """Give both ends of a connection; they are broken off at the end."""
    ours, theirs = socket.socketpair()
    one, other = await wrap(ours), await wrap(theirs)
    try:
        yield one, other
    finally:
        one.abort()
        other.abort()
        await asyncio.sleep(0)
