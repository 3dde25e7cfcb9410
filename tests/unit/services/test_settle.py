"""What becomes of each recipient after an attempt."""

import msgspec
import pytest

from postroom.mail.envelope import Recipient
from postroom.mail.now import DAY_US, HOUR_US, MINUTE_US
from postroom.mail.outcome import Deferred, Delivered, Failed, Outcome
from postroom.observe.events import ReportDropped, ReportQueued
from postroom.schedule.settings import RetrySettings
from postroom.services.ration import Ration
from postroom.services.report import LAST, Reporter
from postroom.services.report_settings import ReportSettings
from postroom.services.settle import Settler
from postroom.spool.spool import Lease, NewMessage, Settle
from postroom.testing.spool import Letters
from postroom.testing.workbench import Bench, bench

OK, LATER, NEVER = (
    Delivered("2.0.0", "ok"),
    Deferred("4.0.0", "x"),
    Failed("5.0.0", "y"),
)


def lease(b: Bench, count: int, age_us: int = 0, **more: object) -> Lease:
    letter = Letters(None, b.clock).letter(sender="ann@far.test")
    recipients = tuple(
        Recipient(msgspec.structs.replace(letter.recipients[0].address, local=f"r{i}"))
        for i in range(count)
    )
    envelope = msgspec.structs.replace(
        letter.envelope, recipients=recipients, arrival_us=b.clock.utc_us - age_us
    )
    made = Lease(
        queue_id=letter.queue_id,
        fence=1,
        route=letter.recipients[0].route,
        lane=0,
        envelope=envelope,
        numbers=tuple(range(10, 10 + count)),
        tries=(0,) * count,
        warned=False,
        message=letter.message,
    )
    return msgspec.structs.replace(made, **more)


async def judge(
    b: Bench, leased: Lease, *outcomes: Outcome, due_us: int | None = None
) -> tuple[list[Settle], list[NewMessage]]:
    retry = RetrySettings(jitter_percent=0)
    settings = ReportSettings()
    reporter = Reporter(b.shop, retry, settings, Ration(settings, b.counters))
    settler = Settler(retry, reporter)
    settled, new = await settler.judge(leased, outcomes, b.clock(), due_us=due_us)
    return list(settled), list(new)


def shape(b: Bench, settled: list[Settle]) -> list[str]:
    """Describe each: gone, or the wait in minutes, with a star if it warned."""
    return [
        "gone"
        if each.due_us is None
        else f"{(each.due_us - b.clock.utc_us) // MINUTE_US}{'*' * each.warned}"
        for each in settled
    ]


@pytest.mark.parametrize(
    ("since_us", "expected"),
    [
        pytest.param(0, ["5"], id="just-released"),
        pytest.param(3 * HOUR_US, ["5"], id="young"),
        pytest.param(5 * HOUR_US, ["5*"], id="late"),
        pytest.param(5 * DAY_US, ["gone"], id="expired"),
    ],
)
async def test_waiting_counts_from_the_release_of_held_mail(
    since_us: int, expected: list[str]
) -> None:
    """RFC 4865: who had it held for a week has not waited for a week."""
    async with bench() as b:
        leased = lease(b, 1, age_us=7 * DAY_US + since_us)
        hold_until_us = b.clock.utc_us - since_us
        envelope = msgspec.structs.replace(leased.envelope, hold_until_us=hold_until_us)
        leased = msgspec.structs.replace(leased, envelope=envelope)
        settled, _ = await judge(b, leased, LATER)
        assert shape(b, settled) == expected


@pytest.mark.parametrize(
    ("outcomes", "age_us", "expected", "reports"),
    [
        ([OK], 0, ["gone"], []),
        ([OK, OK], 9 * DAY_US, ["gone", "gone"], []),
        ([NEVER], 0, ["gone"], ["failed"]),
        ([LATER], 0, ["5"], []),
        ([LATER], 5 * HOUR_US, ["5*"], ["delayed"]),
        ([LATER], 5 * DAY_US, ["gone"], ["failed"]),
        ([LATER], -1 * DAY_US, ["5"], []),  # the clock went back
        ([OK, LATER, NEVER], 0, ["gone", "5", "gone"], ["failed"]),
        (
            [OK, LATER, NEVER],
            5 * HOUR_US,
            ["gone", "5*", "gone"],
            ["failed", "delayed"],
        ),
        ([NEVER, NEVER, LATER], 5 * DAY_US, ["gone"] * 3, ["failed"]),
    ],
)
async def test_judging(
    outcomes: list[Outcome], age_us: int, expected: list[str], reports: list[str]
) -> None:
    async with bench() as b:
        leased = lease(b, len(outcomes), age_us)
        settled, new = await judge(b, leased, *outcomes)
        assert [each.number for each in settled] == list(leased.numbers)
        assert shape(b, settled) == expected
        assert [report.kind for report in b.told(ReportQueued)] == reports
        assert len(new) == len(reports)


async def test_a_given_time_counts_for_what_failed_with_the_hop_alone() -> None:
    async with bench() as b:
        due_us = b.clock.utc_us + 42 * MINUTE_US
        leased = lease(b, 2, tries=(20, 0))
        hop_down = Deferred("4.4.1", "refused", hop_failed=True)
        settled, _ = await judge(b, leased, hop_down, LATER, due_us=due_us)
        assert shape(b, settled) == ["42", "5"]


async def test_who_was_warned_is_not_warned_again() -> None:
    async with bench() as b:
        leased = lease(b, 1, 9 * HOUR_US, warned=True)
        settled, new = await judge(b, leased, LATER)
        assert (shape(b, settled), new) == (["5"], [])


async def test_one_who_wants_no_warning_leaves_it_to_the_others() -> None:
    async with bench() as b:
        leased = lease(b, 1, 9 * HOUR_US)
        recipient = msgspec.structs.replace(
            leased.envelope.recipients[0], notify="NEVER"
        )
        envelope = msgspec.structs.replace(leased.envelope, recipients=(recipient,))
        leased = msgspec.structs.replace(leased, envelope=envelope)
        settled, new = await judge(b, leased, LATER)
        assert (shape(b, settled), new) == (["5"], [])


async def test_a_report_names_all_who_failed_and_returns_the_message() -> None:
    async with bench() as b:
        _, (report,) = await judge(b, lease(b, 2), NEVER, NEVER)
        text = report.message.header + await report.message.body.read(0, 99_999)
        assert report.envelope.sender.is_null
        assert str(report.recipients[0].address) == "ann@far.test"
        for words in (b"r0@whizzer.test", b"r1@whizzer.test", b"Subject: test"):
            assert words in text


async def test_a_double_bounce_is_marked_and_ends_there() -> None:
    async with bench() as b:
        null = Letters(None, b.clock).letter(sender="").envelope.sender
        first = lease(b, 1)
        bounce = msgspec.structs.replace(
            first, envelope=msgspec.structs.replace(first.envelope, sender=null)
        )
        _, (report,) = await judge(b, bounce, NEVER)
        assert str(report.recipients[0].address) == "postmaster@gonzo.test"
        assert report.envelope.origin == LAST
        again = msgspec.structs.replace(
            first,
            envelope=msgspec.structs.replace(
                report.envelope, recipients=first.envelope.recipients
            ),
        )
        _, new = await judge(b, again, NEVER)
        assert new == []
        assert len(b.told(ReportDropped)) == 1
