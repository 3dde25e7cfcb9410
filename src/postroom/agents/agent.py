"""What every delivery agent is: something that takes attempts and returns outcomes."""

from collections.abc import Sequence
from typing import Protocol

from postroom.mail.outcome import Attempt, Outcome


class Agent(Protocol):
    """One way of delivering."""

    async def deliver(self, attempt: Attempt) -> Sequence[Outcome]:
        """Try once.

        Returns one outcome per recipient of the attempt, in order. Never raises for
        what a peer, a mailbox or a network did; an exception is a bug or a broken
        disk, and the caller defers the attempt and logs it.
        """

    async def aclose(self) -> None:
        """Give up kept connections and finish what is in hand."""
