"""The agent that throws away: for routes that say so, for tests and measurements."""

from collections.abc import Sequence

from postroom.mail.outcome import Attempt, Delivered, Outcome

_GONE = Delivered("2.0.0", "Discarded")


class DiscardAgent:
    """Says that all is delivered, and delivers nothing."""

    async def deliver(self, attempt: Attempt) -> Sequence[Outcome]:
        """Throw the message away; one outcome per recipient."""
        if attempt.say:
            for recipient in attempt.envelope.recipients:
                attempt.say(f"{recipient.address}... Discarded")
        return [_GONE] * len(attempt.envelope.recipients)

    async def aclose(self) -> None:
        """Nothing is kept, so nothing is to be done."""
