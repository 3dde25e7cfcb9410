"""Letters of local programs: the same verdicts and the same queue as by SMTP."""

from typing import Any

import pytest

from postroom import defer, discard, hook, reject
from postroom.mail.address import Address
from postroom.mail.envelope import Envelope, Origin, Recipient
from postroom.mail.units import Size
from postroom.observe.events import MessageDiscarded
from postroom.policy.hooks import Function
from postroom.services.submit import LocalSubmitter
from postroom.services.submitter import Refused, Submitted
from postroom.smtp.settings import ServerSettings
from postroom.spool.spool import SpoolError, SpoolFull
from postroom.testing.workbench import Bench, Plan, bench

LETTER = b"Subject: s\r\n\r\nhello\r\n"


def recipient(text: str) -> Recipient:
    return Recipient(Address.from_text(text))


async def submit(
    b: Bench, *recipients: str, letter: bytes = LETTER, say: Any = None
) -> Submitted | Refused:
    """Hand a letter in; recipients that are refused are left out."""
    envelope = Envelope(
        sender=Address.from_text("betty@gonzo.test"),
        origin=Origin(login="betty"),
        arrival_us=b.clock.utc_us,
    )
    draft = await LocalSubmitter(b.tools).begin(envelope)
    if isinstance(draft, Refused):
        return draft
    try:
        for text in recipients:
            refused = await draft.add_recipient(recipient(text))
            if refused is not None:
                return refused
        queue_id = await draft.open()
        for start in range(0, len(letter), 50):
            await draft.add(letter[start : start + 50])
        answer = await draft.finish(say)
        if isinstance(answer, Submitted):
            assert answer.queue_id == queue_id
        return answer
    finally:
        await draft.abandon()
        assert b.budget.used == 0


async def test_a_letter_is_kept_and_delivered() -> None:
    async with bench() as b:
        answer = await submit(b, "joe@gonzo.test", "x@far.test")
        assert isinstance(answer, Submitted)
        assert answer.finished is None
        await b.rescan(1)
        assert b.agents["mailbox"].tried == ["joe@gonzo.test"]
        assert b.agents["smtp"].tried == ["x@far.test"]  # no leave to relay is needed
        assert b.agents["smtp"].attempts[0].envelope.origin.login == "betty"


async def test_who_listens_is_told_when_all_were_tried() -> None:
    async with bench() as b:
        said: list[str] = []
        answer = await submit(b, "joe@gonzo.test", say=said.append)
        assert isinstance(answer, Submitted)
        assert answer.finished is not None
        await answer.finished
        assert b.agents["mailbox"].attempts[0].say == said.append


def refuse(phase: str, verdict: Any) -> Function:
    def say(session: Any, subject: Any) -> Any:
        return verdict

    marked: Function = getattr(hook, phase)(say)
    return marked


@pytest.mark.parametrize("phase", ["mail", "rcpt", "message", "route"])
@pytest.mark.parametrize(
    ("verdict", "status"),
    [(reject("5.7.1", "no thanks"), "5.7.1"), (defer("4.7.1", "not now"), "4.7.1")],
)
async def test_policy_refuses(phase: str, verdict: Any, status: str) -> None:
    async with bench(Plan(hooks=[refuse(phase, verdict)])) as b:
        answer = await submit(b, "joe@gonzo.test")
        assert isinstance(answer, Refused)
        assert answer.status == status
        assert answer.text.endswith(("no thanks", "not now"))
        assert await b.queue() == []


@pytest.mark.parametrize("phase", ["mail", "rcpt", "message"])
async def test_policy_discards(phase: str) -> None:
    async with bench(Plan(hooks=[refuse(phase, discard("spam"))])) as b:
        assert isinstance(await submit(b, "joe@gonzo.test"), Submitted)
        assert await b.queue() == []
        assert b.told(MessageDiscarded)


@pytest.mark.parametrize(
    ("to", "status", "text"),
    [
        ("nosuch@gonzo.test", "5.1.1", "<nosuch@gonzo.test>... User unknown"),
        ("nosuch", "5.1.1", "<nosuch>... User unknown"),
    ],
)
async def test_unknown_recipients(to: str, status: str, text: str) -> None:
    async with bench() as b:
        answer = await submit(b, to)
        assert answer == Refused(status, text)


async def test_a_table_that_fails_is_for_now() -> None:
    async with bench() as b:
        b.aliases.fault = "broken"
        answer = await submit(b, "joe@gonzo.test")
        assert isinstance(answer, Refused)
        assert answer.status == "4.3.0"


async def test_a_letter_that_is_too_large_is_refused_and_not_held() -> None:
    server = ServerSettings(message_octets_max=Size(100))
    async with bench(Plan(server=server)) as b:
        answer = await submit(b, "joe@gonzo.test", letter=LETTER + b"x" * 1_000)
        assert isinstance(answer, Refused)
        assert answer.status == "5.3.4"
        assert await b.queue() == []


@pytest.mark.parametrize(
    ("fault", "status"), [(SpoolFull("full"), "4.3.1"), (SpoolError("no"), "4.3.0")]
)
async def test_a_spool_that_fails_is_for_now(fault: SpoolError, status: str) -> None:
    async with bench() as b:
        b.spool.faults["accept"] = [fault]
        answer = await submit(b, "joe@gonzo.test", say=print)
        assert isinstance(answer, Refused)
        assert answer.status == status
        assert b.is_balanced()


async def test_a_draft_that_is_given_up_leaves_nothing() -> None:
    async with bench() as b:
        draft = await LocalSubmitter(b.tools).begin(Envelope())
        assert not isinstance(draft, Refused)
        await draft.abandon()
        await draft.add_recipient(recipient("joe@gonzo.test"))
        await draft.open()
        assert b.budget.used
        await draft.add(LETTER)
        await draft.abandon()
        assert b.budget.used == 0
        assert await b.queue() == []
