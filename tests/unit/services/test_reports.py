"""Who is told of what: NOTIFY, aliases and lists, double bounces, the ration."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from postroom.limits.shared import SharedCounters
from postroom.mail.address import NULL_SENDER, Address
from postroom.mail.envelope import Origin, Recipient
from postroom.mail.message import Message
from postroom.mail.now import HOUR_US, Now
from postroom.mail.outcome import Deferred, Delivered, Failed, Outcome
from postroom.mail.units import Duration
from postroom.observe.events import ReportDropped, ReportQueued
from postroom.schedule.settings import RetrySettings
from postroom.services.ration import Allowed, HeldBack, Ration
from postroom.services.report import LAST, REPORT, Reporter
from postroom.services.report_settings import ReportSettings
from postroom.services.settings import DeliverSettings
from postroom.services.settle import Settler, done
from postroom.spool.spool import Lease, NewMessage, NewRecipient
from postroom.testing.reports import ReadReport, read_report
from postroom.testing.workbench import Bench, Plan, bench

ANN = "ann@far.test"
PEER = "mx.far.test [192.0.2.1]"
HERE = Delivered("2.0.0", "Saved")
AWAY = Delivered("2.0.0", "Ok", PEER, relayed=True)
AWAY_WITH_DSN = Delivered("2.0.0", "Ok", PEER, relayed=True, reports=True)
LATER = Deferred("4.4.1", "Connection refused by far.test.", hop_failed=True)
NEVER = Failed("5.1.1", "no", PEER, 550, "RCPT", ("550 5.1.1 no",))


def lease(
    b: Bench,
    *notifies: str,
    sender: str = ANN,
    age_us: int = 0,
    header: bytes = b"Subject: x\r\n",
    **envelope: Any,
) -> Lease:
    letter = b.letter("joe@gonzo.test", sender=sender)
    recipients = tuple(
        Recipient(Address(f"r{i}", "gonzo.test"), notify)
        for i, notify in enumerate(notifies)
    )
    return Lease(
        queue_id=letter.queue_id,
        fence=1,
        route=letter.recipients[0].route,
        lane=0,
        envelope=msgspec.structs.replace(
            letter.envelope,
            recipients=recipients,
            arrival_us=b.clock.utc_us - age_us,
            **envelope,
        ),
        numbers=tuple(range(len(notifies))),
        tries=(0,) * len(notifies),
        warned=False,
        message=Message(header, letter.message.body),
    )


async def judge(
    b: Bench, leased: Lease, *outcomes: Outcome, **settings: Any
) -> list[NewMessage]:
    given = ReportSettings(**settings)
    reporter = Reporter(b.shop, RetrySettings(), given, Ration(given, b.counters))
    settler = Settler(RetrySettings(), reporter, warn_automatic=given.warn_automatic)
    _, new = await settler.judge(leased, outcomes, b.clock())
    return list(new)


async def read(new: NewMessage) -> ReadReport:
    body = new.message.body
    text = await body.read(0, body.size)
    return read_report(new.message.header + b"\r\n" + text)


# -- NOTIFY (RFC 3461 §4.1, §5.2) -----------------------------------------------


@pytest.mark.parametrize(
    ("notify", "told"),
    [
        ("", {NEVER: "failed", LATER: "delayed"}),
        ("NEVER", {}),
        ("never", {}),
        ("FAILURE", {NEVER: "failed"}),
        ("DELAY", {LATER: "delayed"}),
        ("SUCCESS", {HERE: "delivered", AWAY: "relayed"}),
        ("success,failure", {HERE: "delivered", AWAY: "relayed", NEVER: "failed"}),
        ("FAILURE,,DELAY", {NEVER: "failed", LATER: "delayed"}),
    ],
)
@pytest.mark.parametrize("outcome", [HERE, AWAY, AWAY_WITH_DSN, LATER, NEVER])
async def test_notify(notify: str, told: dict[Outcome, str], outcome: Outcome) -> None:
    async with bench() as b:
        leased = lease(b, notify, age_us=5 * HOUR_US)
        new = await judge(b, leased, outcome)
        expected = [told[outcome]] if outcome in told else []
        assert [event.kind for event in b.told(ReportQueued)] == expected
        reports = [await read(each) for each in new]
        assert [r.recipients[0]["Action"] for r in reports] == expected
        assert all(each.envelope.sender.is_null for each in new)


async def test_one_report_of_each_kind() -> None:
    async with bench() as b:
        every = "SUCCESS,FAILURE,DELAY"
        leased = lease(b, *[every] * 8, "NEVER", age_us=5 * HOUR_US)
        some: list[Outcome] = [HERE, AWAY, LATER, NEVER]
        new = await judge(b, leased, *some, *some, NEVER)
        found = [(await read(each)).actions for each in new]
        assert found == [
            {"r3@gonzo.test": "failed", "r7@gonzo.test": "failed"},
            {"r2@gonzo.test": "delayed", "r6@gonzo.test": "delayed"},
            {"r0@gonzo.test": "delivered", "r4@gonzo.test": "delivered"},
            {"r1@gonzo.test": "relayed", "r5@gonzo.test": "relayed"},
        ]


async def test_nothing_is_looked_at_where_nobody_asked() -> None:
    async with bench() as b:
        assert done(lease(b, "", ""), [HERE, AWAY])
        assert not done(lease(b, "", "SUCCESS"), [HERE, AWAY])
        assert not done(lease(b, "", ""), [HERE, LATER])


@pytest.mark.parametrize("notify", ["", "SUCCESS,FAILURE,DELAY"])
@pytest.mark.parametrize("outcome", [HERE, AWAY, LATER])
async def test_the_null_sender_gets_nothing(notify: str, outcome: Outcome) -> None:
    async with bench() as b:
        leased = lease(b, notify, sender="", age_us=5 * HOUR_US)
        assert await judge(b, leased, outcome) == []
        assert b.told(ReportDropped) == []


# -- warnings of automatic mail (RFC 3834) ---------------------------------------


@pytest.mark.parametrize(
    ("header", "notify", "settings", "warned"),
    [
        (b"Subject: x\r\n", "", {}, True),
        (b"Precedence: bulk\r\n", "", {}, False),
        (b"List-Id: <x.y>\r\n", "", {}, False),
        (b"Auto-Submitted: auto-generated\r\n", "", {}, False),
        (b"Auto-Submitted: no\r\n", "", {}, True),
        (b"Precedence: bulk\r\n", "DELAY", {}, True),
        (b"Precedence: bulk\r\n", "FAILURE", {}, False),
        (b"Precedence: bulk\r\n", "", {"warn_automatic": True}, True),
        (b"Precedence: bulk\r\n", "NEVER", {"warn_automatic": True}, False),
    ],
)
async def test_programs_are_not_warned_unasked(
    header: bytes, notify: str, settings: dict[str, Any], warned: bool
) -> None:
    async with bench() as b:
        leased = lease(b, notify, age_us=5 * HOUR_US, header=header)
        assert len(await judge(b, leased, LATER, **settings)) == warned
        failed = await judge(b, leased, NEVER, **settings)
        assert bool(failed) is (notify in ("", "FAILURE"))


@pytest.mark.parametrize(
    ("header", "ret", "whole"),
    [
        (b"Subject: x\r\n", "", True),
        (b"Subject: x\r\n", "HDRS", False),
        (b"Precedence: bulk\r\n", "", False),
        (b"Precedence: bulk\r\n", "FULL", True),
    ],
)
async def test_what_is_returned(header: bytes, ret: str, whole: bool) -> None:
    async with bench() as b:
        (new,) = await judge(b, lease(b, "", header=header, ret=ret), NEVER)
        report = await read(new)
        assert (report.returned_type == "message/rfc822") is whole
        assert report.returned.startswith(header)


# -- double bounces ---------------------------------------------------------------

FOREIGN = Origin("ESMTP", "192.0.2.9")


@pytest.mark.parametrize(
    ("origin", "settings", "to"),
    [
        (FOREIGN, {}, "postmaster@gonzo.test"),
        (REPORT, {}, "postmaster@gonzo.test"),
        (LAST, {}, None),
        (FOREIGN, {"double_bounces": ("reports",)}, None),
        (REPORT, {"double_bounces": ("reports",)}, "postmaster@gonzo.test"),
        (REPORT, {"double_bounces": ("others",)}, None),
        (FOREIGN, {"double_bounces": ()}, None),
        (FOREIGN, {"double_bounce_to": ""}, None),
        (FOREIGN, {"double_bounce_to": "joe@far.test"}, "joe@far.test"),
    ],
)
async def test_double_bounces(
    origin: Origin, settings: dict[str, Any], to: str | None
) -> None:
    async with bench() as b:
        leased = lease(b, "", sender="", origin=origin)
        new = await judge(b, leased, NEVER, **settings)
        assert [str(each.recipients[0].address) for each in new] == ([to] if to else [])
        if to is None:
            (dropped,) = b.told(ReportDropped)
            assert dropped.reason == "failed: there is no sender to tell"
        else:
            assert new[0].envelope.origin == LAST
            words = (await read(new[0])).words
            assert "has no sender who could be told" in " ".join(words.split())


async def test_a_double_bounce_that_went_round_ends_here() -> None:
    """Two postmasters whose aliases lead to each other must not keep us busy."""
    async with bench() as b:
        (bounce,) = await judge(b, lease(b, "", sender="", origin=REPORT), NEVER)
        header = b"Received: from far.test\r\n" + bounce.message.header
        back = lease(b, "", sender="", origin=FOREIGN, header=header)
        assert await judge(b, back, NEVER) == []
        assert len(b.told(ReportDropped)) == 1


async def test_the_mark_of_a_double_bounce_silences_no_sender() -> None:
    async with bench() as b:
        header = b"X-Postroom-Report: about a report\r\n"
        assert await judge(b, lease(b, "", header=header), NEVER)
        (first,) = await judge(b, lease(b, ""), NEVER)
        assert b"X-Postroom-Report" not in first.message.header


# -- the ration --------------------------------------------------------------------

NOW = Now(1_795_361_711_000_000, 5_000_000_000)


def later(seconds: float) -> Now:
    us = int(seconds * 1_000_000)
    return Now(NOW.utc_us + us, NOW.mono_us + us)


def asked(
    ration: Ration, times: int, now: Now = NOW, to: str = ANN, *, is_ours: bool = False
) -> str:
    """Ask for reports: ``.`` may go, ``+`` may go and says something, ``-`` may not."""
    answers = [
        ration.ask(Address.from_text(to), now, is_ours=is_ours) for _ in range(times)
    ]
    return "".join(
        "-" if isinstance(a, HeldBack) else "+" if a.note else "." for a in answers
    )


def test_over_the_rate_one_says_so_and_the_rest_is_held_back() -> None:
    settings = ReportSettings(sender_rate="3/1h", domain_rate="")
    ration = Ration(settings, SharedCounters.private())
    assert asked(ration, 7) == "...+---"
    assert asked(ration, 3, to="bob@far.test") == "..."
    held = ration.ask(Address.from_text(ANN), NOW, is_ours=False)
    assert isinstance(held, HeldBack)
    assert held.reason == f"over 3/1h to {ANN}"
    allowed = ration.ask(Address.from_text(ANN), later(1_300), is_ours=False)
    assert isinstance(allowed, Allowed)
    assert "4 reports were held back" in allowed.note
    assert asked(ration, 2, later(1_300)) == "--"  # the word was given this hour


@pytest.mark.parametrize("name", ["ann@far.test", "ANN@Far.TEST"])
def test_case_is_no_way_round(name: str) -> None:
    settings = ReportSettings(sender_rate="2/1h", domain_rate="", over_rate="silent")
    ration = Ration(settings, SharedCounters.private())
    assert asked(ration, 2) == ".."
    assert asked(ration, 1, to=name) == "-"


def test_silence_says_nothing() -> None:
    settings = ReportSettings(sender_rate="2/1h", domain_rate="", over_rate="silent")
    ration = Ration(settings, SharedCounters.private())
    assert asked(ration, 4) == "..--"
    assert asked(ration, 1, later(3_600)) == "."


def test_a_domain_has_a_rate_of_its_own_unless_it_is_ours() -> None:
    settings = ReportSettings(sender_rate="", domain_rate="2/1h", over_rate="silent")
    ration = Ration(settings, SharedCounters.private())
    found = [asked(ration, 1, to=f"a{i}@far.test") for i in range(4)]
    assert found == [".", ".", "-", "-"]
    assert asked(ration, 5, to="joe@gonzo.test", is_ours=True) == "....."


def test_no_rate_is_no_limit() -> None:
    settings = ReportSettings(sender_rate="", domain_rate="")
    assert asked(Ration(settings, SharedCounters.private()), 500) == "." * 500


@pytest.mark.parametrize(
    "wrong",
    [
        {"sender_rate": "many"},
        {"domain_rate": "0/1h"},
        {"recipients_max": 0},
    ],
)
def test_settings_that_make_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"rate|at least"):
        ReportSettings(**wrong)


async def test_what_is_held_back_is_counted_and_the_mail_is_settled() -> None:
    reports = ReportSettings(sender_rate="2/1h", gather=Duration(0), over_rate="silent")
    plan = Plan(
        script={"x@far.test": [NEVER]}, deliver=DeliverSettings(reports=reports)
    )
    async with bench(plan) as b:
        for _ in range(5):
            await b.shard.accept(b.letter("x@far.test", sender="betty@gonzo.test"))
        for _ in range(3):
            await b.rescan(1)
        assert b.agents["mailbox"].tried == ["betty@gonzo.test"] * 2
        dropped = [event.reason for event in b.told(ReportDropped)]
        assert dropped == ["failed: over 2/1h to betty@gonzo.test"] * 3
        assert await b.queue() == []
        assert b.is_balanced()


# -- several failures, one report -----------------------------------------------------


async def test_failures_of_one_message_are_told_together() -> None:
    reports = ReportSettings(gather=Duration.from_text("1h"))
    script: dict[str, Sequence[Outcome]] = {
        f"x@{name}.test": [NEVER] for name in ("a", "b", "c")
    }
    plan = Plan(script=script, deliver=DeliverSettings(reports=reports))
    async with bench(plan) as b:
        targets = ["x@a.test", "x@b.test", "x@c.test", "y@d.test"]
        await b.shard.accept(b.letter(*targets))
        b.dispatcher.look_again()
        gatherer = b.dispatcher._gatherer
        await b.until(lambda: sum(map(len, gatherer._kept.values())) == 3)
        gatherer.hurry()  # the hour is over
        await b.idle()
        (event,) = b.told(ReportQueued)
        await b.rescan(1)
        (attempt,) = b.agents["mailbox"].attempts
        text = await attempt.message.body.read(0, 99_999)
        report = read_report(attempt.message.header + b"\r\n" + text)
        assert sorted(report.actions) == targets[:3]
        assert event.about in report.message["X-Postroom-Queue-ID"]
        assert await b.queue() == []
        assert b.is_balanced()


async def test_a_report_that_was_gathered_goes_at_once() -> None:
    reports = ReportSettings(gather=Duration.from_text("10ms"))
    plan = Plan(script={"x@a.test": [NEVER]}, deliver=DeliverSettings(reports=reports))
    async with bench(plan) as b:
        await b.shard.accept(b.letter("x@a.test"))
        b.dispatcher.look_again()
        # No search of the queue comes in between: it is told of the report.
        await b.until(lambda: len(b.agents["mailbox"].attempts) == 1)
        await b.idle()
        assert b.spool.calls.count("due_hops") <= 2
        assert await b.queue() == []


async def test_the_end_does_not_wait_for_more_failures() -> None:
    reports = ReportSettings(gather=Duration.from_text("1h"))
    plan = Plan(script={"x@a.test": [NEVER]}, deliver=DeliverSettings(reports=reports))
    async with bench(plan) as b:
        await b.shard.accept(b.letter("x@a.test"))
        b.dispatcher.look_again()
        await b.until(lambda: len(b.agents["smtp"].attempts) == 1)
        assert b.told(ReportQueued) == []
        await b.dispatcher.drain(5)
        assert len(b.told(ReportQueued)) == 1
        (entry,) = await b.queue()
        assert entry.sender == ""


async def test_what_was_delivered_is_not_kept_back() -> None:
    reports = ReportSettings(gather=Duration.from_text("1h"))
    plan = Plan(script={"x@a.test": [NEVER]}, deliver=DeliverSettings(reports=reports))
    async with bench(plan) as b:
        await b.shard.accept(b.letter("x@a.test", "y@a.test"))
        await b.rescan()
        assert len(b.told(ReportQueued)) == 1


# -- aliases and lists (RFC 3461 §5.2.7) -----------------------------------------------


async def expanded(
    b: Bench, alias: str, notify: str, *, orcpt: str = "", sender: str = ANN
) -> tuple[dict[str, tuple[str, str]], dict[str, str]]:
    """Send to an alias; returns wishes by member, and reported actions by address."""
    recipient = NewRecipient(
        Address(alias, "gonzo.test"), None, due_us=b.clock.utc_us, notify=notify,
        orcpt=orcpt,
    )  # fmt: skip
    letter = b.letter(recipient, sender=sender)
    envelope = msgspec.structs.replace(letter.envelope, ret="FULL", envid="x1")
    await b.shard.accept(msgspec.structs.replace(letter, envelope=envelope))
    for _ in range(3):
        await b.rescan(1)
    members: dict[str, tuple[str, str]] = {}
    actions: dict[str, str] = {}
    for agent in b.agents.values():
        for attempt in agent.attempts:
            if not attempt.envelope.sender.is_null:
                for one in attempt.envelope.recipients:
                    members[str(one.address)] = (one.notify, one.orcpt)
                continue
            text = await attempt.message.body.read(0, 99_999)
            report = read_report(attempt.message.header + b"\r\n" + text)
            actions |= report.actions
            to = attempt.envelope.recipients[0].address
            assert ("Original-Envelope-Id" in report.message) is (str(to) == sender)
    return members, actions


ALL = "SUCCESS,FAILURE"
TEAM = "rfc822;team@gonzo.test"


async def test_an_alias_for_one_passes_all_on() -> None:
    async with bench(Plan(aliases={"team": ["joe"]})) as b:
        members, actions = await expanded(b, "team", ALL)
        assert members == {"joe@gonzo.test": (ALL, " team@gonzo.test")}
        assert actions == {"team@gonzo.test": "delivered"}  # by joe's mailbox


async def test_an_alias_for_several_tells_of_itself() -> None:
    async with bench(Plan(aliases={"team": ["joe", "betty", "x@b.test"]})) as b:
        members, actions = await expanded(b, "team", ALL, orcpt=TEAM)
        wish = ("FAILURE", f"{TEAM} team@gonzo.test")
        assert members == dict.fromkeys(
            ("joe@gonzo.test", "betty@gonzo.test", "x@b.test"), wish
        )
        assert actions == {"team@gonzo.test": "expanded"}


@pytest.mark.parametrize("notify", ["", "FAILURE", "NEVER", "DELAY"])
async def test_success_that_nobody_asked_for_is_not_told(notify: str) -> None:
    aliases = {"team": ["joe", "betty"], "list": ["joe"], "owner-list": ["betty"]}
    async with bench(Plan(aliases=aliases)) as b:
        assert (await expanded(b, "team", notify))[1] == {}
        assert (await expanded(b, "list", notify))[1] == {}


@pytest.mark.parametrize("members", [["joe"], ["joe", "betty"]])
async def test_a_list_is_a_delivery_and_passes_nothing_on(members: list[str]) -> None:
    aliases = {"team": members, "owner-team": ["betty"]}
    async with bench(Plan(aliases=aliases)) as b:
        found, actions = await expanded(b, "team", ALL, orcpt=TEAM)
        assert set(found.values()) == {("", "")}
        assert actions == {"team@gonzo.test": "delivered"}
        for attempt in b.agents["mailbox"].attempts:
            if not attempt.envelope.sender.is_null:
                assert attempt.envelope.ret == attempt.envelope.envid == ""


async def test_an_alias_that_leads_to_a_list_alone_is_that_list() -> None:
    aliases = {"a": ["team"], "team": ["joe"], "owner-team": ["betty"]}
    async with bench(Plan(aliases=aliases)) as b:
        assert (await expanded(b, "a", ALL))[1] == {"a@gonzo.test": "delivered"}


async def test_an_alias_that_leads_nowhere_is_a_failure_only() -> None:
    async with bench(Plan(aliases={"team": ["nosuch"]})) as b:
        members, actions = await expanded(b, "team", ALL)
        assert members == {}
        assert actions == {"team@gonzo.test": "failed"}


async def test_the_owner_hears_of_failures_that_the_sender_did_not_want() -> None:
    aliases = {"team": ["nosuch", "joe"], "owner-team": ["betty"]}
    async with bench(Plan(aliases=aliases)) as b:
        await expanded(b, "team", "NEVER")
        (event,) = b.told(ReportQueued)
        assert str(event.recipient) == "owner-team@gonzo.test"


async def test_a_list_that_is_its_own_owner_comes_to_rest() -> None:
    aliases = {"team": ["nosuch", "joe"], "owner-team": ["team"]}
    async with bench(Plan(aliases=aliases)) as b:
        await b.shard.accept(b.letter(":team@gonzo.test", sender=ANN))
        for _ in range(12):
            await b.rescan(1)
        assert len(b.told(ReportQueued)) <= 3
        assert await b.queue() == []
        assert b.is_balanced()


@pytest.mark.parametrize(
    ("header", "loops"),
    [
        (b"Delivered-To: team@gonzo.test\r\n", True),
        (b"X: y\r\nDelivered-To: TEAM@gonzo.test\r\n", True),
        (b"Delivered-To: other@gonzo.test\r\n", False),
    ],
)
async def test_an_alias_does_not_take_its_own_mail_back(
    header: bytes, loops: bool
) -> None:
    async with bench(Plan(aliases={"team": ["joe", "betty"]})) as b:
        letter = b.letter(":team@gonzo.test", sender=ANN)
        message = Message(header, letter.message.body)
        await b.shard.accept(msgspec.structs.replace(letter, message=message))
        for _ in range(3):
            await b.rescan(1)
        assert len(b.told(ReportQueued)) == loops
        assert ("joe@gonzo.test" in b.agents["mailbox"].tried) is not loops
        if loops:
            attempt = b.agents["smtp"].attempts[0]
            text = await attempt.message.body.read(0, 99_999)
            report = read_report(attempt.message.header + b"\r\n" + text)
            assert report.recipients[0]["Status"] == "5.4.6"
            assert "goes round in circles" in report.words
        assert await b.queue() == []
        assert b.is_balanced()


async def test_null_senders_stay_null_behind_a_list() -> None:
    aliases = {"team": ["joe"], "owner-team": ["betty"]}
    async with bench(Plan(aliases=aliases)) as b:
        await b.shard.accept(b.letter(":team@gonzo.test", sender=""))
        for _ in range(3):
            await b.rescan(1)
        (attempt,) = b.agents["mailbox"].attempts
        assert attempt.envelope.sender == NULL_SENDER


# -- BY (RFC 2852) ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("notify", "told"),
    [("", True), ("NEVER", False), ("SUCCESS", True), ("FAILURE", True)],
)
async def test_relaying_that_the_sender_must_hear_of(notify: str, told: bool) -> None:
    """RFC 2852 §4.1.4: where the next host knows no BY, and where it is traced."""
    async with bench() as b:
        outcome = msgspec.structs.replace(AWAY_WITH_DSN, tells=True)
        new = await judge(b, lease(b, notify, deliver_by="900;N"), outcome)
        assert [(await read(each)).actions for each in new] == (
            [{"r0@gonzo.test": "relayed"}] if told else []
        )


async def test_the_sender_hears_once_that_it_is_late() -> None:
    async with bench() as b:
        late = lease(b, "", "NEVER", deliver_by="60;N", age_us=60_000_000)
        (new,) = await judge(b, late, LATER, LATER)
        report = await read(new)
        assert report.actions == {"r0@gonzo.test": "delayed"}
        assert report.recipients[0]["Status"] == "4.4.7"
        assert "Deliver-By-Date" in report.message
        assert not await judge(b, msgspec.structs.replace(late, warned=True), LATER)
        early = lease(b, "", deliver_by="60;N", age_us=59_000_000)
        assert not await judge(b, early, LATER)


@pytest.mark.parametrize("by", ["60;R", "60;N"])
async def test_it_is_looked_at_again_when_the_time_is_over(by: str) -> None:
    async with bench() as b:
        some = lease(b, "", deliver_by=by, age_us=50_000_000)
        given = ReportSettings()
        reporter = Reporter(b.shop, RetrySettings(), given, Ration(given, b.counters))
        settler = Settler(RetrySettings(), reporter)
        settled, _ = await settler.judge(some, [LATER], b.clock())
        assert settled[0].due_us == b.clock.utc_us + 10_000_000
