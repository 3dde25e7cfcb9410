"""What hosts at the other end do: answer in their time, refuse, hang, or ask for later.

A peer is one destination, however many hosts it has.
"""

from enum import Enum, auto

import msgspec

from postroom.mail.now import SECOND_US
from postroom.mail.outcome import Deferred, Delivered, Outcome
from postroom.testing.simulator.letter import Letter

SENT = Delivered("2.0.0", "Ok")
GREYLISTED = Deferred("4.7.1", "Greylisted, come back later", code=451)
REFUSED = Deferred("4.4.1", "Connection refused", hop_failed=True)
TIMED_OUT = Deferred("4.4.1", "Connection timed out", hop_failed=True)
TOO_MANY = Deferred("4.3.2", "421 Too many connections", code=421, hop_failed=True)
LOST = Deferred("4.4.2", "Connection lost", hop_failed=True)


class Death(Enum):
    """How a host is dead."""

    REFUSES = auto()
    HANGS = auto()


class Peer(msgspec.Struct, frozen=True):
    """One destination.

    Attributes:
        service_us: how long it takes over a message.
        recipient_us: how much longer for each further recipient.
        connect_us: until a connection stands, EHLO included.
        vary_percent: by how much these vary.
        connections_max: more get 421; 0 for no bound.
        death: how it is dead, if it is.
        hang_us: how long it takes to see that it hangs.
        greylist_us: for so long after a letter's first try it is deferred.
        out: from when to when nothing of it can be reached.
    """

    service_us: int = SECOND_US // 10
    recipient_us: int = 0
    connect_us: int = SECOND_US // 20
    vary_percent: int = 20
    connections_max: int = 0
    death: Death | None = None
    hang_us: int = 30 * SECOND_US
    greylist_us: int = 0
    out: tuple[int, int] = (0, 0)

    def is_out(self, us: int) -> bool:
        """Whether it cannot be reached at a moment."""
        return self.out[0] <= us < self.out[1]

    def refusal(self, us: int, connections: int) -> tuple[Deferred, int] | None:
        """Say why a connection does not come about, and how long that takes."""
        if self.is_out(us):
            return REFUSED, self.connect_us
        if self.death is Death.REFUSES:
            return REFUSED, self.connect_us
        if self.death is Death.HANGS:
            return TIMED_OUT, self.hang_us
        if self.connections_max and connections >= self.connections_max:
            return TOO_MANY, self.connect_us
        return None

    def length_us(self, letter: Letter) -> int:
        """How long it takes over a letter, before it varies."""
        return self.service_us + self.recipient_us * (letter.recipients - 1)

    def answer(self, letter: Letter, us: int) -> Outcome:
        """Say what becomes of a letter that it has taken in."""
        if self.is_out(us):
            return LOST
        if self.greylist_us and us - letter.tried_us < self.greylist_us:
            return GREYLISTED
        return SENT
