"""SMTP extensions in a session, from the octets of the client into the queue."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from postroom import accept, discard, hook, refuse_recipient, reject
from postroom.limits.grades import Grade
from postroom.mail.envelope import BodyType, Envelope, Origin
from postroom.mail.headers import edited_header
from postroom.mail.ids import QueueId
from postroom.mail.message import Body, Message
from postroom.mail.now import SECOND_US
from postroom.mail.outcome import Attempt
from postroom.observe.events import MessageQueued, RecipientDiscarded
from postroom.services.face import Face, Kind
from postroom.smtp.settings import ServerSettings
from postroom.spool.spool import SpoolError, SpoolFull
from postroom.testing.session import CLIENT, STRANGER, begin, say, whole
from postroom.testing.workbench import Bench, Plan, bench


def chunk(content: bytes, *, last: bool = False) -> bytes:
    return b"BDAT %d%b\r\n%b" % (len(content), b" LAST" * last, content)


async def kept(b: Bench) -> tuple[Envelope, Message]:
    """Return the one message in the queue."""
    (entry,) = await b.queue()
    queue_id = QueueId(entry.queue_id)
    found = await b.shard.kept(queue_id)
    message = await b.shard.raw(queue_id)
    assert found is not None
    assert message is not None
    return found.envelope, message


async def octets(message: Message) -> bytes:
    body = await message.body.read(0, message.body.size)
    return message.header + b"\r\n" * message.has_separator + body


async def attempted(b: Bench) -> Attempt:
    """Return the first try to deliver."""
    attempts = b.agents["mailbox"].attempts
    await b.until(lambda: bool(attempts))
    return attempts[0]


def held(b: Bench) -> Bench:
    b.agents["mailbox"].gate.clear()
    return b


# Chunks


async def test_a_letter_in_chunks() -> None:
    async with bench() as b:
        held(b)
        codes = await say(
            b,
            begin(),
            chunk(b"Subject: s\r"),
            chunk(b"\n\r\n.\r\nhel") + chunk(b"lo\r\n", last=True) + b"QUIT\r\n",
        )
        taken = ["250 2.0.0"] * 3
        assert codes == ["250 2.1.0", "250 2.1.5", *taken, "221 2.0.0"]
        _, message = await kept(b)
        assert await octets(message) == b"Subject: s\r\n\r\n.\r\nhello\r\n"


async def test_a_large_letter_in_chunks_goes_to_disk() -> None:
    async with bench() as b:
        held(b)
        line = b"x" * 70 + b"\r\n"
        body = line * 5_000
        pieces = [chunk(body[at : at + 9_999]) for at in range(0, len(body), 9_999)]
        await say(b, begin(), chunk(b"A: b\r\n\r\n"), *pieces, b"BDAT 0 LAST\r\n")
        _, message = await kept(b)
        assert await octets(message) == b"A: b\r\n\r\n" + body


@pytest.mark.parametrize("last", ["RSET\n", "EHLO c.test\n", "QUIT\n", ""])
async def test_chunks_without_a_last_leave_nothing(last: str) -> None:
    async with bench() as b:
        await say(b, begin(), chunk(b"x" * 300_000), last)
        assert await b.queue() == []
        assert not b.shard.is_receiving


async def test_a_refused_hello_forgets_no_chunks() -> None:
    @hook.hello
    def no(session: Any, hello: Any) -> Any:
        return reject("5.7.1", "no") if hello.domain == "bad.test" else None

    async with bench(Plan(hooks=[no])) as b:
        held(b)
        codes = await say(
            b,
            begin(),
            chunk(b"one\r\n"),
            "EHLO bad.test\n",
            chunk(b"two\r\n", last=True),
        )
        assert codes[-2:] == ["550 5.7.1", "250 2.0.0"]
        _, message = await kept(b)
        assert await octets(message) == b"one\r\ntwo\r\n"


async def test_chunks_after_reset_are_another_message() -> None:
    async with bench() as b:
        held(b)
        await say(
            b,
            begin(),
            chunk(b"one\r\n"),
            "RSET\n",
            begin(),
            chunk(b"two\r\n", last=True),
        )
        _, message = await kept(b)
        assert await octets(message) == b"two\r\n"


class BrokenWriter:
    """A body writer on a disk that fails."""

    def __init__(self, fault: SpoolError) -> None:
        self._fault = fault

    async def write(self, data: bytes) -> None:
        raise self._fault

    async def finish(self) -> Body:
        raise self._fault

    async def abandon(self) -> None:
        pass


@pytest.mark.parametrize(
    ("fault", "code"), [(SpoolFull("full"), "452 4.3.1"), (SpoolError("broken"), "451")]
)
async def test_a_disk_that_fails_is_told_with_the_chunk(
    fault: SpoolError, code: str
) -> None:
    async with bench() as b:
        vars(b.spool)["body_writer"] = lambda queue_id: BrokenWriter(fault)
        big = b"x" * 70 + b"\r\n"
        codes = await say(
            b,
            begin(),
            chunk(b"A: b\r\n\r\n" + big * 9_000),
            chunk(b"QUIT\r\n"),
            chunk(b"", last=True),
            "NOOP\n",
        )
        assert [c.startswith(code.split()[0]) for c in codes[2:5]] == [True] * 3, codes
        assert codes[-1] == "250 2.0.0"
        assert await b.queue() == []


async def test_a_client_that_vanishes_amid_a_chunk_leaves_nothing() -> None:
    async with bench() as b:
        await say(b, begin(), b"BDAT 1000 LAST\r\nSubject: x\r\n")
        assert await b.queue() == []
        assert not b.shard.is_receiving


async def test_a_binary_letter_is_kept_as_it_is() -> None:
    async with bench() as b:
        held(b)
        body = b"\0\n\r\xff.\r\n.\n\n\r" * 50
        content = b"Content-Transfer-Encoding: binary\r\n\r\n" + body
        await say(b, begin(" BODY=BINARYMIME"), chunk(content, last=True))
        envelope, message = await kept(b)
        assert envelope.body is BodyType.BINARY
        assert await octets(message) == content


async def test_lmtp_answers_the_last_chunk_for_each() -> None:
    async with bench() as b:
        held(b)
        face = Face(b.generation.server, Kind.LMTP)
        b.generation = b.generation._replace(faces={"in": face})
        said = await whole(
            b,
            begin("", "joe", "betty"),
            chunk(b"one\r\n"),
            chunk(b"two\r\n", last=True),
            hello="LHLO c.test\n",
        )
        assert said.codes[5:] == ["250 2.0.0"] * 3


# What is kept in the envelope


async def test_wishes_are_kept_with_the_message() -> None:
    async with bench() as b:
        params = " SMTPUTF8 BODY=8BITMIME BY=3600;NT MT-PRIORITY=-3 SIZE=100"
        held(b)
        mail = f"MAIL FROM:<jürgen@c.test>{params}\nRCPT TO:<joe@gonzo.test>\n"
        await say(b, mail + "DATA\n", "Subject: ä\n\nhello\n.\n")
        envelope, _ = await kept(b)
        assert envelope.smtputf8
        assert envelope.sender.local == "jürgen"
        assert envelope.deliver_by == "3600;NT"
        assert envelope.priority == -3
        received = edited_header((await attempted(b)).message)
        assert b"with UTF8SMTP id" in received
        assert b"PRIORITY -3;" in received


async def test_plain_mail_wishes_nothing() -> None:
    async with bench() as b:
        held(b)
        await say(b, begin(), "DATA\n", "Subject: s\n\nhello\n.\n")
        envelope, _ = await kept(b)
        wishes = (envelope.smtputf8, envelope.requiretls, envelope.priority)
        assert not any((*wishes, envelope.hold_until_us))
        assert b"PRIORITY" not in edited_header((await attempted(b)).message)


async def test_hooks_see_the_parameters() -> None:
    seen: list[Any] = []

    @hook.mail
    def look(session: Any, mail: Any) -> Any:
        seen.append(mail.params)

    async with bench(Plan(hooks=[look])) as b:
        await say(b, begin(" SIZE=10 BODY=8bitmime BY=5;N"))
        assert seen == [(("SIZE", "10"), ("BODY", "8bitmime"), ("BY", "5;N"))]


async def test_held_mail_waits() -> None:
    async with bench() as b:
        now_us = b.clock().utc_us
        await say(
            b,
            begin(" HOLDFOR=3600"),
            "DATA\n",
            "Subject: s\n\nhello\n.\n",
            kind=Kind.SUBMISSION,
        )
        envelope, _ = await kept(b)
        assert envelope.hold_until_us == now_us + 3600 * SECOND_US
        await b.rescan(3599)
        assert len(await b.queue()) == 1
        await b.rescan(2)
        assert await b.queue() == []


@pytest.mark.parametrize(
    ("params", "code"),
    [
        (" HOLDUNTIL={later} BY=60;R", "501 5.5.4"),
        (" HOLDUNTIL={soon} BY=60;R", "250 2.1.0"),
    ],
)
async def test_held_longer_than_it_is_of_use(params: str, code: str) -> None:
    async with bench() as b:
        now = b.clock().utc()
        stamp = "%Y-%m-%dT%H:%M:%SZ"
        later = (now + timedelta(seconds=90)).strftime(stamp)
        soon = (now + timedelta(seconds=30)).strftime(stamp)
        mail = begin(params.format(later=later, soon=soon)).split("\n")[0] + "\n"
        codes = await say(b, mail, kind=Kind.SUBMISSION)
        assert codes == [code]


@pytest.mark.parametrize(
    ("wanted", "origin", "given", "grade"),
    [
        (5, CLIENT, 5, Grade.LETTER),
        (5, STRANGER, 0, Grade.LETTER),
        (9, CLIENT, 6, Grade.LETTER),
        (-3, STRANGER, -3, Grade.BUSY),
        (-9, STRANGER, -5, Grade.LIST),
    ],
)
async def test_priorities(
    wanted: int, origin: Origin, given: int, grade: Grade
) -> None:
    server = ServerSettings(
        mt_priority_networks=("127.0.0.0/8",), mt_priority_min=-5, mt_priority_max=6
    )
    async with bench(Plan(server=server)) as b:
        held(b)
        mail = begin(f" MT-PRIORITY={wanted}")
        codes = await say(b, mail, "DATA\n", "Subject: s\n\nhello\n.\n", origin=origin)
        assert codes[0] == ("250 2.1.0" if given == wanted else "250 2.3.6")
        envelope, _ = await kept(b)
        assert envelope.priority == given
        assert (await attempted(b)).grade == grade
        assert b.told(MessageQueued)[0].priority == given


# An answer for each recipient


@hook.message
def not_for_betty(session: Any, message: Any) -> Any:
    return accept(refuse_recipient("betty@gonzo.test", reject("5.7.1", "not for me")))


@hook.route
def no_route_for_betty(session: Any, subject: Any) -> Any:
    return reject("5.7.2", "no way") if subject.address.local == "betty" else None


MIXED = ["353", "250 2.1.5", "550 5.7.{}", "250 2.1.5", "250 2.0.0"]
ALONE = ["550 5.7.{}"]


@pytest.mark.parametrize(
    ("judge", "detail"), [(not_for_betty, 1), (no_route_for_betty, 2)]
)
@pytest.mark.parametrize(
    ("params", "names", "codes", "waiting"),
    [
        pytest.param(" PRDR", ("joe", "betty", "joe"), MIXED, ["joe"], id="mixed"),
        pytest.param("", ("joe", "betty"), ALONE, [], id="not-asked"),
        pytest.param(" PRDR", ("joe",), ["250 2.0.0"], ["joe"], id="good"),
        pytest.param(" PRDR", ("betty",), ["353", *ALONE, *ALONE], [], id="refused"),
    ],
)
async def test_policy_refuses_one_recipient(
    judge: Any,
    detail: int,
    params: str,
    names: Sequence[str],
    codes: Sequence[str],
    waiting: list[str],
) -> None:
    async with bench(Plan(hooks=[judge])) as b:
        held(b)
        said = await say(
            b, begin(params, *names), "DATA\n", "Subject: s\n\nhello\n.\n", "NOOP\n"
        )
        expected = [code.format(detail) for code in codes]
        assert said[2 + len(names) :] == [*expected, "250 2.0.0"]
        assert await b.waiting() == [f"{name}@gonzo.test" for name in waiting]


async def test_lmtp_refuses_one_recipient() -> None:
    async with bench(Plan(hooks=[not_for_betty])) as b:
        held(b)
        face = Face(b.generation.server, Kind.LMTP)
        b.generation = b.generation._replace(faces={"in": face})
        said = await whole(
            b,
            begin("", "joe", "betty", "joe"),
            "DATA\n",
            "Subject: s\n\nhello\n.\n",
            hello="LHLO c.test\n",
        )
        assert said.codes[7:] == ["250 2.0.0", "550 5.7.1", "250 2.0.0"]
        assert await b.waiting() == ["joe@gonzo.test"]


async def test_a_discarded_recipient_gets_an_answer_too() -> None:
    @hook.rcpt
    def hush(session: Any, rcpt: Any) -> Any:
        return discard("hush") if rcpt.address.local == "postmaster" else None

    async with bench(Plan(hooks=[hush, not_for_betty])) as b:
        held(b)
        names = ("postmaster", "betty", "joe")
        said = await say(b, begin(" PRDR", *names), "DATA\n", "A: b\n\nhello\n.\n")
        assert said[5:] == ["353", "250 2.1.5", "550 5.7.1", "250 2.1.5", "250 2.0.0"]
        assert await b.waiting() == ["joe@gonzo.test"]


@pytest.mark.parametrize("judge", [not_for_betty, no_route_for_betty])
async def test_who_is_discarded_is_not_refused_when_all_others_are(judge: Any) -> None:
    @hook.rcpt
    def hush(session: Any, rcpt: Any) -> Any:
        return discard("hush") if rcpt.address.local == "postmaster" else None

    async with bench(Plan(hooks=[hush, judge])) as b:
        names = ("postmaster", "betty")
        said = await say(b, begin(" PRDR", *names), "DATA\n", "A: b\n\nhello\n.\n")
        refusal = "550 5.7.1" if judge is not_for_betty else "550 5.7.2"
        assert said[4:] == ["353", "250 2.1.5", refusal, "250 2.0.0"]
        assert await b.queue() == []
        (told,) = b.told(RecipientDiscarded)
        assert told.recipient.local == "postmaster"
