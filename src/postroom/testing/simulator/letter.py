"""A message, or those recipients of a list that go in one transaction."""

from typing import NamedTuple


class Draft(NamedTuple):
    """What somebody sends.

    Attributes:
        group: under what name its delays are measured.
        sender: the sender's address.
        hop: the domain it goes to.
        recipients: how many; a list has many.
        size: octets of the content.
    """

    group: str
    sender: str
    hop: str
    recipients: int = 1
    size: int = 4_096


class Letter:
    """What one attempt is about.

    Attributes:
        number: in the order of submission.
        draft: what was sent.
        recipients: how many of them this letter has.
        lane: its lane.
        arrival_us: when it was accepted.
        tries: attempts that did not end it.
        tried_us: when it was tried first; -1 before.
        ended_us: when it was delivered or given up; -1 before.
        delivered: whether it was delivered.
        in_hand: whether it is leased.
    """

    __slots__ = (
        "arrival_us",
        "delivered",
        "draft",
        "ended_us",
        "in_hand",
        "lane",
        "number",
        "recipients",
        "tried_us",
        "tries",
    )

    def __init__(
        self, number: int, draft: Draft, recipients: int, lane: int, arrival_us: int
    ) -> None:
        self.number = number
        self.draft = draft
        self.recipients = recipients
        self.lane = lane
        self.arrival_us = arrival_us
        self.tries = 0
        self.tried_us = -1
        self.ended_us = -1
        self.delivered = False
        self.in_hand = False
