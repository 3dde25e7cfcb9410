"""What happened to a message, told to people line by line. Pure but for the zone."""

from collections.abc import Iterator, Sequence
from typing import assert_never

from postroom.cli.words import moment, octets, printable, rough
from postroom.mail.outcome import Deferred, Delivered, Failed, Outcome
from postroom.observe.events import (
    AnyEvent,
    AttemptDone,
    MessageDiscarded,
    MessageOrdered,
    MessageQueued,
    MessageRemoved,
    MessageShunted,
    RecipientDiscarded,
    RecipientExpanded,
    ReportDropped,
    ReportQueued,
)
from postroom.observe.render import event_text, relay_text


def story_lines(events: Sequence[AnyEvent]) -> Iterator[str]:
    """Yield a line for each event, with its moment in front."""
    for event in events:
        yield f"{moment(event.utc_us)}  {printable(_told(event))}"


def _told(event: AnyEvent) -> str:
    match event:
        case MessageQueued():
            sender = event.sender.to_text()
            by = f" by {event.origin.protocol}" if event.origin.client_ip else ""
            count = f"{event.recipients} recipient{'s' * (event.recipients != 1)}"
            return (
                f"accepted from <{sender}> via {relay_text(event.origin)}{by},"
                f" {octets(event.size_octets)}, {count} {event.message_id}".rstrip()
            )
        case AttemptDone():
            return _attempt(event)
        case RecipientExpanded():
            clone = f" in {event.clone}" if event.clone else ""
            return (
                f"<{event.recipient.to_text()}> became {event.children} recipient"
                f"{'s' * (event.children != 1)}{clone} ({event.rule})"
            )
        case ReportQueued():
            to = event.recipient.to_text()
            what = f"report {event.queue_id} ({event.kind}) about {event.about}"
            return f"{what} to <{to}>"
        case ReportDropped():
            return f"no report about it: {event.reason}"
        case MessageDiscarded():
            whose = ""
            if event.sender is not None and event.origin is not None:
                sender = event.sender.to_text()
                whose = f", from <{sender}> via {relay_text(event.origin)}"
            return f"thrown away by policy{whose}: {event.reason}"
        case RecipientDiscarded():
            to = event.recipient.to_text()
            return f"not sent to <{to}>, by policy: {event.reason}"
        case MessageRemoved():
            return f"removed by {event.by}"
        case MessageOrdered():
            reason = f": {event.reason}" if event.reason else ""
            return f"{event.act} by {event.by}{reason}"
        case MessageShunted():
            return f"put aside: {event.reason}"
        case _:
            return event_text(event)


def _attempt(event: AttemptDone) -> str:
    to = event.recipient.to_text()
    via = f" by {event.outcome.peer}" if event.outcome.peer else ""
    after = f", try {event.tries}, {rough(event.delay_us)} after it came"
    later = f", next {moment(event.next_us)}" if event.next_us else ""
    came = _outcome(event.outcome)
    if event.is_given_up:
        came = came.replace("deferred", "given up", 1)
    return f"to <{to}>: {came}{via}{after}{later}"


def _outcome(outcome: Outcome) -> str:
    text = f" ({outcome.status} {outcome.text})".replace(" )", ")")
    match outcome:
        case Delivered():
            return f"delivered{text}"
        case Deferred():
            return f"deferred{text}"
        case Failed():
            return f"failed{text}"
        case _:
            assert_never(outcome)
