"""What the sender, the log and the queue are told when an operator gives mail up."""

import msgspec
import pytest

from postroom.observe.events import (
    AttemptDone,
    MessageOrdered,
    ReportDropped,
    ReportQueued,
)
from postroom.services.farewell import Undertaker
from postroom.spool.selection import QueueFilter
from postroom.spool.spool import RecipientState
from postroom.testing.workbench import Bench, bench

ALL = QueueFilter()


async def give_up(b: Bench, sender: str, reason: str) -> list[str]:
    recipient = msgspec.structs.replace(
        b.letter("joe@far.test").recipients[0],
        state=RecipientState.HELD,
        status_text="Deferred: nobody at home",
    )
    letter = b.letter(recipient, sender=sender)
    await b.shard.accept(letter)
    undertaker = Undertaker(b.shop, b.line.reporter, reason, "root")
    pages = b.shard.give_up(ALL, b.clock(), undertaker.report)
    done = [queue_id async for page in pages for queue_id in page.queue_ids]
    assert done == [letter.queue_id]
    return done


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        (
            "too old",
            "Returned by the administrator of this host: too old"
            " (it was waiting: Deferred: nobody at home)",
        ),
        (
            "",
            "Returned by the administrator of this host"
            " (it was waiting: Deferred: nobody at home)",
        ),
    ],
)
async def test_the_sender_is_told_why(reason: str, expected: str) -> None:
    async with bench() as b:
        (queue_id,) = await give_up(b, "betty@gonzo.test", reason)
        (order,) = b.told(MessageOrdered)
        assert (order.queue_id, order.act, order.by) == (queue_id, "bounce", "root")
        (done,) = b.told(AttemptDone)
        assert (done.outcome.status, done.outcome.text) == ("5.0.0", expected)
        (report,) = b.told(ReportQueued)
        assert (report.about, report.recipient.to_text()) == (
            queue_id,
            "betty@gonzo.test",
        )
        kept = await b.shard.kept(report.queue_id)
        assert kept is not None
        body = await kept.message.body.read(0, kept.message.body.size)
        assert b"Status: 5.0.0" in body
        assert b"nobody at home" in body


async def test_without_a_sender_it_is_no_storm() -> None:
    async with bench() as b:
        await give_up(b, "", "")
        assert len(b.told(ReportQueued)) + len(b.told(ReportDropped)) == 1
        assert await b.waiting() in ([], ["postmaster@gonzo.test"])
