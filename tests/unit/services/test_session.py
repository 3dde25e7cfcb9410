"""One SMTP session over a list of octets, with the real core, policy and queue."""

import asyncio
import weakref
from typing import Any

import pytest

from postroom import accept, defer, discard, hook, quarantine, reject, remove_recipient
from postroom.mail.envelope import Origin
from postroom.mail.units import Duration, Size
from postroom.net.stream import StreamInterrupted, StreamLost, StreamTimeout
from postroom.observe.events import (
    CommandRejected,
    HookFailed,
    Lifecycle,
    MessageDiscarded,
    MessageQueued,
    RecipientDiscarded,
    SessionClosed,
)
from postroom.policy.hooks import Function
from postroom.services.generation import Tenancy
from postroom.services.receive import ReceiveService
from postroom.services.settings import ReceiveSettings
from postroom.smtp.settings import ServerSettings
from postroom.spool.spool import SpoolError, SpoolFull
from postroom.testing.conversation import ListConversation, Piece
from postroom.testing.workbench import Bench, Plan, bench

ENVELOPE = "EHLO c.test\nMAIL FROM:<ann@c.test>\nRCPT TO:<joe@gonzo.test>\n"
LETTER = "Subject: s\n\nhello\n"
CLIENT = Origin(protocol="SMTP", client_ip="127.0.0.1", listener="in")


async def talk(b: Bench, *pieces: Piece, origin: Origin = CLIENT) -> ListConversation:
    conversation = ListConversation(*pieces)
    await ReceiveService(b.tools).converse(conversation, origin)
    assert conversation.is_closed
    assert b.budget.used == 0  # whatever happened
    return conversation


def how(b: Bench) -> str:
    return b.told(SessionClosed)[-1].how


async def test_a_letter_is_taken() -> None:
    async with bench() as b:
        b.agents["mailbox"].gate.clear()
        said = await talk(b, ENVELOPE + "DATA\n", LETTER + ".\n", "QUIT\n")
        assert said.codes == [
            "220", "250", "250 2.1.0", "250 2.1.5", "354", "250 2.0.0", "221 2.0.0"
        ]  # fmt: skip
        assert how(b) == "quit"
        assert await b.waiting() == ["joe@gonzo.test"]
        (queued,) = b.told(MessageQueued)
        assert queued.origin.protocol == "ESMTP"
        assert queued.origin.helo == "c.test"


async def test_what_may_be_different_people_gets_a_copy_each() -> None:
    async with bench() as b:
        b.agents["mailbox"].gate.clear()
        b.agents["smtp"].gate.clear()
        names = ["joe+a@gonzo.test", "x@far.test", "X@far.test", "x@FAR.test"]
        more = "".join(f"RCPT TO:<{name}>\n" for name in names)
        await talk(b, ENVELOPE + more + "DATA\n", LETTER + ".\n", "QUIT\n")
        assert await b.waiting() == [
            "X@far.test", "joe+a@gonzo.test", "joe@gonzo.test", "x@far.test"
        ]  # fmt: skip


async def test_a_letter_in_single_octets_is_the_same() -> None:
    async with bench() as b:
        b.agents["mailbox"].gate.clear()
        text = (ENVELOPE + "DATA\n" + LETTER + ".\nQUIT\n").replace("\n", "\r\n")
        await talk(b, *[bytes([octet]) for octet in text.encode()])
        assert await b.waiting() == ["joe@gonzo.test"]


@pytest.mark.parametrize(
    "again", ["joe@gonzo.test", "joe@Gonzo.TEST", "joe@gonzo.test.", "Joe@gonzo.test"]
)
async def test_a_recipient_named_twice_gets_one_copy(again: str) -> None:
    async with bench() as b:
        b.agents["mailbox"].gate.clear()
        again = f"RCPT TO:<{again}>\n"
        said = await talk(b, ENVELOPE + again + "DATA\n", LETTER + ".\n", "QUIT\n")
        assert said.codes[3:5] == ["250 2.1.5", "250 2.1.5"]
        assert await b.waiting() == ["joe@gonzo.test"]


def refuse(phase: str, verdict: Any) -> Function:
    def say(session: Any, subject: Any) -> Any:
        return verdict

    decorator = getattr(hook, phase)
    marked: Function = decorator(say)
    return marked


NO, LATER = reject("5.7.1", "no"), defer("4.7.1", "later")


@pytest.mark.parametrize(
    ("phase", "verdict", "codes", "rejected"),
    [
        pytest.param("connect", NO, ["554 5.7.1"], "connect", id="connect-reject"),
        pytest.param("connect", LATER, ["421 4.7.1"], "connect", id="connect-defer"),
        pytest.param("hello", NO, ["220", "550 5.7.1", "503 5.5.1"], "EHLO",
            id="hello-reject"),
        pytest.param("mail", NO, ["220", "250", "550 5.7.1", "503 5.5.1"], "MAIL",
            id="mail-reject"),
        pytest.param("mail", LATER, ["220", "250", "450 4.7.1"], "MAIL",
            id="mail-defer"),
        pytest.param("rcpt", NO, ["220", "250", "250 2.1.0", "550 5.7.1",
            "554 5.5.1"], "RCPT", id="rcpt-reject"),
        pytest.param("message", NO, ["220", "250", "250 2.1.0", "250 2.1.5", "354",
            "550 5.7.1", "221 2.0.0"], "DATA", id="message-reject"),
        pytest.param("message", LATER, ["220", "250", "250 2.1.0", "250 2.1.5", "354",
            "450 4.7.1"], "DATA", id="message-defer"),
        pytest.param("message", "nonsense", ["220", "250", "250 2.1.0", "250 2.1.5",
            "354", "451 4.3.0"], "DATA", id="message-nonsense"),
        pytest.param("route", NO, ["220", "250", "250 2.1.0", "250 2.1.5", "354",
            "550 5.7.1"], "DATA", id="route-reject"),
        pytest.param("route", LATER, ["220", "250", "250 2.1.0", "250 2.1.5", "354",
            "450 4.7.1"], "DATA", id="route-defer"),
    ],
)  # fmt: skip
async def test_policy_refuses(
    phase: str, verdict: Any, codes: list[str], rejected: str
) -> None:
    async with bench(Plan(hooks=[refuse(phase, verdict)])) as b:
        said = await talk(b, ENVELOPE + "DATA\n", LETTER + ".\n", "QUIT\n")
        assert said.codes[: len(codes)] == codes
        assert await b.queue() == []
        assert not b.told(MessageQueued)
        assert b.told(CommandRejected)[0].verb == rejected


@pytest.mark.parametrize("phase", ["mail", "rcpt", "message", "route"])
async def test_policy_discards(phase: str) -> None:
    async with bench(Plan(hooks=[refuse(phase, discard("spam"))])) as b:
        said = await talk(b, ENVELOPE + "DATA\n", LETTER + ".\n", "QUIT\n")
        assert said.codes[-2] == "250 2.0.0"
        assert await b.queue() == []
        assert len(b.told(MessageDiscarded)) == 1


async def test_discarding_one_recipient_keeps_the_other() -> None:
    @hook.rcpt
    def trap(session: Any, rcpt: Any) -> Any:
        return discard("trap") if rcpt.address.local == "joe" else None

    async with bench(Plan(hooks=[trap])) as b:
        more = "RCPT TO:<betty@gonzo.test>\nDATA\n"
        await talk(b, ENVELOPE + more, LETTER + ".\n")
        await b.idle()
        assert b.agents["mailbox"].tried == ["betty@gonzo.test"]
        (told,) = b.told(RecipientDiscarded)
        assert (str(told.recipient), told.reason) == ("joe@gonzo.test", "trap")
        assert told.queue_id == b.told(MessageQueued)[0].queue_id


@pytest.mark.parametrize(
    ("phase", "said", "reason"),
    [
        pytest.param("mail", discard("bad sender"), "bad sender", id="mail"),
        pytest.param("rcpt", discard("trap"), "policy discarded every recipient",
            id="rcpt"),
        pytest.param("message", discard("virus"), "virus", id="message"),
        pytest.param("message", accept(remove_recipient("joe@gonzo.test")),
            "policy removed every recipient", id="removed"),
        pytest.param("route", discard("away"), "policy discarded every recipient",
            id="route"),
    ],
)  # fmt: skip
async def test_the_log_says_why_mail_was_thrown_away(
    phase: str, said: Any, reason: str
) -> None:
    async with bench(Plan(hooks=[refuse(phase, said)])) as b:
        await talk(b, ENVELOPE + "DATA\n", LETTER + ".\n", "QUIT\n")
        assert [told.reason for told in b.told(MessageDiscarded)] == [reason]
        one_by_one = phase in ("rcpt", "route") or reason.endswith("recipient")
        assert len(b.told(RecipientDiscarded)) == one_by_one


async def test_what_was_thrown_away_is_not_told_of_a_message_that_is_refused() -> None:
    @hook.rcpt
    def trap(session: Any, rcpt: Any) -> Any:
        return discard("trap") if rcpt.address.local == "joe" else None

    async with bench(Plan(hooks=[trap, refuse("message", NO)])) as b:
        more = "RCPT TO:<betty@gonzo.test>\nDATA\n"
        await talk(b, ENVELOPE + more, LETTER + ".\n")
        assert not b.told(RecipientDiscarded)


@pytest.mark.parametrize("phase", ["message", "route"])
async def test_a_refused_content_names_the_hook(phase: str) -> None:
    async with bench(Plan(hooks=[refuse(phase, NO)])) as b:
        await talk(b, ENVELOPE + "DATA\n", LETTER + ".\n")
        assert b.told(CommandRejected)[-1].rule == "say"


async def test_a_hook_that_raises_is_451_and_nothing_is_kept() -> None:
    @hook.message
    def broken(session: Any, message: Any) -> Any:
        raise ValueError("bug")

    async with bench(Plan(hooks=[broken])) as b:
        said = await talk(b, ENVELOPE + "DATA\n", LETTER + ".\n", "QUIT\n")
        assert said.codes[-2] == "451 4.3.0"
        assert await b.queue() == []
        assert b.told(HookFailed)[0].hook.endswith("broken")


async def test_quarantine_keeps_and_does_not_deliver() -> None:
    verdict = accept(quarantine("looks odd"))
    async with bench(Plan(hooks=[refuse("message", verdict)])) as b:
        said = await talk(b, ENVELOPE + "DATA\n", LETTER + ".\n")
        assert said.codes[-1] == "250 2.0.0"
        await b.rescan(3600)
        (entry,) = await b.queue()
        assert entry.recipients[0].status_text == "looks odd"
        assert b.agents["mailbox"].tried == []
        assert b.is_balanced()


SPOOL_FAULTS = [
    pytest.param(SpoolFull("full"), "452 4.3.1", id="full"),
    pytest.param(SpoolError("broken"), "451 4.3.0", id="broken"),
]


@pytest.mark.parametrize(("fault", "code"), SPOOL_FAULTS)
async def test_a_spool_that_fails_is_no_250(fault: Exception, code: str) -> None:
    async with bench() as b:
        b.spool.faults["accept"] = [fault]
        again = "MAIL FROM:<ann@c.test>\nRCPT TO:<joe@gonzo.test>\nDATA\n"
        said = await talk(b, ENVELOPE + "DATA\n", LETTER + ".\n", again, LETTER + ".\n")
        assert said.codes[5] == code
        assert said.codes[-1] == "250 2.0.0"  # the session goes on
        await b.idle()
        assert b.agents["mailbox"].tried == ["joe@gonzo.test"]
        assert b.is_balanced()


async def test_the_log_shows_addresses_in_brackets_as_log_tools_want_them() -> None:
    unknown = "MAIL FROM:<>\nRCPT TO:<nobody@gonzo.test>\n"
    async with bench(Plan(hooks=[refuse("mail", NO)])) as b:
        await talk(b, "EHLO c.test\n", "MAIL FROM:<a@c.test>\nMAIL FROM:<>\n")
        told = b.told(CommandRejected)
        assert [one.argument for one in told] == ["<a@c.test>", "<>"]
    async with bench() as b:
        await talk(b, "EHLO c.test\n", unknown)
        assert b.told(CommandRejected)[0].argument == "<nobody@gonzo.test>"


async def test_no_space_is_said_at_mail() -> None:
    async with bench() as b:
        b.spool.check_space = lambda octets: False  # type: ignore[attr-defined]
        said = await talk(b, ENVELOPE)
        assert said.codes[2] == "452 4.3.1"
        assert b.told(CommandRejected)[0].rule == "spool reserve"


async def test_a_bug_while_accepting_is_421_and_concerns_nobody_else() -> None:
    async with bench() as b:
        b.spool.faults["accept"] = [RuntimeError("bug")]
        said = await talk(b, ENVELOPE + "DATA\n", LETTER + ".\n")
        assert said.codes[-1] == "421 4.3.0"
        assert how(b) == "error"
        assert any("bug" in told.what for told in b.told(Lifecycle))
        assert b.is_balanced()


@pytest.mark.parametrize(
    ("ending", "closed", "code"),
    [
        pytest.param(b"", "lost", "354", id="gone"),
        pytest.param(StreamLost("reset"), "lost", "354", id="reset"),
        pytest.param(StreamTimeout("slow"), "timeout", "421 4.4.2", id="timeout"),
    ],
)
async def test_a_client_lost_in_data_leaves_nothing(
    ending: Piece, closed: str, code: str
) -> None:
    async with bench() as b:
        said = await talk(b, ENVELOPE + "DATA\n", LETTER, ending)
        assert how(b) == closed
        assert said.codes[-1] == code
        assert await b.queue() == []


async def test_draining_ends_an_idle_session() -> None:
    async with bench() as b:
        said = await talk(b, "EHLO c.test\n", StreamInterrupted("drain"), ENVELOPE)
        assert said.codes == ["220", "250", "421 4.3.2"]
        assert how(b) == "shutdown"


async def test_draining_lets_the_transaction_in_hand_finish_then_ends() -> None:
    async with bench() as b:
        b.agents["mailbox"].gate.clear()
        said = await talk(
            b,
            ENVELOPE,
            StreamInterrupted("drain"),
            "DATA\n",
            LETTER + ".\n",
            "MAIL FROM:<late@c.test>\n",
        )
        assert said.codes[-2:] == ["250 2.0.0", "421 4.3.2"]
        assert how(b) == "shutdown"
        assert await b.waiting() == ["joe@gonzo.test"]


async def test_draining_in_data_ends_after_it() -> None:
    async with bench() as b:
        b.agents["mailbox"].gate.clear()
        said = await talk(
            b, ENVELOPE + "DATA\n", LETTER, StreamInterrupted("drain"), ".\n", "NOOP\n"
        )
        assert said.codes[-2:] == ["250 2.0.0", "421 4.3.2"]


async def test_draining_ends_at_a_reset() -> None:
    async with bench() as b:
        said = await talk(b, ENVELOPE, StreamInterrupted("drain"), "RSET\n", "NOOP\n")
        assert said.codes[-2:] == ["250 2.0.0", "421 4.3.2"]


async def test_a_session_holds_its_generation_to_the_end() -> None:
    async with bench() as b:
        tenancy = Tenancy()
        b.generation = b.generation._replace(tenancy=tenancy)
        held = weakref.ref(tenancy)
        del tenancy
        seen = []

        def swap() -> None:
            b.generation = b.generation._replace(tenancy=Tenancy(), hostname="new")
            seen.append(held() is not None)

        said = await talk(b, "EHLO c.test\n", swap, "QUIT\n")
        assert seen == [True]
        assert held() is None
        assert "gonzo.test" in said.replies[-1]


async def test_a_full_log_holds_up_acceptance_and_nothing_else() -> None:
    async with bench() as b:
        b.log.room.clear()
        client = ListConversation(ENVELOPE, "DATA\n", LETTER + ".\n", "QUIT\n")
        task = asyncio.create_task(ReceiveService(b.tools).converse(client, CLIENT))
        await b.until(lambda: client.codes[-1:] == ["250 2.1.5"])
        for _ in range(5):
            await asyncio.sleep(0.001)
        assert client.codes[-1] == "250 2.1.5"
        b.log.room.set()
        await task
        assert client.codes[-2] == "250 2.0.0"


async def test_at_the_memory_budget_a_second_client_waits() -> None:
    async with bench(Plan(memory_octets=1)) as b:
        receive = ReceiveService(b.tools)
        let_go = asyncio.Event()

        async def go_on() -> None:
            await let_go.wait()

        first = ListConversation(ENVELOPE, "DATA\n", go_on, LETTER + ".\n")
        second = ListConversation(ENVELOPE, "DATA\n", LETTER + ".\n")
        tasks = [asyncio.create_task(receive.converse(first, CLIENT))]
        await b.until(lambda: first.codes[-1:] == ["354"])
        tasks.append(asyncio.create_task(receive.converse(second, CLIENT)))
        await b.until(lambda: second.codes[-1:] == ["250 2.1.5"])
        for _ in range(5):
            await asyncio.sleep(0.001)
        assert second.codes[-1] == "250 2.1.5"
        let_go.set()
        await asyncio.gather(*tasks)
        assert first.codes[-1] == second.codes[-1] == "250 2.0.0"
        assert b.budget.used == 0


async def test_a_client_that_waits_for_memory_and_is_cut_off_frees_its_place() -> None:
    async with bench(Plan(memory_octets=1)) as b:
        receive = ReceiveService(b.tools)
        assert b.budget.try_take(1)
        client = ListConversation(ENVELOPE, "DATA\n", LETTER + ".\n")
        task = asyncio.create_task(receive.converse(client, CLIENT))
        await b.until(lambda: client.codes[-1:] == ["250 2.1.5"])
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        b.budget.give_back(1)
        assert b.budget.used == 0
        assert client.is_closed


async def test_deadlines_are_longer_for_commands_than_for_data() -> None:
    settings = ReceiveSettings(
        command_timeout=Duration.from_text("5m"), data_timeout=Duration.from_text("3m")
    )
    async with bench(Plan(receive=settings)) as b:
        said = await talk(b, ENVELOPE + "DATA\n", LETTER + ".\n")
        assert said.waits == [300_000_000, 180_000_000, 300_000_000]


@pytest.mark.parametrize(
    ("recipient", "code"),
    [
        ("nosuch@gonzo.test", "550 5.1.1"),
        ("postmaster", "250 2.1.5"),
        ("joe%elsewhere.test@gonzo.test", "550 5.1.1"),
        ("joe@elsewhere.test", "550 5.7.1"),
    ],
)
async def test_recipients_of_a_stranger(recipient: str, code: str) -> None:
    async with bench() as b:
        line = f"RCPT TO:<{recipient}>\n"
        start = "EHLO c.test\nMAIL FROM:<ann@c.test>\n"
        stranger = Origin(protocol="SMTP", client_ip="192.0.2.9")
        said = await talk(b, start + line, origin=stranger)
        assert said.codes[-1] == code


async def test_a_table_that_fails_defers_the_recipient() -> None:
    async with bench() as b:
        b.aliases.fault = "aliases:3: broken"
        said = await talk(b, ENVELOPE)
        assert said.codes[-1] == "451 4.3.0"
        assert "broken" not in said.replies[-1]


async def test_a_message_over_the_limit_is_552_and_nothing_is_kept() -> None:
    server = ServerSettings(message_octets_max=Size(100))
    async with bench(Plan(server=server)) as b:
        said = await talk(b, ENVELOPE + "DATA\n", LETTER + "x" * 99 + "\n.\n", "NOOP\n")
        assert said.codes[-2:] == ["552 5.3.4", "250 2.0.0"]
        assert await b.queue() == []


async def test_too_many_errors_end_the_session() -> None:
    async with bench(Plan(server=ServerSettings(errors_max=2))) as b:
        said = await talk(b, "NONSENSE\n" * 5)
        assert said.codes[-1] == "421 4.7.0"
        assert how(b) == "errors"


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("NOOP", "250 2.0.0"),
        ("HELP", "214 2.0.0"),
        ("VRFY joe", "252 2.5.2"),
        ("EXPN all", "502 5.7.0"),
        ("STARTTLS", "502 5.5.1"),
        ("AUTH PLAIN", "502 5.5.1"),
        ("DATA", "503 5.5.1"),
        ("RCPT TO:<joe@gonzo.test>", "503 5.5.1"),
    ],
)
async def test_single_commands(line: str, code: str) -> None:
    async with bench() as b:
        said = await talk(b, f"EHLO c.test\n{line}\n", "QUIT\n")
        assert said.codes[2:] == [code, "221 2.0.0"]


async def test_recipients_of_one_domain_after_another_go_their_own_ways() -> None:
    """The way of the recipient before holds for the same foreign domain only."""
    many = ["a@far.test", "b@far.test", "joe@gonzo.test", "nosuch@gonzo.test"]
    many += ["c@near.test", "d@far.test", "e@FAR.test", "nosuch@gonzo.test"]
    to = "".join(f"RCPT TO:<{one}>\n" for one in many)
    async with bench() as b:
        for agent in b.agents.values():
            agent.gate.clear()
        said = await talk(
            b,
            "EHLO c.test\nMAIL FROM:<ann@c.test>\n" + to + "DATA\n",
            LETTER + ".\n",
            "QUIT\n",
        )
        codes = said.codes[3:11]
        assert [code[:3] for code in codes] == [
            "250", "250", "250", "550", "250", "250", "250", "550"
        ]  # fmt: skip
        hops = {r.address: r.hop for entry in await b.queue() for r in entry.recipients}
        assert hops["b@far.test"] == hops["d@far.test"] == "far.test"
        assert hops["c@near.test"] == "near.test"
        assert hops["joe@gonzo.test"] == "local"
