"""What holds for users who log in, read from the settings once per generation."""

from typing import NamedTuple

from postroom.limits.gcra import Rate
from postroom.policy.settings import parse_rate
from postroom.services.settings import SubmissionSettings


class UserRules(NamedTuple):
    """The rules, rates parsed; None is no limit."""

    own_senders: bool
    own_from: bool
    message_rate: Rate | None
    recipient_rate: Rate | None
    hide_client: bool


def user_rules(settings: SubmissionSettings) -> UserRules:
    """Read the settings.

    Raises:
        ValueError: a rate makes no sense.
    """
    return UserRules(
        settings.own_senders,
        settings.own_from,
        parse_rate(settings.message_rate),
        parse_rate(settings.recipient_rate),
        settings.hide_client,
    )


USUAL_RULES = user_rules(SubmissionSettings())
"""Those of a configuration that says nothing about it."""
