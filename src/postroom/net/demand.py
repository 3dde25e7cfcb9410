"""How fast a peer has to send while it is waited for. Pure.

Looked at by the sweeper about once a second, so it costs nothing per read. Only time
in which the peer was waited for counts: what we take to write or to judge is not its
fault. The average is taken over a window, so a pause within it is no offence.
"""

from collections.abc import Callable

from postroom.mail.now import SECOND_US


class Demand:
    """A peer must send ``octets_per_s`` on average, seen over ``window_us``.

    Args:
        octets_per_s: the least that is enough.
        window_us: over how much waiting time the average is taken.
        applies: whether the peer owes us octets at the moment at all.
    """

    __slots__ = ("_applies", "_received", "_waited_us", "octets_per_s", "window_us")

    def __init__(
        self, octets_per_s: int, window_us: int, applies: Callable[[], bool]
    ) -> None:
        assert octets_per_s > 0
        self.octets_per_s = octets_per_s
        self.window_us = window_us
        self._applies = applies
        self._waited_us = 0
        self._received = 0

    def is_failed(self, received: int, waited_us: int) -> bool:
        """Whether the peer was too slow over the window that has just ended.

        Args:
            received: the octets that have come since the connection began.
            waited_us: how long the peer was waited for since the last look.
        """
        if not self._applies():
            self._waited_us, self._received = 0, received
            return False
        self._waited_us += waited_us
        if self._waited_us < self.window_us:
            return False
        due = self.octets_per_s * self._waited_us // SECOND_US
        came = received - self._received
        self._waited_us, self._received = 0, received
        return came < due
