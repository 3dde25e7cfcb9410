"""Aliases and lists after acceptance: nobody lost, nobody twice, all told."""

from pathlib import Path
from typing import Any

import pytest

from postroom import Route, defer, discard, hook, reject
from postroom.mail.envelope import Recipient
from postroom.mail.outcome import Deferred, Failed
from postroom.observe.events import (
    AttemptDone,
    HookFailed,
    MessageQueued,
    RecipientDiscarded,
    RecipientExpanded,
    ReportQueued,
)
from postroom.services.accept import Routed
from postroom.services.expand import CHILDREN_MAX
from postroom.spool.spool import Fenced, SpoolError, SpoolFull
from postroom.testing.spool import Letters
from postroom.testing.workbench import Bench, Plan, bench

MEMBERS = [f"m{number}@far.test" for number in range(2_500)]
BETTY = "betty@gonzo.test"


async def send(b: Bench, *aliases: str, sender: str = BETTY) -> None:
    letter = b.letter(*(f":{alias}@gonzo.test" for alias in aliases), sender=sender)
    await b.shard.accept(letter)
    for _ in range(3):
        await b.rescan(1)


def tried(b: Bench) -> list[str]:
    return [text for agent in b.agents.values() for text in agent.tried]


@pytest.mark.parametrize(
    ("aliases", "expected"),
    [
        pytest.param({"a": ["joe"]}, ["joe@gonzo.test"], id="one"),
        pytest.param(
            {"a": ["b", "x@far.test"], "b": ["c", "joe"], "c": ["y@far.test"]},
            ["joe@gonzo.test", "x@far.test", "y@far.test"],
            id="nested",
        ),
        pytest.param(
            {"a": ["b", "c"], "b": ["joe"], "c": ["joe", "JOE"]},
            ["joe@gonzo.test"],
            id="named-twice",
        ),
        pytest.param({"a": ["a", "joe"]}, ["joe@gonzo.test"], id="loop"),
        pytest.param({"joe": ["joe", "x@far.test"]}, ["joe@gonzo.test", "x@far.test"],
            id="itself-and-another"),
        pytest.param({"a": ["/dev/null", "joe"]},
            ["/dev/null@gonzo.test", "joe@gonzo.test"], id="nowhere"),
    ],
)  # fmt: skip
async def test_members(aliases: dict[str, list[str]], expected: list[str]) -> None:
    async with bench(Plan(aliases=aliases)) as b:
        await send(b, next(iter(aliases)))
        reports = len(b.told(ReportQueued))
        assert sorted(tried(b)) == sorted(expected + [BETTY] * reports)
        assert reports <= 1
        assert await b.queue() == []
        assert b.is_balanced()


@pytest.mark.parametrize(
    ("targets", "text"),
    [
        pytest.param(["nosuch", "joe"], "nosuch... User unknown", id="unknown"),
        pytest.param(["list", "joe"], "loop broken", id="loop"),
        pytest.param(["|/bin/sh", "joe"], "programs is not supported", id="program"),
        pytest.param(["/etc/passwd", "joe"], "files is not supported", id="file"),
        pytest.param(["a b@c", "joe"], "a b@c... ", id="no-address"),
    ],
)
async def test_targets_that_get_nothing_are_reported(
    targets: list[str], text: str
) -> None:
    async with bench(Plan(aliases={"list": targets})) as b:
        await send(b, "list")
        assert sorted(tried(b)) == [BETTY, "joe@gonzo.test"]
        failed = [
            d.outcome for d in b.told(AttemptDone) if isinstance(d.outcome, Failed)
        ]
        assert [text in outcome.text for outcome in failed] == [True]
        assert await b.queue() == []
        assert b.is_balanced()


async def test_a_user_behind_an_alias_that_was_named_too_gets_a_copy() -> None:
    aliases = {"joe": ["x@far.test"], "pals": ["\\joe"]}
    async with bench(Plan(aliases=aliases)) as b:
        await send(b, "pals", "joe")
        assert sorted(tried(b)) == ["joe@gonzo.test", "x@far.test"]
        assert await b.queue() == []
        assert b.is_balanced()


async def test_a_long_list_comes_in_chunks() -> None:
    async with bench(Plan(aliases={"all": MEMBERS})) as b:
        await send(b, "all")
        assert b.spool.calls.count("expand") == 11
        assert [e.children for e in b.told(RecipientExpanded)] == [CHILDREN_MAX] * 10
        assert sorted(tried(b)) == sorted(MEMBERS)
        assert await b.queue() == []
        assert b.is_balanced()


@pytest.mark.parametrize("fault", [SpoolError("disk"), SpoolFull("full"), OSError("x")])
async def test_a_spool_that_fails_between_chunks_is_gone_on_with(
    fault: Exception,
) -> None:
    async with bench(Plan(aliases={"all": MEMBERS})) as b:
        await b.shard.accept(b.letter(":all@gonzo.test"))
        done = b.shard.expand
        count = 0

        async def expand(*given: object) -> int:
            nonlocal count
            count += 1
            if count == 2:
                raise fault
            return await done(*given)  # type: ignore[arg-type]

        b.spool.expand = expand  # type: ignore[attr-defined]
        await b.rescan()
        assert len(tried(b)) in (0, CHILDREN_MAX)
        assert b.is_balanced()
        for _ in range(4):
            await b.rescan(600)
        assert sorted(tried(b)) == sorted(MEMBERS)
        assert await b.queue() == []
        assert b.is_balanced()


async def test_a_crash_between_chunks_loses_nobody_and_names_nobody_twice(
    tmp_path: Path,
) -> None:
    directory = str(tmp_path)
    plan = Plan(aliases={"all": MEMBERS})
    async with bench(plan, directory=directory) as b:
        await b.shard.accept(b.letter(":all@gonzo.test"))
        done = b.shard.expand

        async def expand(*given: object) -> int:
            await done(*given)  # type: ignore[arg-type]
            raise Fenced("the worker is gone")

        b.spool.expand = expand  # type: ignore[attr-defined]
        await b.rescan()
        await b.dispatcher.drain(1)
        first = tried(b)
        (entry,) = await b.queue()
        assert entry.recipients_count == CHILDREN_MAX + 1 - len(first)
    async with bench(plan, directory=directory) as b:
        for _ in range(3):
            await b.rescan(1)
        assert sorted(first + tried(b)) == sorted(MEMBERS)
        assert await b.queue() == []
        assert b.is_balanced()


async def test_an_owner_becomes_the_sender_of_the_members_copies() -> None:
    aliases = {"team": ["joe", "x@far.test"], "owner-team": ["betty"]}
    async with bench(Plan(aliases=aliases)) as b:
        for agent in b.agents.values():
            agent.gate.clear()
        await b.shard.accept(b.letter(":team@gonzo.test", sender="ann@c.test"))
        b.dispatcher.look_again()
        await b.until(lambda: sum(len(a.attempts) for a in b.agents.values()) == 2)
        (entry,) = await b.queue()
        assert entry.sender == "owner-team@gonzo.test"
        (expanded,) = b.told(RecipientExpanded)
        assert expanded.clone == entry.queue_id
        (queued,) = b.told(MessageQueued)  # the from= line of those to= lines
        assert (queued.queue_id, queued.recipients) == (entry.queue_id, 2)
        assert queued.sender.to_text() == "owner-team@gonzo.test"
        for name in ("mailbox", "smtp"):
            (attempt,) = b.agents[name].attempts
            assert attempt.envelope.sender.to_text() == "owner-team@gonzo.test"
            assert await attempt.message.body.read(0, 99) == b"hello\r\n"
            b.agents[name].gate.set()
        await b.idle()
        assert await b.queue() == []
        assert b.is_balanced()


async def test_a_member_of_a_list_that_fails_is_told_to_the_owner() -> None:
    aliases = {"team": ["nosuch", "joe"], "owner-team": ["betty"]}
    async with bench(Plan(aliases=aliases)) as b:
        await send(b, "team", sender="ann@c.test")
        assert sorted(tried(b)) == [BETTY, "joe@gonzo.test"]
        (report,) = b.told(ReportQueued)
        assert report.recipient.to_text() == "owner-team@gonzo.test"


async def test_a_member_whose_route_defers_waits_alone() -> None:
    aliases = {"list": ["x@closed.test", "joe"], "owner-list": ["betty"]}
    routes = {"closed.test": "error:450 4.3.2 Closed for today"}
    async with bench(Plan(aliases=aliases, routes=routes)) as b:
        await send(b, "list", sender="ann@far.test")
        assert tried(b) == ["joe@gonzo.test"]
        (entry,) = await b.queue()
        assert str(entry.sender) == "owner-list@gonzo.test"
        assert [str(r.address) for r in entry.recipients] == ["x@closed.test"]
        b.routes.aliases.clear()
        await b.rescan(3600)
        await b.rescan(1)
        assert tried(b) == ["joe@gonzo.test", "x@closed.test"]
        assert await b.queue() == []
        assert b.told(ReportQueued) == []
        assert b.is_balanced()


async def test_a_table_that_fails_defers_and_then_goes_on() -> None:
    async with bench(Plan(aliases={"all": ["joe"]})) as b:
        b.aliases.fault = "aliases:1: broken"
        await send(b, "all")
        (entry,) = await b.queue()
        assert entry.recipients[0].status_text == "Deferred: aliases:1: broken"
        assert entry.recipients[0].tries == 1
        [told] = b.told(AttemptDone)
        assert told.outcome == Deferred("4.3.0", "aliases:1: broken")
        assert told.next_us == entry.recipients[0].due_us
        assert b.is_balanced()
        b.aliases.fault = ""
        await b.rescan(3600)
        await b.rescan(1)
        assert tried(b) == ["joe@gonzo.test"]
        assert await b.queue() == []


async def test_a_table_that_never_comes_back_ends_in_a_report() -> None:
    async with bench(Plan(aliases={"all": ["joe"]})) as b:
        await b.shard.accept(b.letter(":all@gonzo.test", sender="ann@far.test"))
        b.aliases.fault = "broken"
        for _ in range(50):
            await b.rescan(4 * 3600)
        kinds = [report.kind for report in b.told(ReportQueued)]
        assert kinds == ["delayed", "failed"]
        assert await b.queue() == []
        assert b.is_balanced()


@pytest.mark.parametrize(
    "fault", [RuntimeError("a bug"), SpoolError("this entry cannot be stored")]
)
async def test_an_expansion_that_never_succeeds_ends_in_a_report(
    fault: Exception,
) -> None:
    async with bench(Plan(aliases={"all": ["joe"]})) as b:
        await b.shard.accept(b.letter(":all@gonzo.test", sender="ann@far.test"))
        for _ in range(50):
            b.spool.faults["expand"] = [fault]
            await b.rescan(4 * 3600)
        kinds = [report.kind for report in b.told(ReportQueued)]
        assert kinds == ["delayed", "failed"]
        texts = {
            told.outcome.text
            for told in b.told(AttemptDone)
            if "all@" in str(told.recipient)
        }
        assert texts == {"internal error"}
        assert await b.queue() == []
        assert b.is_balanced()


async def test_a_listener_hears_until_every_member_was_tried() -> None:
    aliases = {"a": ["joe", "x@far.test"], "b": ["joe", "betty", "nosuch"]}
    script: dict[str, list[Deferred]] = {"x@far.test": [Deferred("4.0.0", "later")]}
    async with bench(Plan(aliases=aliases, script=script)) as b:
        said: list[str] = []
        letter = Letters(None, b.clock).letter(":a@gonzo.test", ":b@gonzo.test")
        finished = await b.acceptor.accept(
            b.acceptor.next_id(b.clock()),
            letter.envelope,
            letter.message,
            [Routed(Recipient(r.address), None) for r in letter.recipients],
            say=said.append,
        )
        assert finished is not None
        await b.rescan(1)
        await b.rescan(1)
        assert finished.done()  # though joe is a member of both
        assert any("aliased to" in line for line in said)
        assert said.count("nosuch... User unknown") == 1


async def test_route_hooks_are_asked_for_each_whom_an_alias_stands_for() -> None:
    asked: list[tuple[str, str]] = []
    is_back: list[bool] = []

    @hook.route
    def choose(session: Any, subject: Any) -> Any:
        asked.append((str(subject.address), str(subject.sender)))
        match subject.address.local:
            case "elsewhere":
                return Route("smtp", "[relay.test]:587")
            case "never":
                return reject("5.7.1", "not there")
            case "away":
                return discard("on leave")
            case "later":
                return None if is_back else defer("4.7.1", "not now")
        return None

    names = ["elsewhere", "never", "away", "later", "usual"]
    aliases = {"all": [f"{name}@far.test" for name in names]}
    async with bench(Plan(aliases=aliases, hooks=[choose])) as b:
        await send(b, "all")
        smtp = b.agents["smtp"]
        assert sorted(smtp.tried) == ["elsewhere@far.test", "usual@far.test"]
        hops = {str(a.envelope.recipients[0].address): a.route for a in smtp.attempts}
        assert hops["elsewhere@far.test"] == Route(
            "smtp", "[relay.test]:587", "hook choose"
        )
        assert hops["usual@far.test"].hop == "far.test"
        assert asked[:5] == [(f"{name}@far.test", BETTY) for name in names]
        assert [str(d.recipient) for d in b.told(RecipientDiscarded)] == [
            "away@far.test"
        ]
        assert [told.kind for told in b.told(ReportQueued)] == ["failed"]
        assert await b.waiting() == ["later@far.test"]
        is_back.append(True)
        await b.rescan(3600)
        await b.rescan(1)
        assert smtp.tried.count("later@far.test") == 1
        assert await b.queue() == []
        assert b.is_balanced()


async def test_route_hooks_see_the_owner_of_a_list_as_its_sender() -> None:
    asked: list[str] = []

    @hook.route
    def choose(session: Any, subject: Any) -> None:
        asked.append(str(subject.sender))

    aliases = {"list": ["x@far.test"], "owner-list": ["joe"]}
    async with bench(Plan(aliases=aliases, hooks=[choose])) as b:
        await send(b, "list")
        assert asked == ["owner-list@gonzo.test"]
        assert b.agents["smtp"].tried == ["x@far.test"]


async def test_who_is_deferred_and_may_be_an_alias_holds_up_all_of_it() -> None:
    """Else the others would get a second copy when he is asked for again."""
    is_back: list[bool] = []

    @hook.route
    def choose(session: Any, subject: Any) -> Any:
        is_local = subject.route.agent == "mailbox"
        return defer("4.7.1", "not now") if is_local and not is_back else None

    aliases = {"joe": ["joe", "x@far.test"]}
    async with bench(Plan(aliases=aliases, hooks=[choose])) as b:
        await send(b, "joe")
        assert tried(b) == []
        assert await b.waiting() == ["joe@gonzo.test"]
        is_back.append(True)
        for _ in range(3):
            await b.rescan(3600)
        assert sorted(tried(b)) == ["joe@gonzo.test", "x@far.test"]
        assert await b.queue() == []
        assert b.is_balanced()


async def test_a_broken_route_hook_lets_those_behind_an_alias_wait() -> None:
    @hook.route
    def broken(session: Any, subject: Any) -> Any:
        raise ValueError("bug")

    aliases = {"all": ["x@far.test"]}
    async with bench(Plan(aliases=aliases, hooks=[broken])) as b:
        await send(b, "all")
        assert b.agents["smtp"].tried == []
        assert await b.waiting() == ["x@far.test"]
        assert b.told(HookFailed)
        assert b.is_balanced()


@pytest.mark.parametrize(
    ("fault", "bug", "told"),
    [
        pytest.param("aliases:1: broken", False, "aliases:1: broken", id="table"),
        pytest.param("", True, "internal error", id="bug"),
    ],
)
async def test_a_listener_hears_that_an_alias_has_to_wait(
    fault: str, bug: bool, told: str
) -> None:
    """Else ``sendmail -v`` would say nothing, or wait for ever."""
    async with bench(Plan(aliases={"a": ["joe"]})) as b:
        b.aliases.fault = fault
        b.spool.faults["expand"] = [RuntimeError("bug")] * bug
        said: list[str] = []
        letter = Letters(None, b.clock).letter(":a@gonzo.test")
        finished = await b.acceptor.accept(
            b.acceptor.next_id(b.clock()),
            letter.envelope,
            letter.message,
            [Routed(Recipient(letter.recipients[0].address), None)],
            say=said.append,
        )
        await b.rescan(1)
        assert finished is not None
        assert finished.done()
        assert said[-1] == f"a@gonzo.test... Deferred: {told}"
