"""Whatever agents, spool and clock do: every window, lease and note is given back.

And every recipient that was accepted ends delivered or told of, or is in the queue.
"""

import asyncio
from collections.abc import Sequence

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from postroom.mail.address import Address
from postroom.mail.envelope import Envelope, Recipient
from postroom.mail.message import MemoryBody, Message
from postroom.mail.outcome import Deferred, Delivered, Failed, Outcome
from postroom.mail.route import Route
from postroom.observe.events import AttemptDone, ReportDropped, ReportQueued
from postroom.services.accept import Routed
from postroom.spool.spool import SpoolError, SpoolFull
from postroom.testing.workbench import Bench, Plan, bench

OUTCOMES: list[Outcome | Exception] = [
    Delivered("2.0.0", "ok"),
    Delivered("2.0.0", "ok", relayed=True),
    Deferred("4.2.0", "later"),
    Deferred("4.4.1", "refused", hop_failed=True),
    Failed("5.1.1", "never"),
    ValueError("a bug"),
]
FAULTS: list[Exception] = [SpoolError("disk"), SpoolFull("full"), RuntimeError("bug")]
NAMES = [f"{local}@{hop}.test" for hop in "abc" for local in ("u", "v", "w")]
TARGETS = [*NAMES, "nosuch", "inner"]

scripts = st.dictionaries(
    st.sampled_from(NAMES), st.lists(st.sampled_from(OUTCOMES), min_size=1, max_size=3)
)
letters = st.lists(
    st.tuples(
        st.sampled_from(["ann@x.test", "", "bob@y.test"]),
        st.lists(
            st.sampled_from([*NAMES, "all@gonzo.test"]),
            min_size=1,
            max_size=5,
            unique=True,
        ),
        st.booleans(),
    ),
    min_size=1,
    max_size=6,
)
faults = st.dictionaries(
    st.sampled_from(["accept", "claim", "expand", "due_hops"]),
    st.lists(st.sampled_from(FAULTS), max_size=3),
)
jumps = st.lists(
    st.sampled_from([0, 1, 70, 400, 3_600, 30_000, 500_000, -5, -4_000]), max_size=8
)
lists = st.lists(st.sampled_from(TARGETS), max_size=6)


async def accept(
    b: Bench, sender: str, recipients: Sequence[str], held: bool
) -> list[tuple[str, str]]:
    """Queue a letter as a session would; return what was promised."""
    routed = []
    for text in recipients:
        address = Address.from_text(text)
        alias = address.domain == "gonzo.test"
        route = None if alias else Route("smtp", address.domain)
        routed.append(Routed(Recipient(address), route))
    queue_id = b.acceptor.next_id(b.clock())
    envelope = Envelope(sender=Address.from_text(sender), arrival_us=b.clock.utc_us)
    message = Message(b"Subject: s\r\n", MemoryBody(b"b\r\n"))
    try:
        await b.acceptor.accept(
            queue_id, envelope, message, routed, held="held" if held else ""
        )
    except (SpoolError, RuntimeError):
        return []
    return [(queue_id, text) for text in recipients]


async def unaccounted(b: Bench, promised: list[tuple[str, str]]) -> list[str]:
    """Return the recipients that are nowhere."""
    ended = {
        (done.queue_id, done.recipient.to_text())
        for done in b.told(AttemptDone)
        if not done.next_us
    }
    queued = {
        (entry.queue_id, recipient.address)
        for entry in await b.queue()
        for recipient in entry.recipients
    }
    lost = []
    for queue_id, text in promised:
        if text.endswith("@gonzo.test"):
            continue  # an alias; its members are seen to below
        if (queue_id, text) not in ended | queued:
            lost.append(f"{queue_id} {text}")
    return lost


def untold(b: Bench) -> list[str]:
    """Return failures of which nobody was told and no drop was noted."""
    told = {report.about for report in b.told(ReportQueued)}
    told |= {drop.about for drop in b.told(ReportDropped)}
    failed = {
        done.queue_id
        for done in b.told(AttemptDone)
        if not done.next_us and not isinstance(done.outcome, Delivered)
    }
    return sorted(failed - told)


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=True,
)
@given(scripts, letters, faults, jumps, lists)
def test_everything_is_given_back_and_nobody_lost(
    script: dict[str, list[Outcome | Exception]],
    given_letters: list[tuple[str, list[str], bool]],
    given_faults: dict[str, list[Exception]],
    given_jumps: list[float],
    members: list[str],
) -> None:
    async def run() -> None:
        plan = Plan(
            script=script, aliases={"all": members, "inner": ["u@a.test", "v@c.test"]}
        )
        async with bench(plan) as b:
            b.spool.faults = {name: list(all_) for name, all_ in given_faults.items()}
            promised = []
            for sender, recipients, held in given_letters:
                promised += await accept(b, sender, recipients, held)
            await b.idle()
            assert b.is_balanced()
            for seconds in given_jumps:
                await b.rescan(seconds)
                assert b.is_balanced()
                assert await unaccounted(b, promised) == []
            assert untold(b) == []
            b.spool.faults.clear()
            for _ in range(26):  # in the end everything ends, but what is held
                await b.rescan(12 * 3_600)
            assert b.is_balanced()
            left = [r for e in await b.queue() for r in e.recipients]
            assert {r.state for r in left} <= {"held"}
            assert untold(b) == []

    asyncio.run(run())
