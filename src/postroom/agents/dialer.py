"""Connects to the addresses of hosts: host after host, the addresses of one in a race.

MX preference is kept (RFC 5321 §5.1): a worse host is tried only when every address of
the one before it has failed. Within a host an address that has not answered after a
short while gets company by the next one (RFC 8305 §5), so that a network without IPv6
costs a moment, not a time-out. What is not used is closed.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from itertools import groupby
from typing import NamedTuple

from postroom.agents.smtp_words import Peer, timed_out, unreachable
from postroom.mail.outcome import Deferred
from postroom.net.stream import Stream, StreamError

Connect = Callable[[Peer], Awaitable[Stream]]
"""Connects to one address; raises ``StreamError`` or ``OSError``."""


class Dialled(NamedTuple):
    """One address that was tried: its connection, or why there is none."""

    peer: Peer
    stream: Stream | Deferred


async def dial(
    peers: Sequence[Peer],
    connect: Connect,
    stagger_s: float,
    tell: Callable[[Peer], None] | None = None,
) -> AsyncGenerator[Dialled, None]:
    """Yield connections and failures in the order in which they come.

    Whoever takes a connection may ask for the next one: the host said no.

    Args:
        peers: addresses by host, best first.
        connect: connects to one.
        stagger_s: how long one may take before the next is tried beside it; 0: until
            it has failed.
        tell: told of each address when it is tried.
    """
    for _, group in groupby(peers, lambda peer: (peer.name, peer.path)):
        race = _Race(list(group), connect, stagger_s, tell)
        async with aclosing(race.results()) as results:
            async for dialled in results:
                yield dialled


class _Race:
    """The addresses of one host."""

    def __init__(
        self,
        peers: list[Peer],
        connect: Connect,
        stagger_s: float,
        tell: Callable[[Peer], None] | None,
    ) -> None:
        self._peers = peers
        self._connect = connect
        self._stagger_s = stagger_s
        self._tell = tell
        self._running: dict[asyncio.Task[Stream], Peer] = {}

    async def results(self) -> AsyncGenerator[Dialled, None]:
        """Yield each address's connection or failure."""
        if len(self._peers) == 1:  # the most usual case costs no task
            yield await self._alone(self._peers[0])
            return
        waiting = deque(self._peers)
        try:
            while waiting or self._running:
                if not self._running:
                    self._start(waiting.popleft())
                done, _ = await asyncio.wait(
                    self._running,
                    timeout=(self._stagger_s or None) if waiting else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if not done:
                    self._start(waiting.popleft())
                for task in done:
                    peer = self._running.pop(task)
                    yield Dialled(peer, _result(task, peer))
        finally:
            await self._end()

    async def _alone(self, peer: Peer) -> Dialled:
        if self._tell is not None:
            self._tell(peer)
        try:
            return Dialled(peer, await self._connect(peer))
        except StreamError:
            return Dialled(peer, timed_out(peer))
        except OSError as error:
            return Dialled(peer, unreachable(error, peer))

    def _start(self, peer: Peer) -> None:
        if self._tell is not None:
            self._tell(peer)
        self._running[asyncio.ensure_future(self._connect(peer))] = peer

    async def _end(self) -> None:
        """Let go of what is still under way, also of what came in the meantime."""
        for task in self._running:
            task.cancel()
        for made in await asyncio.gather(*self._running, return_exceptions=True):
            if isinstance(made, Stream):
                made.abort()
        self._running.clear()


def _result(task: asyncio.Task[Stream], peer: Peer) -> Stream | Deferred:
    try:
        return task.result()
    except StreamError:
        return timed_out(peer)
    except OSError as error:
        return unreachable(error, peer)
