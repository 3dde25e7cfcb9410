"""Looks at all streams of a loop about once a second: deadlines cost nothing per read.

What is looked at has a ``check_time``; one sweeper serves all streams of its loop and
rests while there are none.
"""

import asyncio
from typing import Protocol
from weakref import WeakKeyDictionary

from postroom.mail.now import SECOND_US
from postroom.net.clock import read_mono_us

SWEEP_US = 1 * SECOND_US
"""How often deadlines are looked at."""


class Timed(Protocol):
    """What may be waiting too long."""

    def check_time(self, mono_us: int, since_us: int) -> None:
        """Wake whoever waits too long.

        Args:
            mono_us: the present moment.
            since_us: how long ago the sweeper last came.
        """


class Sweeper:
    """Looks at the streams of one loop. Made by ``sweeper_of``.

    Attributes:
        next_us: not before this the next sweep comes.
    """

    def __init__(self) -> None:
        self._streams: set[Timed] = set()
        self._is_running = False
        self.next_us = 0

    def watch(self, stream: Timed) -> None:
        """Look at a stream from now on."""
        self._streams.add(stream)
        if not self._is_running:
            self._schedule()

    def forget(self, stream: Timed) -> None:
        """Look at it no more."""
        self._streams.discard(stream)

    def _schedule(self) -> None:
        self._is_running = True
        self.next_us = read_mono_us() + SWEEP_US
        loop = asyncio.get_running_loop()
        loop.call_later(SWEEP_US / SECOND_US, self._sweep)

    def _sweep(self) -> None:
        mono_us = read_mono_us()
        since_us = SWEEP_US + max(0, mono_us - self.next_us)
        for stream in tuple(self._streams):
            stream.check_time(mono_us, since_us)
        if self._streams:
            self._schedule()
        else:
            self._is_running = False


_sweepers: WeakKeyDictionary[asyncio.AbstractEventLoop, Sweeper] = WeakKeyDictionary()


def sweeper_of(loop: asyncio.AbstractEventLoop) -> Sweeper:
    """Return the sweeper of a loop."""
    found = _sweepers.get(loop)
    if found is None:
        found = _sweepers[loop] = Sweeper()
    return found
