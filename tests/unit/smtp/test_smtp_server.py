"""The server connection's own promises: what it owes, when it pauses, what it tells."""

import pytest

from postroom.mail.envelope import BodyType
from postroom.mail.reply import Reply
from postroom.mail.units import Size
from postroom.smtp import replies
from postroom.smtp.commands import (
    Auth,
    DataStart,
    Hello,
    Mail,
    Noop,
    Quit,
    Rcpt,
    Refused,
    StartTls,
)
from postroom.smtp.data import Problem
from postroom.smtp.dialogue import State, Verb
from postroom.smtp.errors import LocalProtocolError
from postroom.smtp.parameters import MailParams
from postroom.smtp.server import (
    Chunk,
    Closed,
    EndOfData,
    Event,
    ServerConnection,
    TooManyErrors,
)
from postroom.smtp.settings import ServerSettings

TRANSACTION = (
    (b"EHLO c.example\r\n", replies.NOOP_OK),
    (b"MAIL FROM:<a@c.example>\r\n", replies.SENDER_OK),
    (b"RCPT TO:<b@mx.example>\r\n", replies.RECIPIENT_OK),
    (b"DATA\r\n", replies.START_CONTENT),
)


def connected(
    settings: ServerSettings | None = None, *, lmtp: bool = False
) -> ServerConnection:
    server = ServerConnection(settings or ServerSettings(), "mx.example", lmtp=lmtp)
    assert server.greet(replies.greeting("mx.example")).startswith(b"220 mx.example ")
    return server


def in_state(state: State, settings: ServerSettings | None = None) -> ServerConnection:
    server = connected(settings)
    for line, answer in TRANSACTION:
        if server.state is state:
            break
        server.receive(line)
        assert server.next_event() is not None
        server.reply(answer)
    server.data_to_send()
    assert server.state is state
    return server


def ask(server: ServerConnection, data: bytes) -> Event | None:
    server.receive(data)
    return server.next_event()


def test_events_carry_what_was_said() -> None:
    server = connected()
    cases: list[tuple[bytes, Reply]] = [
        (b"EHLO c.example\r\n", replies.NOOP_OK),
        (b"MAIL FROM:<a@c.example> SIZE=42 BODY=8bitmime\r\n", replies.SENDER_OK),
        (b"RCPT TO:<b@mx.example>\r\n", replies.RECIPIENT_OK),
        (b"DATA\r\n", replies.START_CONTENT),
    ]
    events = []
    for line, answer in cases:
        events.append(ask(server, line))
        server.reply(answer)
    assert events[0] == Hello(Verb.EHLO, "c.example")
    assert isinstance(events[1], Mail)
    given = (("SIZE", "42"), ("BODY", "8bitmime"))
    assert events[1].params == MailParams(42, BodyType.EIGHT_BIT, given=given)
    assert isinstance(events[2], Rcpt)
    assert str(events[2].address) == "b@mx.example"
    assert events[3] == DataStart()
    assert server.recipients == 1


def test_nothing_is_read_while_a_reply_is_owed() -> None:
    server = connected()
    assert ask(server, b"NOOP\r\nNOOP\r\nQUIT\r\n") == Noop()
    assert server.owed == 1
    assert server.next_event() is None
    server.receive(b"NOOP\r\n")
    assert server.next_event() is None
    assert server.data_to_send() == b""
    server.reply(replies.NOOP_OK)
    assert server.next_event() == Noop()
    server.reply(replies.NOOP_OK)
    assert server.next_event() == Quit()
    server.reply(replies.goodbye("mx.example"))
    assert server.next_event() == Closed(by_peer=False)
    assert server.next_event() is None
    said = server.data_to_send()
    assert said.count(b"\r\n") == 3
    assert server.data_to_send() == b""


def test_content_comes_in_one_piece_if_it_arrived_so() -> None:
    server = in_state(State.DATA)
    content = b"Subject: x\r\n\r\nhello\r\n"
    assert ask(server, content + b".\r\nNOOP\r\n") == Chunk(content)
    assert server.next_event() == EndOfData(len(content))
    assert server.next_event() is None
    server.reply(replies.queued("Q1"))
    assert server.next_event() == Noop()


def test_content_is_not_held_back() -> None:
    server = in_state(State.DATA)
    assert ask(server, b"one\r\ntwo\r\n") == Chunk(b"one\r\ntwo")
    assert server.next_event() is None
    assert ask(server, b"x") == Chunk(b"\r\nx")


@pytest.mark.parametrize(
    ("content", "problem", "refusal"),
    [
        (b"a\nb\r\n", Problem.BARE_LINE_END, "550 5.6.11"),
        (b"a\rb\r\n", Problem.BARE_LINE_END, "550 5.6.11"),
        (b"x" * 101 + b"\r\n", Problem.LINE_TOO_LONG, "554 5.6.0"),
        (b"xx\r\n" * 100, Problem.TOO_LARGE, "552 5.3.4"),
        (b"xx\n" * 200 + b"\r\n", Problem.TOO_LARGE, "552 5.3.4"),
    ],
)
def test_refused_content(content: bytes, problem: Problem, refusal: str) -> None:
    settings = ServerSettings(
        data_line_octets_max=Size(100), message_octets_max=Size(300)
    )
    server = in_state(State.DATA, settings)
    event = ask(server, content + b".\r\n")
    assert isinstance(event, EndOfData)
    assert event.problem is problem
    assert event.refusal is not None
    assert str(event.refusal).startswith(refusal)
    server.reply(event.refusal)
    assert server.state is State.READY


@pytest.mark.parametrize(
    "given",
    [(), (replies.SENDER_OK, replies.SENDER_OK), (replies.START_CONTENT,)],
    ids=["none", "two", "wrong-digit"],
)
def test_only_what_is_owed_can_be_answered(given: tuple[Reply, ...]) -> None:
    server = in_state(State.READY)
    ask(server, b"MAIL FROM:<>\r\n")
    with pytest.raises(LocalProtocolError):
        server.reply(*given)
    assert server.data_to_send() == b""
    server.reply(replies.SENDER_OK)


def test_nothing_can_be_answered_unasked() -> None:
    server = in_state(State.READY)
    for reply in (replies.NOOP_OK, Reply.of(421, "4.3.2", "bye")):
        with pytest.raises(LocalProtocolError):
            server.reply(reply)
    with pytest.raises(LocalProtocolError):
        server.tls_started()


@pytest.mark.parametrize("state", [State.START, State.READY, State.MAIL, State.DATA])
def test_farewell_at_any_time(state: State) -> None:
    server = in_state(state)
    server.receive(b"half a li")
    server.farewell(replies.closing("mx.example"))
    assert server.data_to_send().startswith(b"421 4.3.2 mx.example")
    while isinstance(event := server.next_event(), Chunk):
        pass
    assert event == Closed(by_peer=False)
    server.farewell(replies.closing("mx.example"))
    assert server.data_to_send() == b""


def test_421_answers_anything_and_closes() -> None:
    server = in_state(State.MAIL)
    ask(server, b"RCPT TO:<b@mx.example>\r\nRCPT TO:<c@mx.example>\r\n")
    server.reply(replies.closing("mx.example"))
    assert server.next_event() == Closed(by_peer=False)


def test_lmtp_owes_a_reply_per_recipient() -> None:
    server = connected(lmtp=True)
    lines = (b"LHLO c.example\r\n", *(line for line, _ in TRANSACTION[1:3]))
    for line, (_, answer) in zip(lines, TRANSACTION, strict=False):
        ask(server, line)
        server.reply(answer)
    for line, (_, answer) in zip((lines[2], b"DATA\r\n"), TRANSACTION[2:], strict=True):
        ask(server, line)
        server.reply(answer)
    assert isinstance(ask(server, b".\r\n"), EndOfData)
    assert server.owed == 2
    with pytest.raises(LocalProtocolError):
        server.reply(replies.queued("Q1"))
    server.reply(replies.queued("Q1"), Reply.of(452, "4.2.2", "Mailbox full"))
    assert server.state is State.READY


@pytest.mark.parametrize("state", [State.START, State.READY, State.MAIL, State.DATA])
def test_the_client_goes(state: State) -> None:
    server = in_state(state)
    server.receive(b"")
    assert server.next_event() == Closed(by_peer=True)
    assert server.next_event() is None
    assert server.is_closed


def test_what_came_before_the_end_is_still_done() -> None:
    server = in_state(State.READY)
    server.receive(b"NOOP\r\nNOOP")
    server.receive(b"")
    assert server.next_event() == Noop()
    assert server.next_event() is None
    server.reply(replies.NOOP_OK)
    assert server.next_event() == Closed(by_peer=True)


def test_nothing_buffered_survives_starttls() -> None:
    server = in_state(State.READY, ServerSettings(starttls=True))
    assert ask(server, b"STARTTLS\r\nMAIL FROM:<evil@c.example>\r\nNO") == StartTls()
    server.reply(replies.READY_FOR_TLS)
    server.receive(b"OP\r\nMAIL FROM:<evil@c.example>\r\n")
    assert server.next_event() is None
    server.tls_started()
    assert server.next_event() is None
    assert server.state is State.START
    assert server.tls
    assert b"STARTTLS" not in server.hello_reply(Verb.EHLO).to_wire()
    refused = ask(server, b"MAIL FROM:<a@c.example>\r\n")
    assert isinstance(refused, Refused)
    assert refused.reply.code == 503


def test_refused_starttls_changes_nothing() -> None:
    server = in_state(State.READY, ServerSettings(starttls=True))
    ask(server, b"STARTTLS\r\nNOOP\r\n")
    server.reply(Reply.of(454, "4.7.0", "TLS is not available"))
    assert server.next_event() == Noop()


@pytest.mark.parametrize("by", [1, 7, 1 << 20])
@pytest.mark.parametrize(
    "line",
    [
        b"BDAT 9 " + b"x" * 3_000,
        b"bdat 9 " + b"x" * 30_000,
        b" BDAT 9",
        b"BDAT:9",
        b"BDAT9",
        b"\tBDAT 9",
    ],
)
def test_behind_a_chunk_of_unknown_length_nothing_is_a_command(
    line: bytes, by: int
) -> None:
    for settings in (ServerSettings(), ServerSettings(auth_mechanisms=("PLAIN",))):
        server = in_state(State.RCPT, settings)
        octets = b"NOOP\r\n" + line + b"\r\nRSET\r\nNOOP\r\n"
        assert ask(server, octets[:6]) == Noop()
        server.reply(replies.NOOP_OK)
        events = []
        for at in range(6, len(octets), by):
            server.receive(octets[at : at + by])
            while (event := server.next_event()) is not None:
                events.append(event)
        told = [event for event in events if not isinstance(event, Closed)]
        (one,) = told
        assert isinstance(one, TooManyErrors)
        assert one.rule == "bdat-without-size"
        assert server.is_closed


def test_auth_carries_octets_and_no_log_carries_secrets() -> None:
    server = in_state(State.READY, ServerSettings(auth_mechanisms=("PLAIN",)))
    event = ask(server, b"AUTH plain AGEAYg==\r\n")
    assert event == Auth("PLAIN", b"\0a\0b")
    server.reply(replies.LOGIN_FAILED)
    assert ask(server, b"AUTH PLAIN =\r\n") == Auth("PLAIN", b"")
    server.reply(replies.LOGIN_FAILED)
    event = ask(server, b"AUTH PLAIN c2VjcmV0!\r\n")
    assert isinstance(event, Refused)
    assert "c2VjcmV0" not in str(event)
    assert not server.authenticated
    ask(server, b"AUTH PLAIN AGEAYg==\r\n")
    server.reply(replies.LOGGED_IN)
    assert server.authenticated


@pytest.mark.parametrize(
    "line", [b"AUTH\tPLAIN AGEAYg==", b" AUTH PLAIN AGEAYg==", b"\tauth PLAIN AGEAYg=="]
)
def test_no_spelling_of_auth_brings_secrets_into_the_log(line: bytes) -> None:
    server = in_state(State.READY, ServerSettings(auth_mechanisms=("PLAIN",)))
    event = ask(server, line + b"\r\n")
    assert isinstance(event, Refused)
    assert event.rule
    assert "AGEAYg" not in str(event)


def test_refusals_are_told_for_the_log() -> None:
    server = in_state(State.READY)
    event = ask(server, b"FOO \xff bar\r\n")
    assert isinstance(event, Refused)
    assert (event.verb, event.argument) == ("FOO", r"\xff bar")
    event = ask(server, b"NOOP" + b"\x1b[2J" * 100 + b"\r\n")
    assert isinstance(event, Refused)
    assert len(event.argument) + len(event.verb) <= 300
    assert server.next_event() is None
    assert server.data_to_send().count(b"\r\n") == 2


def test_too_many_errors_end_it() -> None:
    server = connected(ServerSettings(errors_max=1))
    assert isinstance(ask(server, b"FOO\r\n"), Refused)
    event = ask(server, b"BAR\r\nNOOP\r\n")
    assert isinstance(event, TooManyErrors)
    assert event.reply.code == 421
    assert server.next_event() == Closed(by_peer=False)
    assert server.data_to_send().splitlines()[-1].startswith(b"421 4.7.0")


def test_replies_cannot_be_forged_through_their_text() -> None:
    server = in_state(State.READY)
    ask(server, b"NOOP\r\n")
    server.reply(Reply.of(250, "2.0.0", "a\r\n250 b"))
    assert server.data_to_send() == b"250 2.0.0 a??250 b\r\n"
