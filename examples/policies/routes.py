"""Sends bulk senders' mail through a second relay, and counts what fails for good."""

from collections import Counter

from postroom import Failed, OutcomeSubject, Route, RouteSubject, Session, hook

BULK_SENDERS = {"news@whizzer.test", "invoices@whizzer.test"}

failures: Counter[str] = Counter()


@hook.route
def bulk_by_its_own_relay(session: Session, recipient: RouteSubject) -> Route | None:
    is_bulk = recipient.sender.to_text().lower() in BULK_SENDERS
    if is_bulk and recipient.route.agent == "smtp":
        return Route("smtp", "[bulk-relay.whizzer.test]:587", "bulk sender")
    return None


@hook.outcome
def count_failures(session: Session, subject: OutcomeSubject) -> None:
    if isinstance(subject.outcome, Failed):
        failures[subject.recipient.domain_key] += 1
