"""Content as it arrives: in memory, on disk, changed by policy, or cut off."""

import asyncio
import errno
import os
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from postroom import (
    accept,
    add_header,
    add_recipient,
    discard,
    hook,
    prepend_header,
    reject,
    remove_header,
    remove_recipient,
    replace_body,
    replace_header,
)
from postroom.mail.address import Address
from postroom.mail.envelope import Envelope, Recipient
from postroom.mail.headers import edited_header
from postroom.mail.message import Message
from postroom.mail.outcome import Failed
from postroom.mail.reply import Reply
from postroom.mail.route import Route
from postroom.mail.units import Size
from postroom.mail.verdict import Change
from postroom.observe.events import Lifecycle, MessageDiscarded, MessageQueued
from postroom.policy.chain import Chain
from postroom.policy.hooks import MARK
from postroom.policy.session import Session
from postroom.policy.settings import PolicySettings
from postroom.route.drive import drive
from postroom.services.content import Content
from postroom.services.settings import ReceiveSettings
from postroom.spool.files import SystemFiles
from postroom.spool.settings import SpoolSettings
from postroom.spool.spool import SpoolError, SpoolFull
from postroom.testing.workbench import Bench, Plan, bench

SMALL = SpoolSettings(
    reserve_octets=Size(0), reserve_inodes=0, body_memory_octets_max=Size(200)
)
HEADER = b"Subject: s\r\nTo: joe\r\n"
LARGE = HEADER + b"\r\n" + b"A line of the body\r\n" * 50
JOE = "joe@gonzo.test"
NO = Reply.of(550, "5.6.11", "bare")


async def feed(b: Bench, data: bytes, piece_octets: int = 64) -> Content:
    content = await Content.begin(b.tools, b.generation)
    for start in range(0, len(data), piece_octets):
        waiting = content.add(data[start : start + piece_octets])
        if waiting is not None:
            await waiting
    return content


async def finish(
    b: Bench, content: Content, *recipients: str, refusal: Reply | None = None
) -> Reply:
    named = [Address.from_text(text) for text in recipients or (JOE,)]
    envelope = Envelope(
        sender=Address.from_text("ann@c.test"),
        recipients=tuple(Recipient(address) for address in named),
        arrival_us=b.clock.utc_us,
    )
    generation = b.generation
    routings = [await drive(generation.router.classify(a), generation.facts)
                for a in named]  # fmt: skip
    session = Session(origin=envelope.origin)
    try:
        return await content.finish(session, envelope, routings, refusal=refusal)
    finally:
        await content.abandon()
        assert b.budget.used == 0


async def send(b: Bench, data: bytes, *recipients: str, piece: int = 64) -> Reply:
    return await finish(b, await feed(b, data, piece), *recipients)


def files(b: Bench) -> list[str]:
    return os.listdir(b.shard._opened.bodies.path)


async def delivered(b: Bench) -> Message:
    await b.idle()
    return b.agents["mailbox"].attempts[-1].message


async def text_of(message: Message) -> bytes:
    body = await message.body.read(0, message.body.size)
    return message.header + (b"\r\n" if message.has_separator else b"") + body


@pytest.mark.parametrize("piece", [1, 7, 64, 150, 5000])
@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\r\n", id="separator-only"),
        pytest.param(b"no header\r\n", id="no-header"),
        pytest.param(HEADER, id="header-only"),
        pytest.param(HEADER + b"\r\nbody\r\n", id="small"),
        pytest.param(LARGE, id="large"),
        pytest.param(b"X: y\r\n" * 20 + LARGE, id="header-over-half"),
        pytest.param(b"no header\r\n" * 40, id="large-no-header"),
        pytest.param(b"X: " + b"y" * 196 + b"\r\n\r\n" + b"z\r\n", id="edge"),
    ],
)
async def test_what_comes_is_what_is_kept(data: bytes, piece: int) -> None:
    async with bench(Plan(spool=SMALL)) as b:
        b.agents["mailbox"].gate.clear()
        reply = await send(b, data, piece=piece)
        assert reply.is_positive
        await b.until(lambda: bool(b.agents["mailbox"].attempts))
        message = b.agents["mailbox"].attempts[0].message
        assert await text_of(message) == data
        assert message.size == len(data)
        assert len(files(b)) <= (len(data) > 200)
        assert len(files(b)) >= (len(data) > 400)
        b.agents["mailbox"].gate.set()
        await b.idle()
        assert files(b) == []


@pytest.mark.parametrize("blank", [b" ", b"\t", b" \r\n "])
@pytest.mark.parametrize("lines", [1, 50], ids=["small", "large"])
async def test_a_body_that_begins_with_a_blank_does_not_continue_our_fields(
    blank: bytes, lines: int
) -> None:
    @hook.message
    def mark(session: Any, message: Any) -> Any:
        return accept(add_header("X-Verdict", "bad"))

    async with bench(Plan(spool=SMALL, hooks=[mark])) as b:
        b.agents["mailbox"].gate.clear()
        data = blank + b"but good\r\nSubject: unseen\r\n\r\n" + b"A line\r\n" * lines
        assert (await send(b, data, piece=1)).is_positive
        await b.until(lambda: bool(b.agents["mailbox"].attempts))
        message = b.agents["mailbox"].attempts[0].message
        assert edited_header(message).endswith(b"\r\nX-Verdict: bad\r\n")
        assert message.has_separator
        assert await message.body.read(0, message.body.size) == data


@pytest.mark.parametrize(
    ("header_octets_max", "octets", "code"),
    [
        pytest.param(100, 101, "552", id="in-memory-too-large"),
        pytest.param(100, 96, "250", id="in-memory-fits"),
        pytest.param(200, 1000, "552", id="over-memory"),
        pytest.param(1000, 900, "250", id="larger-than-memory-fits"),
        pytest.param(1000, 5000, "552", id="larger-than-memory-too-large"),
    ],
)
@pytest.mark.parametrize("piece", [1, 50, 10_000])
async def test_the_header_has_a_limit(
    header_octets_max: int, octets: int, code: str, piece: int
) -> None:
    settings = ReceiveSettings(header_octets_max=Size(header_octets_max))
    async with bench(Plan(spool=SMALL, receive=settings)) as b:
        header = b"X: 345678\r\n" * (octets // 11 + 1)
        reply = await send(b, header[: octets // 11 * 11] + b"\r\nbody\r\n" * 9)
        if code == "552":
            header = header[: octets // 11 * 11 + 11]
            reply = await send(b, header + b"\r\nbody\r\n" * 9, piece=piece)
        assert str(reply.code) == code
        if code == "250":
            message = await delivered(b)
            assert message.has_separator
        await b.idle()
        assert files(b) == []


@pytest.mark.parametrize(
    ("verdict", "code"),
    [
        pytest.param(reject("5.7.1", "no"), 550, id="reject"),
        pytest.param(discard("spam"), 250, id="discard"),
        pytest.param(accept(remove_recipient(JOE)), 250, id="no-recipient-left"),
    ],
)
async def test_what_policy_does_not_want_leaves_no_file(
    verdict: Any, code: int
) -> None:
    @hook.message
    def say(session: Any, message: Any) -> Any:
        return verdict

    async with bench(Plan(spool=SMALL, hooks=[say])) as b:
        reply = await send(b, LARGE)
        assert reply.code == code
        assert await b.queue() == []
        assert files(b) == []
        assert len(b.told(MessageDiscarded)) == (code == 250)


async def test_what_the_protocol_refused_leaves_no_file() -> None:
    async with bench(Plan(spool=SMALL)) as b:
        content = await feed(b, LARGE)
        assert await finish(b, content, refusal=NO) == NO
        assert files(b) == []


async def test_what_is_abandoned_leaves_no_file() -> None:
    async with bench(Plan(spool=SMALL)) as b:
        content = await feed(b, LARGE)
        await content.abandon()
        await content.abandon()  # once more does no harm
        assert b.budget.used == 0
        assert files(b) == []


class FailingFiles(SystemFiles):
    """Fails after so many appends, or at the sync."""

    def __init__(self, appends: int, error: int = errno.EIO) -> None:
        self.appends = appends
        self.error = error

    def append(self, descriptor: int, data: bytes) -> None:
        if self.appends == 0:
            raise OSError(self.error, os.strerror(self.error))
        self.appends -= 1
        super().append(descriptor, data)

    def sync(self, descriptor: int) -> None:
        if self.appends == 0:
            raise OSError(self.error, os.strerror(self.error))
        super().sync(descriptor)


@pytest.mark.parametrize("appends", [0, 1, 2])
@pytest.mark.parametrize(
    ("error", "code"), [(errno.EIO, "451 4.3.0"), (errno.ENOSPC, "452 4.3.1")]
)
async def test_a_disk_that_fails_under_a_large_body(
    appends: int, error: int, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("postroom.spool.bodies._PIECE_OCTETS", 300)
    async with bench(Plan(spool=SMALL)) as b:
        opened = b.shard._opened
        failing = FailingFiles(appends, error)
        monkeypatch.setattr(
            b.shard,
            "_opened",
            msgspec.structs.replace(
                opened, bodies=msgspec.structs.replace(opened.bodies, files=failing)
            ),
        )
        reply = await send(b, LARGE)
        assert f"{reply.code} {reply.status}" == code
        assert await b.queue() == []
        assert files(b) == []


@pytest.mark.parametrize("fault", [SpoolError("broken"), SpoolFull("full")])
async def test_a_large_body_that_is_not_accepted_leaves_no_file(
    fault: SpoolError,
) -> None:
    async with bench(Plan(spool=SMALL)) as b:
        b.spool.faults["accept"] = [fault]
        assert not (await send(b, LARGE)).is_positive
        assert files(b) == []
        assert not b.told(MessageQueued)
        assert b.is_balanced()


async def cancel_at(task: "asyncio.Task[Any]", steps: int) -> None:
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("steps", range(1, 60, 3))
async def test_cancelling_at_any_moment_never_takes_the_body_of_a_kept_message(
    steps: int,
) -> None:
    async with bench(Plan(spool=SMALL)) as b:
        b.agents["mailbox"].gate.clear()
        task = asyncio.create_task(send(b, LARGE))
        await cancel_at(task, steps)
        assert b.budget.used == 0
        for entry in await b.queue():
            assert entry.queue_id in files(b)
        b.agents["mailbox"].gate.set()
        for _ in range(9):  # the commit may come after the cancellation
            await b.rescan(1)
        assert await b.queue() == []
        assert files(b) == []
        assert b.is_balanced()


async def test_a_write_that_was_cancelled_cannot_write_into_another_file() -> None:
    async with bench(Plan(spool=SMALL)) as b:
        writer = b.shard.body_writer(b.acceptor.next_id(b.clock()))
        writer._pending.append(b"x")
        await writer.abandon()
        with pytest.raises(SpoolError):  # it comes too late
            await writer.finish()
        assert files(b) == []


CHANGES: list[Any] = [
    pytest.param([add_header("X-A", "1")], HEADER + b"X-A: 1\r\n", id="add"),
    pytest.param([prepend_header("X-A", "1")], b"X-A: 1\r\n" + HEADER, id="prepend"),
    pytest.param([remove_header("SUBJECT")], b"To: joe\r\n", id="remove"),
    pytest.param(
        [replace_header("Subject", "t")], b"Subject: t\r\nTo: joe\r\n", id="replace"
    ),
    pytest.param(
        [remove_header("To"), add_header("To", "all"), add_header("X", "y")],
        b"Subject: s\r\nTo: all\r\nX: y\r\n",
        id="several",
    ),
]


@pytest.mark.parametrize(("changes", "header"), CHANGES)
@pytest.mark.parametrize("data", [HEADER + b"\r\nb\r\n", LARGE], ids=["small", "large"])
async def test_changes_of_the_header(
    changes: Sequence[Change], header: bytes, data: bytes
) -> None:
    @hook.message
    def change(session: Any, message: Any) -> Any:
        return accept(*changes)

    async with bench(Plan(spool=SMALL, hooks=[change])) as b:
        b.agents["mailbox"].gate.clear()
        assert (await send(b, data)).is_positive
        await b.until(lambda: bool(b.agents["mailbox"].attempts))
        message = b.agents["mailbox"].attempts[0].message
        assert message.header == HEADER  # what was received stays
        received, rest = edited_header(message).split(b"\r\n" + header[:4], 1)
        assert received.startswith(b"Received: ")
        assert header[:4] + rest == header
        assert await text_of(message) == data


async def test_a_body_that_is_replaced_leaves_no_file() -> None:
    @hook.message
    def change(session: Any, message: Any) -> Any:
        return accept(replace_body("new\nbody\n"))

    async with bench(Plan(spool=SMALL, hooks=[change])) as b:
        assert (await send(b, LARGE)).is_positive
        assert files(b) == []
        message = await delivered(b)
        assert await text_of(message) == HEADER + b"\r\nnew\r\nbody\r\n"


@pytest.mark.parametrize(
    ("changes", "tried"),
    [
        pytest.param([add_recipient("betty@gonzo.test")],
            {"mailbox": [JOE, "betty@gonzo.test"]}, id="added"),
        pytest.param([add_recipient(JOE)], {"mailbox": [JOE]}, id="there-already"),
        pytest.param([add_recipient("nosuch@gonzo.test")], {"mailbox": [JOE]},
            id="unknown-is-left-out"),
        pytest.param([add_recipient("Joe@GONZO.test.")], {"mailbox": [JOE]},
            id="there-already-in-other-letters"),
        pytest.param([remove_recipient("Joe@GONZO.test"),
            add_recipient("betty@gonzo.test")],
            {"mailbox": ["betty@gonzo.test"]}, id="removed-in-other-letters"),
        pytest.param([add_recipient("betty@gonzo.test"),
            remove_recipient("betty@gonzo.test")], {"mailbox": [JOE]},
            id="added-and-removed"),
        pytest.param([add_recipient("x@far.test")],
            {"mailbox": [JOE], "smtp": ["x@far.test"]}, id="elsewhere"),
        pytest.param([add_recipient("staff@gonzo.test"), remove_recipient(JOE)],
            {"mailbox": ["betty@gonzo.test"]}, id="alias"),
    ],
)  # fmt: skip
async def test_changes_of_recipients(
    changes: Sequence[Change], tried: dict[str, list[str]]
) -> None:
    @hook.message
    def change(session: Any, message: Any) -> Any:
        return accept(*changes)

    plan = Plan(hooks=[change], aliases={"staff": ["betty"]})
    async with bench(plan) as b:
        assert (await send(b, LARGE)).is_positive
        await b.rescan(1)
        for agent, recipients in tried.items():
            assert sorted(b.agents[agent].tried) == sorted(recipients)
        assert await b.queue() == []
        assert b.is_balanced()


@pytest.mark.parametrize("silent", [False, True])
async def test_the_sender_hears_of_an_added_recipient_unless_it_is_silent(
    silent: bool,
) -> None:
    @hook.message
    def change(session: Any, message: Any) -> Any:
        return accept(add_recipient("archive@far.test", silent=silent))

    script = {"archive@far.test": [Failed("5.2.2", "full")]}
    async with bench(Plan(hooks=[change], script=script)) as b:
        assert (await send(b, LARGE)).is_positive
        await b.rescan(1)
        await b.rescan(1)
        assert b.agents["smtp"].tried[0] == "archive@far.test"
        assert ("ann@c.test" in b.agents["smtp"].tried) is not silent
        assert await b.queue() == []


async def test_an_added_recipient_whom_nobody_knows_is_told_of() -> None:
    @hook.message
    def change(session: Any, message: Any) -> Any:
        return accept(add_recipient("nosuch@gonzo.test"))

    async with bench(Plan(hooks=[change])) as b:
        assert (await send(b, LARGE)).is_positive
        (told,) = b.told(Lifecycle)
        assert "policy added <nosuch@gonzo.test>, whom nobody knows" in told.what


async def test_an_added_recipient_that_cannot_be_looked_up_now_is_not_lost() -> None:
    async with bench() as b:

        @hook.message
        def change(session: Any, message: Any) -> Any:
            b.aliases.fault = "broken"
            return accept(add_recipient("betty@gonzo.test"))

        b.generation = _with(b, change)
        assert (await send(b, LARGE)).is_positive
        await b.rescan(1)
        assert b.agents["mailbox"].tried == [JOE]
        assert await b.waiting() == ["betty@gonzo.test"]
        b.aliases.fault = ""
        await b.rescan(3600)
        assert b.agents["mailbox"].tried == [JOE, "betty@gonzo.test"]


def _with(b: Bench, function: Any) -> Any:
    hooks = getattr(function, MARK)
    chain = Chain(hooks, PolicySettings(), b.events.append, b.clock)
    return b.generation._replace(chain=chain)


async def test_a_route_hook_chooses_for_each_recipient() -> None:
    @hook.route
    def choose(session: Any, recipient: Any) -> Any:
        local = recipient.address.local
        if local == "betty":
            return discard("on leave")
        return Route("discard", "discard", "by hook") if local == "joe" else None

    async with bench(Plan(hooks=[choose])) as b:
        await send(b, LARGE, JOE, "betty@gonzo.test", "x@far.test")
        await b.rescan(1)
        assert b.agents["discard"].tried == [JOE]
        assert b.agents["smtp"].tried == ["x@far.test"]
        assert b.agents["mailbox"].tried == []
        assert b.is_balanced()
