"""How fast and how long a client may talk: pauses, delays, pace, session time."""

import asyncio
import socket
from typing import Any

import msgspec
import pytest

from postroom import defer, hook, reject
from postroom.mail.envelope import Origin
from postroom.mail.now import SECOND_US
from postroom.mail.units import Duration, Size
from postroom.net.connect import wrap
from postroom.net.stream import StreamOverstayed, StreamTimeout, StreamTooSlow
from postroom.observe.events import CommandRejected, SessionClosed
from postroom.services.face import Face, Kind, Login, Tls
from postroom.services.receive import ReceiveService
from postroom.services.settings import ReceiveSettings
from postroom.smtp.settings import ServerSettings
from postroom.testing.conversation import ListConversation, Piece
from postroom.testing.workbench import Bench, Plan, bench

STRANGER = Origin(protocol="SMTP", client_ip="192.0.2.1", listener="in")
HELLO = "EHLO c.test\nMAIL FROM:<ann@c.test>\n"
BAD = "RCPT TO:<nobody@gonzo.test>\n"
S = Duration.from_text("1s")
FREE = {"exempt_networks": ("192.0.2.0/24",)}


async def talk(
    b: Bench, *pieces: Piece, origin: Origin = STRANGER, early: bool = False
) -> ListConversation:
    conversation = ListConversation(*pieces)
    conversation.talks_early = early
    await ReceiveService(b.tools).converse(conversation, origin)
    assert conversation.is_closed
    assert conversation.demanded is None  # nothing holds on to the session
    return conversation


def limits(**settings: Any) -> Plan:
    return Plan(receive=ReceiveSettings(**settings))


def how(b: Bench) -> str:
    return b.told(SessionClosed)[-1].how


def rules(b: Bench) -> list[str]:
    return [event.rule for event in b.told(CommandRejected)]


# The greeting


async def test_by_default_nobody_waits_for_the_greeting() -> None:
    async with bench() as b:
        said = await talk(b, "QUIT\n", early=True)
        assert said.codes == ["220", "221 2.0.0"]
        assert said.pauses == []


async def test_who_waits_for_the_greeting_gets_it() -> None:
    async with bench(limits(greet_pause=5 * S)) as b:
        said = await talk(b, "QUIT\n")
        assert said.pauses == [5 * SECOND_US]
        assert said.codes == ["220", "221 2.0.0"]


async def test_who_talks_before_the_greeting_is_refused_and_told_of() -> None:
    async with bench(limits(greet_pause=S)) as b:
        said = await talk(b, HELLO, early=True)
        assert said.codes == ["554 5.5.1"]
        assert how(b) == "refused"
        assert rules(b) == ["greet_pause"]


@pytest.mark.parametrize(
    ("settings", "origin"),
    [
        pytest.param(FREE, STRANGER, id="exempt"),
        pytest.param({}, Origin(login="joe", listener="submit"), id="sendmail-bs"),
    ],
)
async def test_who_does_not_wait_for_the_greeting(
    settings: dict[str, Any], origin: Origin
) -> None:
    async with bench(limits(greet_pause=S, **settings)) as b:
        said = await talk(b, "QUIT\n", origin=origin, early=True)
        assert said.codes == ["220", "221 2.0.0"]
        assert said.pauses == []


# Bad recipients


async def test_bad_recipients_slow_the_answers_down_ever_more() -> None:
    plan = limits(
        bad_recipients_free=2, bad_recipient_delay=S, bad_recipient_delay_max=3 * S
    )
    async with bench(plan) as b:
        said = await talk(b, HELLO, *[BAD] * 7, "QUIT\n")
        assert said.codes[3:] == ["550 5.1.1"] * 7 + ["221 2.0.0"]
        assert said.pauses == [n * SECOND_US for n in (1, 2, 3, 3, 3)]


async def test_what_was_answered_goes_out_before_the_pause() -> None:
    async with bench(limits(bad_recipients_free=1)) as b:
        conversation = ListConversation(HELLO + BAD * 3 + "QUIT\n")
        seen = []

        async def pause(wait_us: int, *, until_octets: bool = False) -> bool:
            seen.append(conversation.codes.count("550 5.1.1"))
            return True

        conversation.pause = pause  # type: ignore[method-assign]
        await ReceiveService(b.tools).converse(conversation, STRANGER)
        assert seen == [2, 3]


async def test_one_bad_recipient_too_many_ends_the_session() -> None:
    async with bench(limits(bad_recipients_max=3)) as b:
        said = await talk(b, HELLO + BAD * 9)
        assert said.codes[3:] == ["550 5.1.1"] * 3 + ["421 4.7.0"]
        assert how(b) == "bad_recipients_max"
        assert rules(b)[-1] == "bad_recipients_max"


async def test_bad_recipients_are_counted_over_all_messages() -> None:
    async with bench(limits(bad_recipients_max=3)) as b:
        again = "RSET\nMAIL FROM:<ann@c.test>\n"
        said = await talk(b, HELLO + BAD * 2 + again + BAD * 2)
        assert said.codes[-2:] == ["550 5.1.1", "421 4.7.0"]


@pytest.mark.parametrize(
    ("settings", "recipient"),
    [
        pytest.param(FREE, "nobody@gonzo.test", id="exempt"),
        pytest.param({}, "joe@gonzo.test", id="good"),
        pytest.param({"bad_recipients_max": 0}, "nobody@gonzo.test", id="no-limit"),
    ],
)
async def test_whose_recipients_are_not_counted(
    settings: dict[str, Any], recipient: str
) -> None:
    given = {"bad_recipients_max": 1, "bad_recipient_delay": Duration(0), **settings}
    async with bench(limits(**given)) as b:
        said = await talk(b, HELLO, *[f"RCPT TO:<{recipient}>\n"] * 9, "QUIT\n")
        assert said.pauses == []
        assert how(b) == "quit"


async def test_strangers_that_probe_for_a_relay_are_slowed_down_too() -> None:
    async with bench(limits(bad_recipients_free=0)) as b:
        said = await talk(b, HELLO, "RCPT TO:<x@elsewhere.test>\n", "QUIT\n")
        assert said.codes[3] == "550 5.7.1"
        assert said.pauses == [SECOND_US]


async def test_what_is_refused_for_now_does_not_count() -> None:
    @hook.rcpt
    def not_now(session: Any, rcpt: Any) -> Any:
        return defer("4.7.1", "later")

    receive = ReceiveSettings(bad_recipients_free=0, bad_recipients_max=1)
    async with bench(Plan(receive=receive, hooks=[not_now])) as b:
        said = await talk(b, HELLO, *["RCPT TO:<joe@gonzo.test>\n"] * 5, "QUIT\n")
        assert said.codes[3:] == ["450 4.7.1"] * 5 + ["221 2.0.0"]
        assert said.pauses == []


async def test_who_logged_in_may_mistype_names() -> None:
    origin = msgspec.structs.replace(STRANGER, login="joe")
    hello = "EHLO c.test\nMAIL FROM:<joe@gonzo.test>\n"
    async with bench(limits(bad_recipients_free=0, bad_recipients_max=1)) as b:
        said = await talk(b, hello, *[BAD] * 5, "QUIT\n", origin=origin)
        assert said.codes[2:] == ["250 2.1.0"] + ["550 5.1.1"] * 5 + ["221 2.0.0"]
        assert said.pauses == []


async def test_a_server_that_has_the_queue_is_let_alone() -> None:
    plan = limits(greet_pause=S, bad_recipients_free=0, bad_recipients_max=1)
    async with bench(plan) as b:
        face = Face(ServerSettings(), Kind.LMTP)
        b.generation = b.generation._replace(faces={"in": face})
        hello = "LHLO c.test\nMAIL FROM:<ann@c.test>\n"
        said = await talk(b, hello, *[BAD] * 5, "QUIT\n")
        assert said.pauses == []
        assert said.ends_us is None
        assert how(b) == "quit"


async def test_a_session_that_waits_ends_with_the_server() -> None:
    async with bench(limits(bad_recipients_free=0)) as b:
        ours, theirs = socket.socketpair()
        stream, client = await wrap(ours), await wrap(theirs)
        hour = Duration.from_text("1h")
        receive = ReceiveSettings(
            bad_recipients_free=0,
            bad_recipient_delay=hour,
            bad_recipient_delay_max=hour,
        )
        b.generation = b.generation._replace(receive=receive)
        session = asyncio.create_task(
            ReceiveService(b.tools).converse(stream, STRANGER)
        )
        client.write((HELLO + BAD).replace("\n", "\r\n").encode())
        await b.until(lambda: bool(b.told(CommandRejected)))
        stream.interrupt()
        client.write(b"RSET\r\n")
        said = b""
        while data := await client.read():
            said += data
        assert said.endswith(b"421 4.3.2 Service shutting down, try again later\r\n")
        client.close()
        await session
        assert how(b) == "shutdown"


# Time


@pytest.mark.parametrize(
    ("error", "how_it_ends"),
    [
        (StreamTimeout("t"), "timeout"),
        (StreamOverstayed("t"), "session_timeout"),
        (StreamTooSlow("t"), "data_rate_min"),
    ],
)
async def test_each_limit_of_time_is_told_by_its_name(
    error: Exception, how_it_ends: str
) -> None:
    async with bench() as b:
        said = await talk(b, HELLO, error)
        assert said.codes[-1] == "421 4.4.2"
        assert how(b) == how_it_ends


async def test_a_session_has_an_end_and_a_least_rate() -> None:
    plan = limits(session_timeout=60 * S, data_rate_min=7, data_rate_window=9 * S)
    async with bench(plan) as b:
        seen: list[Any] = []
        conversation = ListConversation("QUIT\n")
        note = conversation.demand

        def demand(given: Any) -> None:
            seen.append(given)
            note(given)

        conversation.demand = demand  # type: ignore[method-assign,assignment]
        began_us = b.clock().mono_us
        await ReceiveService(b.tools).converse(conversation, STRANGER)
        assert conversation.ends_us is not None
        assert 0 <= conversation.ends_us - began_us - 60 * SECOND_US < SECOND_US
        assert (seen[0].octets_per_s, seen[0].window_us) == (7, 9 * SECOND_US)


async def test_only_content_has_to_come_at_a_rate() -> None:
    async with bench(limits(data_rate_min=100, data_rate_window=S)) as b:
        told: dict[str, bool] = {}
        conversation = ListConversation()

        def look(when: str) -> Any:
            def look_now() -> None:
                assert conversation.demanded is not None
                told[when] = conversation.demanded.is_failed(0, 5 * SECOND_US)

            return look_now

        pieces: list[Piece] = [
            look("greeted"),
            HELLO + "RCPT TO:<joe@gonzo.test>\n",
            look("between commands"),
            "DATA\n",
            look("in DATA"),
            "x\n.\n",
            look("after DATA"),
            "QUIT\n",
        ]
        conversation._pieces.extend(pieces)
        await ReceiveService(b.tools).converse(conversation, STRANGER)
        assert told == {
            "greeted": False,
            "between commands": False,
            "in DATA": True,
            "after DATA": False,
        }


@pytest.mark.parametrize(
    ("settings", "origin"),
    [
        pytest.param(FREE, STRANGER, id="exempt"),
        pytest.param(
            {"session_timeout": Duration(0), "data_rate_min": 0}, STRANGER, id="off"
        ),
        pytest.param({}, Origin(login="joe", listener="submit"), id="sendmail-bs"),
    ],
)
async def test_who_may_take_as_long_as_they_like(
    settings: dict[str, Any], origin: Origin
) -> None:
    async with bench(limits(**settings)) as b:
        said = await talk(b, "QUIT\n", origin=origin)
        assert said.ends_us is None


async def test_a_command_in_drops_gets_no_more_time_for_each_drop() -> None:
    async with bench() as b:
        said = await talk(b, *[bytes([octet]) for octet in b"NOOP\r\n"], "QUIT\n")
        assert said.codes == ["220", "250 2.0.0", "221 2.0.0"]
        assert len(said.waits) == 2


async def test_content_gets_time_for_each_piece() -> None:
    async with bench() as b:
        start = HELLO + "RCPT TO:<joe@gonzo.test>\nDATA\n"
        said = await talk(b, start, "a\n", "b\n", "c\n", ".\n", "QUIT\n")
        minutes = [wait // SECOND_US // 60 for wait in said.waits]
        assert minutes == [5, 3, 3, 3, 3, 5]  # RFC 5321 §4.5.3.2


@pytest.mark.parametrize(
    ("start", "pieces"),
    [
        ("DATA\n", ["x" * 990 + "\n", "y" * 90 + "\n", "z\n", ".\n"]),
        ("", ["BDAT 4000 LAST\n" + "x" * 992, "y" * 92, "z" * 916, "z" * 2000]),
    ],
    ids=["DATA", "BDAT"],
)
async def test_content_over_the_limit_gets_as_much_time(
    start: str, pieces: list[str]
) -> None:
    server = ServerSettings(message_octets_max=Size(1000))
    async with bench(Plan(server=server)) as b:
        before = HELLO + "RCPT TO:<joe@gonzo.test>\n" + start
        said = await talk(b, before, *pieces, "QUIT\n")
        assert "552 5.3.4" in said.codes  # not 421: it would be tried again
        minutes = [wait // SECOND_US // 60 for wait in said.waits]
        assert minutes[-4:] == [3, 3, 3, 5]


# Who does not wait for answers


AHEAD = "EHLO c.test\nMAIL FROM:<ann@c.test>\n"


async def test_who_does_not_wait_for_the_answer_to_the_hello_is_sent_off() -> None:
    async with bench(limits(pipelining_ahead="refuse")) as b:
        said = await talk(b, AHEAD)
        assert said.codes == ["220", "421 4.7.0"]
        assert how(b) == "pipelining_ahead"
        assert rules(b) == ["pipelining_ahead"]


@pytest.mark.parametrize(
    ("settings", "pieces"),
    [
        pytest.param({}, (AHEAD, "QUIT\n"), id="allowed"),
        pytest.param(
            {"pipelining_ahead": "refuse"},
            ("EHLO c.test\n", "MAIL FROM:<ann@c.test>\nQUIT\n"),
            id="behind-the-answer",
        ),
        pytest.param(
            {"pipelining_ahead": "refuse", **FREE}, (AHEAD, "QUIT\n"), id="exempt"
        ),
    ],
)
async def test_who_may_send_commands_together(
    settings: dict[str, Any], pieces: tuple[str, ...]
) -> None:
    async with bench(limits(**settings)) as b:
        said = await talk(b, *pieces)
        assert said.codes == ["220", "250", "250 2.1.0", "221 2.0.0"]


# Commands that move no mail


@pytest.mark.parametrize(
    "line", ["NOOP", "RSET", "VRFY joe", "EXPN joe", "HELP", "EHLO c.test"]
)
async def test_a_session_is_not_kept_alive_for_ever(line: str) -> None:
    async with bench(limits(idle_commands_max=4)) as b:
        said = await talk(b, "EHLO c.test\n", *[f"{line}\n"] * 9)
        assert len(said.codes) == 6
        assert said.codes[-1] == "421 4.7.0"
        assert how(b) == "idle_commands_max"
        assert rules(b)[-1] == "idle_commands_max"


@hook.mail
def nobody_may(session: Any, mail: Any) -> Any:
    return reject("5.7.1", "no")


OFFERS = ServerSettings(auth_mechanisms=("PLAIN",), starttls=True)


@pytest.mark.parametrize(
    ("lines", "face", "code"),
    [
        ("MAIL FROM:<a@c.test>\n", Face(OFFERS), "550 5.7.1"),
        ("MAIL FROM:<a@c.test> SIZE=99999999999\n", Face(OFFERS), "552 5.3.4"),
        ("MAIL FROM:<>\n", Face(OFFERS, tls=Tls.REQUIRED), "530 5.7.0"),
        ("MAIL FROM:<>\n", Face(OFFERS, login=Login.REQUIRED), "530 5.7.0"),
        ("AUTH PLAIN AGEAYQ==\n", Face(OFFERS), "504 5.5.4"),
    ],
    ids=["policy", "size", "TLS first", "login first", "no mechanism"],
)
async def test_nor_by_what_is_refused_each_time(
    lines: str, face: Face, code: str
) -> None:
    settings = ReceiveSettings(idle_commands_max=4)
    async with bench(Plan(receive=settings, hooks=[nobody_may])) as b:
        b.generation = b.generation._replace(faces={"in": face})
        said = await talk(b, "EHLO c.test\n", *[lines] * 9)
        assert said.codes[2:5] == [code] * 3
        assert said.codes[-1] == "421 4.7.0"
        assert len(said.codes) <= 7
        assert how(b) == "idle_commands_max"
        assert rules(b)[-1] == "idle_commands_max"


async def test_nor_by_data_for_nobody() -> None:
    async with bench(limits(idle_commands_max=4)) as b:
        said = await talk(b, HELLO, *["DATA\n"] * 9)
        assert said.codes[3:] == ["554 5.5.1"] * 4 + ["421 4.7.0"]
        assert how(b) == "idle_commands_max"


LETTER = "MAIL FROM:<ann@c.test>\nRCPT TO:<joe@gonzo.test>\nDATA\n"


@pytest.mark.parametrize(
    ("settings", "pieces"),
    [
        pytest.param({}, ["RSET\nNOOP\n", LETTER, "x\n.\n"] * 4, id="messages"),
        pytest.param(FREE, ["NOOP\n"] * 9, id="exempt"),
        pytest.param({"idle_commands_max": 0}, ["NOOP\n"] * 999, id="no-limit"),
    ],
)
async def test_whose_idle_commands_are_borne(
    settings: dict[str, Any], pieces: list[str]
) -> None:
    async with bench(limits(**{"idle_commands_max": 3, **settings})) as b:
        b.agents["mailbox"].gate.clear()
        await talk(b, "EHLO c.test\n", *pieces, "QUIT\n")
        assert how(b) == "quit"


# Other protocols


async def test_another_protocol_is_told_of_by_name() -> None:
    async with bench() as b:
        said = await talk(b, b"\x16\x03\x01\x02\x00\x01")
        assert said.codes == ["220", "421 4.7.0"]
        assert how(b) == "foreign"
        assert rules(b) == ["foreign-tls"]


async def test_too_many_errors_are_told_of() -> None:
    async with bench() as b:
        await talk(b, "X\n" * 30)
        assert how(b) == "errors"
        assert len(rules(b)) == 21
