"""Two live workers and an orphaned shard make one queue."""

import errno
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import pytest

from postroom.admin.client import RequestRefused, ask
from postroom.admin.control import (
    Access,
    Caller,
    ControlError,
    ControlServer,
    control_path,
    serve_control,
)
from postroom.admin.listing import MailqForm, mailq_lines
from postroom.admin.merging import merge_entries
from postroom.admin.queue import Hands, queue_handlers
from postroom.admin.requests import GivenUp, HopNow, Letter, Ordered, Piece
from postroom.admin.requests import Letters as Letters_
from postroom.admin.whole import OnSite, WholeQueue
from postroom.mail.envelope import Origin
from postroom.mail.ids import QueueId
from postroom.net.clock import read_now
from postroom.observe.events import AnyEvent, MessageOrdered
from postroom.spool.engine import Shard, open_shard
from postroom.spool.opening import DATABASE
from postroom.spool.orders import Farewell
from postroom.spool.spool import (
    Entry,
    Hold,
    Lease,
    NewMessage,
    Order,
    QueueFilter,
    Release,
    Requeue,
    Retry,
    TakeOut,
)
from postroom.testing.host import login_of
from postroom.testing.spool import QUICK, Letters

ALL = QueueFilter()
USER = login_of(os.geteuid())
LATER_US = 4_000_000_000_000_000


class Site:
    """Shards 0 and 1 with workers, shard 2 without."""

    def __init__(self, home: Path) -> None:
        self.run = str(home / "run")
        (home / "run").mkdir()
        self.settings = msgspec.structs.replace(QUICK, directory=str(home / "spool"))
        self.shards: list[Shard] = []
        self.servers: list[ControlServer] = []
        self.events: list[AnyEvent] = []
        self.site = OnSite(self.settings, self.events.append)
        self.woken: list[Sequence[str] | None] = []
        self.told: list[tuple[str, str, list[str]]] = []
        self.ids: list[str] = []
        self.reports: list[QueueId] = []
        self.there = [0, 1, 2]

    async def fill(self) -> None:
        directory = self.settings.directory
        self.shards = [
            await open_shard(directory, number, self.settings, clock=read_now)
            for number in range(3)
        ]
        letters = [Letters(shard) for shard in self.shards]
        for number in (0, 1, 2, 2, 1, 0):
            maker, sender = letters[number], f"s{len(self.ids)}@gonzo.test"
            waiting = maker.recipient("joe@whizzer.test")
            waiting = msgspec.structs.replace(waiting, due_us=LATER_US)
            letter = maker.letter(waiting, sender=sender)
            await self.shards[number].accept(letter)
            self.ids.append(letter.queue_id)
        self.reports = [maker.letter().queue_id for maker in letters]
        await self.shards.pop().aclose()
        for number, shard in enumerate(self.shards):
            handlers = queue_handlers([shard], self.hands)
            path = control_path(self.run, number)
            self.servers.append(await serve_control(path, handlers))

    @property
    def hands(self) -> Hands:
        return Hands(
            clock=read_now,
            emit=self.events.append,
            wake=self.woken.append,
            farewell=self.farewell,
            hop_now=lambda hop: HopNow(hop, 0, 5),
            shards_there=lambda: self.there,
            own_uid=-1,
        )

    def farewell(self, shard: int, reason: str, by: str) -> Farewell:
        async def report(lease: Lease, waited: Sequence[str]) -> Sequence[NewMessage]:
            self.told.append((lease.queue_id, reason, list(waited)))
            new = Letters(self.shards[shard]).letter("betty", sender="")
            return [msgspec.structs.replace(new, queue_id=self.reports[shard])]

        return report

    def whole(self) -> WholeQueue:
        return WholeQueue(self.run, self.site, read_now)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    made = Site(tmp_path)
    async with AsyncExitStack() as stack:
        await made.fill()
        for shard in made.shards:
            stack.push_async_callback(shard.aclose)
        for server in made.servers:
            stack.push_async_callback(server.aclose)
        yield made


async def listed(whole: WholeQueue, wanted: QueueFilter = ALL) -> list[str]:
    return [entry.queue_id async for entry in whole.entries(wanted)]


async def done(whole: WholeQueue, order: Order, wanted: QueueFilter) -> list[str]:
    pages = whole.carry_out(Ordered(order, wanted, "somebody"))
    return [queue_id async for page in pages for queue_id in page.queue_ids]


async def test_lists_all_in_order_of_arrival(site: Site) -> None:
    async with site.whole() as whole:
        assert await listed(whole) == site.ids
        assert (await whole.counts()).counts["messages"] == 6
        assert whole.problems == []


async def test_finds_one_wherever_it_lies(site: Site) -> None:
    async with site.whole() as whole:
        for queue_id in site.ids:
            assert await listed(whole, QueueFilter(queue_ids=(queue_id,))) == [queue_id]


async def test_removes_live_and_offline_and_says_who(site: Site) -> None:
    async with site.whole() as whole:
        gone = await done(whole, TakeOut(), QueueFilter(senders=("s1@",)))
        gone += await done(whole, TakeOut(), QueueFilter(senders=("s2@",)))
        assert gone == site.ids[1:3]
    async with site.whole() as whole:
        assert await listed(whole) == [site.ids[0], *site.ids[3:]]
    assert [getattr(event, "queue_id", "") for event in site.events] == site.ids[1:3]


async def test_retry_counts_messages_and_wakes_workers(site: Site) -> None:
    async with site.whole() as whole:
        assert sorted(await done(whole, Retry(), ALL)) == site.ids
        assert await done(whole, Retry(), QueueFilter(hops=("whizzer.test",)))
    assert site.woken == [None, None, ["whizzer.test"], ["whizzer.test"]]


async def test_with_the_server_down_all_shards_are_opened(site: Site) -> None:
    for server in site.servers:
        await server.aclose()
    for shard in site.shards:
        await shard.aclose()
    async with site.whole() as whole:
        assert whole.live == 0
        assert await listed(whole) == site.ids
        assert sorted(await done(whole, TakeOut(), ALL)) == site.ids
    async with site.whole() as whole:
        assert await listed(whole) == []


async def test_shard_held_by_a_mute_worker_can_be_seen_but_not_changed(
    site: Site,
) -> None:
    await site.servers[0].aclose()
    async with site.whole() as whole:
        assert await listed(whole) == site.ids
        await done(whole, TakeOut(), ALL)
        assert any("in use by process" in problem for problem in whole.problems)
    async with site.whole() as whole:
        assert await listed(whole) == [site.ids[0], site.ids[5]]


def forbid(*_: object) -> list[int]:
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


@pytest.mark.parametrize(
    ("there", "problems"),
    [
        pytest.param([0, 1], [], id="workers hold all"),
        pytest.param([0, 1, 2], ["shard 2: Permission denied"], id="one is left"),
    ],
)
async def test_operators_need_not_read_the_spool_where_workers_hold_all(
    site: Site, monkeypatch: pytest.MonkeyPatch, there: list[int], problems: list[str]
) -> None:
    site.there = there
    monkeypatch.setattr("postroom.admin.whole.shards_in", forbid)
    monkeypatch.setattr("postroom.spool.offline.view_shards", forbid)
    async with site.whole() as whole:
        expected = [site.ids[number] for number in (0, 1, 4, 5)]
        assert await listed(whole) == expected
        assert whole.problems == problems


async def test_a_spool_that_nobody_can_list_is_a_problem(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    for server in site.servers:
        await server.aclose()
    monkeypatch.setattr("postroom.admin.whole.shards_in", forbid)
    async with site.whole() as whole:
        assert await listed(whole) == []
        directory = site.settings.directory
        assert whole.problems == [f"spool {directory}: Permission denied"]


async def test_one_damaged_shard_does_not_hide_the_others(site: Site) -> None:
    for server in site.servers:
        await server.aclose()
    for shard in site.shards:
        await shard.aclose()
    (Path(site.settings.directory) / "shard-001" / DATABASE).write_bytes(b"x" * 9999)
    async with site.whole() as whole:
        assert await listed(whole) == [site.ids[number] for number in (0, 2, 3, 5)]
        (problem,) = whole.problems
        assert problem.startswith("shard 1: ")


async def test_spool_that_is_not_there_is_an_empty_queue(tmp_path: Path) -> None:
    settings = msgspec.structs.replace(QUICK, directory=str(tmp_path / "none"))
    async with WholeQueue(str(tmp_path), OnSite(settings), read_now) as whole:
        assert await listed(whole) == []


async def test_mailq_of_the_whole(site: Site) -> None:
    async with site.whole() as whole:
        lines = [
            line
            async for line in mailq_lines(
                whole, MailqForm(False, None, "/spool", lambda _: 0)
            )
        ]
    assert lines[0] == "\t\t/spool (6 requests)"
    assert lines[-1] == "\t\tTotal requests: 6"


async def test_users_see_their_own_only(site: Site) -> None:
    letter = Letters(site.shards[0]).letter()
    origin = Origin(protocol="local", login="betty")
    envelope = msgspec.structs.replace(letter.envelope, origin=origin)
    await site.shards[0].accept(msgspec.structs.replace(letter, envelope=envelope))
    async with site.whole() as whole:
        lines = [
            line
            async for line in mailq_lines(
                whole, MailqForm(False, "betty", "/spool", lambda _: 0)
            )
        ]
    assert lines[0] == "\t\t/spool (1 request)"
    handlers = queue_handlers(site.shards, site.hands)
    betty = Caller(1234, "betty", Access.OWN)
    found = [e async for e in handlers["queue.list"](betty, msgspec.Raw(b"{}"))]
    assert [entry.queue_id for entry in found] == [letter.queue_id]  # type: ignore[attr-defined]


async def test_malformed_filter_is_refused(site: Site) -> None:
    with pytest.raises(RequestRefused, match="malformed filter"):
        await ask(control_path(site.run, 0), "queue.list", {"queue_id": 7}, Entry)


async def test_merge_holds_one_of_each_source() -> None:
    read = [0, 0]

    async def source(number: int, arrivals: Sequence[int]) -> AsyncIterator[Entry]:
        for arrival_us in arrivals:
            read[number] += 1
            yield Entry(f"{arrival_us}", number, "", 0, arrival_us, "", "", ())

    merged = merge_entries([source(0, range(0, 100, 2)), source(1, range(1, 100, 2))])
    first = [(await anext(merged)).arrival_us for _ in range(10)]
    assert first == list(range(10))
    assert max(read) <= 7
    assert len([entry async for entry in merged]) == 90


async def test_holding_names_the_operator_and_release_lets_go(site: Site) -> None:
    wanted = QueueFilter(queue_ids=tuple(site.ids[:3]))
    async with site.whole() as whole:
        assert sorted(await done(whole, Hold("odd"), wanted)) == site.ids[:3]
        held = [e async for e in whole.entries(QueueFilter(states=("held",)))]
        assert len(held) == 3
        texts = {one.status_text for e in held for one in e.recipients}
        live = {f"held by {USER}: odd"}  # a stranger's word for who orders is not taken
        assert texts == live | {"held by somebody: odd"}
        assert not [
            e async for e in whole.entries(QueueFilter(states=("quarantined",)))
        ]
        assert len(await done(whole, Release(), ALL)) == 3
        assert len(await done(whole, Requeue(), wanted)) == 3
    told = [(e.act, e.by) for e in site.events if isinstance(e, MessageOrdered)]
    assert told.count(("hold", USER)) == 2
    assert told.count(("hold", "somebody")) == 1


async def test_a_quarantine_keeps_its_reason_as_it_stands(site: Site) -> None:
    wanted = QueueFilter(queue_ids=(site.ids[0],))
    async with site.whole() as whole:
        ordered = Ordered(Hold("virus"), wanted, "root", quarantine=True)
        assert [page.queue_ids async for page in whole.carry_out(ordered)]
        chosen = QueueFilter(states=("quarantined",), errors=("virus",))
        assert await listed(whole, chosen) == [site.ids[0]]


async def test_workers_speak_for_their_callers(site: Site) -> None:
    hands = site.hands._replace(own_uid=os.geteuid())
    handlers = queue_handlers(site.shards, hands)
    ordered = Ordered(Retry(), ALL, "betty")
    root = Caller(os.geteuid(), "server", Access.FULL)
    encoded = msgspec.Raw(msgspec.json.encode(ordered))
    assert [page async for page in handlers["queue.order"](root, encoded)]
    told = [event for event in site.events if isinstance(event, MessageOrdered)]
    assert {event.by for event in told} == {"betty"}


async def test_giving_up_live_and_without_a_worker(site: Site) -> None:
    async with site.whole() as whole:
        given_up = GivenUp(QueueFilter(queue_ids=tuple(site.ids[:2])), "no", "root")
        pages = [page async for page in whole.give_up(given_up)]
        assert sorted(i for page in pages for i in page.queue_ids) == site.ids[:2]
        assert sorted(told[0] for told in site.told) == site.ids[:2]
        assert {told[1] for told in site.told} == {"no"}
        assert whole.problems == []
        alone = GivenUp(QueueFilter(queue_ids=(site.ids[2],)))
        assert not [page async for page in whole.give_up(alone) if page.queue_ids]
        assert "start it first" in whole.problems[0]


async def test_counting_and_shape_of_the_whole(site: Site) -> None:
    async with site.whole() as whole:
        counted = [part async for part in whole.count(ALL)][-1]
        assert (counted.messages, counted.recipients) == (6, 6)
        none = [part async for part in whole.count(QueueFilter(senders=("x@",)))][-1]
        assert none.messages == 0
        shape = await whole.shape()
        assert [(hop.hop, hop.recipients) for hop in shape.hops] == [
            ("whizzer.test", 6)
        ]
        assert await whole.hop_now("x.test") == [HopNow("x.test", 0, 5)] * 2


async def test_letters_of_the_whole(site: Site) -> None:
    async with site.whole() as whole:
        parts = [part async for part in whole.letters(Letters_(ALL))]
        heads = [part for part in parts if isinstance(part, Letter)]
        assert sorted(part.entry.queue_id for part in heads) == site.ids
        assert {part.head for part in heads} == {b"Subject: test\r\n\r\n"}
        pieces = [part.data for part in parts if isinstance(part, Piece)]
        assert pieces == [b"hello\r\n"] * 6
        only = Letters_(QueueFilter(queue_ids=(site.ids[2],)), head_only=True)
        assert len([part async for part in whole.letters(only)]) == 1
        recipients = [r async for r in whole.recipients(site.ids[2], -1)]
        assert [one.address for one in recipients] == ["joe@whizzer.test"]


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("queue.order", {"order": {"type": "explode"}, "wanted": {}}),
        ("queue.order", {"order": {"type": "hold", "text": "a\nb"}, "wanted": {}}),
        ("queue.order", {"order": {"type": "retry"}, "wanted": {"states": ["x"]}}),
        ("queue.order", {"order": {"type": "retry"}}),
        ("queue.bounce", {"wanted": {}, "reason": "x" * 2000}),
        ("queue.recipients", {"queue_id": "x", "after": 0}),
        ("queue.letters", {"wanted": {"nonsense": 1}}),
        ("queue.hop", {"hop": 1}),
    ],
)
async def test_malformed_requests_change_nothing(
    site: Site, method: str, arguments: object
) -> None:
    with pytest.raises(RequestRefused, match=r"malformed|no queue id"):
        await ask(control_path(site.run, 0), method, arguments, msgspec.Raw)
    assert site.events == []


async def test_ordinary_users_order_nothing(site: Site) -> None:
    server = ControlServer(Path(site.run) / "x", {}, "")
    betty = Caller(1234, "betty", Access.OWN)
    for method in queue_handlers(site.shards, site.hands):
        if method != "queue.list":
            with pytest.raises(ControlError, match="may not do this"):
                server._handler(betty, method)
