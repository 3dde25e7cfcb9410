from collections.abc import Callable

import msgspec
import pytest

from postroom.mail.units import Duration
from postroom.pop3.events import Ended, Event, Flush, Login, Refused, Retrieve, Update
from postroom.pop3.server import FLUSH_OCTETS, ServerConnection, State
from postroom.pop3.settings import Pop3Settings

SIZES = (120, 200, 34)
UIDS = ("a.1", "b.2", "c.3")
CONTENT = b"Subject: hi\r\n\r\none\r\n.two\r\nthree\r\n"


def connection(
    *, plaintext_allowed: bool = True, settings: Pop3Settings | None = None
) -> ServerConnection:
    return ServerConnection(
        settings or Pop3Settings(), plaintext_allowed=plaintext_allowed
    )


def say(server: ServerConnection, *lines: str) -> list[Event]:
    """Give commands, answer what is owed, and return the events."""
    server.receive("".join(f"{line}\r\n" for line in lines).encode())
    return events(server)


def events(server: ServerConnection) -> list[Event]:
    seen = []
    while event := server.next_event():
        seen.append(event)
    return seen


def logged_in(settings: Pop3Settings | None = None) -> ServerConnection:
    server = connection(settings=settings)
    assert say(server, "USER joe", "PASS x") == [Login("joe", "x")]
    server.login_accepted(SIZES, UIDS)
    server.data_to_send()
    return server


def replies(server: ServerConnection) -> list[str]:
    return server.data_to_send().decode().splitlines()


def test_login() -> None:
    server = connection()
    server.greet("ready")
    assert say(server, "user Joe", "pass two words ") == [Login("Joe", "two words ")]
    server.login_accepted(SIZES, UIDS)
    assert events(server) == []
    assert replies(server) == [
        "+OK ready",
        "+OK password required",
        "+OK 3 messages (354 octets)",
    ]
    assert server.state is State.TRANSACTION


def test_password_is_not_shown() -> None:
    assert "hunter" not in repr(Login("joe", "hunter2"))


ANSWERS = {
    "stat": ("STAT", "+OK 3 354"),
    "list one": ("LIST 2", "+OK 2 200"),
    "uidl one": ("uidl 3", "+OK 3 c.3"),
    "leading zeros": ("LIST 02", "+OK 2 200"),
    "noop": ("NOOP", "+OK"),
    "dele": ("DELE 1", "+OK message 1 deleted"),
    "rset": ("RSET", "+OK 3 messages (354 octets)"),
    "list 0": ("LIST 0", "-ERR a message-number is needed"),
    "list -1": ("LIST -1", "-ERR a message-number is needed"),
    "list +1": ("LIST +1", "-ERR a message-number is needed"),
    "list 4": ("LIST 4", "-ERR no such message, only 3 in mailbox"),
    "list two": ("LIST 1 2", "-ERR a message-number is needed"),
    "other digits": ("LIST ²", "-ERR a message-number is needed"),
    "huge": ("RETR 99999999999999999999", "-ERR a message-number is needed"),
    "retr without": ("RETR", "-ERR a message-number is needed"),
    "dele without": ("DELE", "-ERR a message-number is needed"),
    "top without": ("TOP", "-ERR a message-number and a line count are needed"),
    "top one": ("TOP 1", "-ERR a message-number and a line count are needed"),
    "top negative": ("TOP 1 -1", "-ERR a message-number and a line count are needed"),
    "top 4": ("TOP 4 1", "-ERR no such message, only 3 in mailbox"),
    "user again": ("USER joe", "-ERR not valid in TRANSACTION state"),
    "pass again": ("PASS joe", "-ERR not valid in TRANSACTION state"),
    "unknown": ("XTND XMIT", "-ERR unknown command"),
    "apop": ("APOP joe c4c9334bac560ecc979e58001b3e22fb", "-ERR unknown command"),
    "auth": ("AUTH PLAIN", "-ERR unknown command"),
    "empty": ("", "-ERR unknown command"),
    "space first": (" STAT", "-ERR unknown command"),
    "tab": ("LIST\t1", "-ERR line has control characters"),
    "nul": ("STAT\0", "-ERR line has control characters"),
    "bare cr": ("STAT\rSTAT", "-ERR line has control characters"),
    "quit with": ("QUIT now", "-ERR no argument expected"),
}


@pytest.mark.parametrize("case", ANSWERS)
def test_answers_in_transaction(case: str) -> None:
    server = logged_in()
    command, reply = ANSWERS[case]
    for event in say(server, command):
        assert isinstance(event, Refused)
    assert replies(server) == [reply]
    say(server, "STAT")
    assert replies(server)[0].startswith("+OK")


@pytest.mark.parametrize(
    "command",
    ["STAT", "LIST", "UIDL 1", "RETR 1", "TOP 1 1", "DELE 1", "NOOP", "RSET"],
)
def test_nothing_before_login(command: str) -> None:
    server = connection()
    (event,) = say(server, command)
    assert isinstance(event, Refused)
    assert replies(server) == ["-ERR not valid in AUTHORIZATION state"]


AUTHORIZATION_ERRORS = {
    "pass first": (["PASS x"], "-ERR USER first"),
    "empty user": (["USER "], "-ERR a name is needed"),
    "no user": (["USER"], "-ERR a name is needed"),
    "empty password": (["USER joe", "PASS "], "-ERR a password is needed"),
    "no password": (["USER joe", "PASS"], "-ERR a password is needed"),
    "something between": (["USER joe", "CAPA", "PASS x"], "-ERR USER first"),
    "password twice": (["USER joe", "PASS", "PASS x"], "-ERR USER first"),
}


@pytest.mark.parametrize("case", AUTHORIZATION_ERRORS)
def test_authorization_errors(case: str) -> None:
    commands, reply = AUTHORIZATION_ERRORS[case]
    server = connection()
    assert not any(isinstance(event, Login) for event in say(server, *commands))
    assert replies(server)[-1] == reply


def test_not_utf8() -> None:
    server = connection()
    server.receive(b"USER j\xff\r\nUSER j\xc3\xb6rg\r\nPASS \xc3\xbc\r\n")
    assert events(server) == [
        Refused("", "argument is not UTF-8"),
        Login("jörg", "ü"),
    ]


def test_line_end_must_be_crlf() -> None:
    server = connection()
    server.receive(b"CAPA\nQUIT\r\n")
    assert events(server)[0] == Refused("", "line must end in CRLF")
    assert replies(server) == ["-ERR line must end in CRLF", "+OK signing off"]


@pytest.mark.parametrize("step", [1, 7, 255, 10_000])
def test_a_long_line_is_refused_once_and_skipped(step: int) -> None:
    server = logged_in()
    data = b"DELE " + b"1" * 5000 + b"\r\nSTAT\r\n"
    for start in range(0, len(data), step):
        server.receive(data[start : start + step])
        events(server)
    assert replies(server) == ["-ERR line too long", "+OK 3 354"]


@pytest.mark.parametrize(("octets", "is_taken"), [(255, True), (256, False)])
def test_line_limit(octets: int, is_taken: bool) -> None:
    server = connection()
    say(server, "USER joe")
    server.receive(b"PASS " + b"x" * (octets - 7) + b"\r\n")
    assert isinstance(events(server)[0], Login) is is_taken


def test_too_many_errors_end_the_session() -> None:
    server = connection(settings=Pop3Settings(errors_max=3))
    server.receive(b"X\r\n" * 5)
    seen = events(server)
    assert seen[-1] == Ended("errors")
    assert len(seen) == 4
    assert replies(server)[-1] == "-ERR unknown command; too many errors, closing"
    assert say(server, "QUIT") == []


def test_wrong_numbers_are_no_protocol_errors() -> None:
    server = logged_in(Pop3Settings(errors_max=2))
    say(server, *["RETR 9"] * 10)
    assert len(replies(server)) == 10
    say(server, "STAT")
    assert replies(server) == ["+OK 3 354"]


def test_wrong_passwords_end_the_session() -> None:
    server = connection(settings=Pop3Settings(login_failures_max=2))
    for _ in range(2):
        say(server, "USER joe", "PASS x")
        server.login_refused("AUTH", "wrong")
    assert events(server) == [Ended("errors")]
    assert replies(server).count("-ERR [AUTH] wrong") == 2


def test_no_failure_of_the_client_is_not_counted() -> None:
    server = connection(settings=Pop3Settings(login_failures_max=1))
    for _ in range(3):
        say(server, "USER joe", "PASS x")
        server.login_refused("IN-USE", "busy", is_failure=False)
    assert events(server) == []
    assert server.state is State.AUTHORIZATION


def test_plaintext_not_allowed() -> None:
    server = connection(plaintext_allowed=False)
    say(server, "USER joe", "PASS x", "CAPA")
    lines = replies(server)
    assert lines[:2] == [
        "-ERR passwords are taken only over TLS here",
        "-ERR USER first",
    ]
    assert "USER" not in lines


def test_capabilities() -> None:
    delay = Duration.from_text("1500ms")
    server = connection(settings=Pop3Settings(login_delay=delay))
    say(server, "CAPA")
    first = replies(server)
    assert first[0].startswith("+OK")
    assert first[-1] == "."
    assert set(first[1:-1]) == {
        "TOP",
        "UIDL",
        "USER",
        "RESP-CODES",
        "AUTH-RESP-CODE",
        "PIPELINING",
        "LOGIN-DELAY 2",
        "EXPIRE NEVER",
        "IMPLEMENTATION Postroom",
    }
    say(server, "USER joe", "PASS x")
    server.login_accepted((), ())
    replies(server)
    say(server, "CAPA")
    assert replies(server) == first


def test_listings() -> None:
    server = logged_in()
    say(server, "DELE 2", "LIST", "UIDL", "STAT", "LIST 2", "DELE 2", "RETR 2")
    assert replies(server) == [
        "+OK message 2 deleted",
        "+OK 2 messages (154 octets)",
        "1 120",
        "3 34",
        ".",
        "+OK 2 messages (154 octets)",
        "1 a.1",
        "3 c.3",
        ".",
        "+OK 2 154",
        "-ERR message 2 is deleted",
        "-ERR message 2 is deleted",
        "-ERR message 2 is deleted",
    ]
    say(server, "RSET", "STAT")
    assert replies(server) == ["+OK 3 messages (354 octets)", "+OK 3 354"]


def test_empty_maildrop() -> None:
    server = connection()
    say(server, "USER joe", "PASS x")
    server.login_accepted((), ())
    replies(server)
    say(server, "STAT", "LIST", "UIDL", "LIST 1")
    assert replies(server) == [
        "+OK 0 0",
        "+OK 0 messages (0 octets)",
        ".",
        "+OK 0 messages (0 octets)",
        ".",
        "-ERR no such message, only 0 in mailbox",
    ]


def test_retr_stuffs() -> None:
    server = logged_in()
    assert say(server, "RETR 2", "STAT") == [Retrieve(1)]
    assert server.next_event() is None
    assert server.data_to_send() == b""
    server.message(CONTENT)
    assert events(server) == []
    stuffed = CONTENT.replace(b"\r\n.", b"\r\n..")
    expected = b"+OK %d octets\r\n%b.\r\n+OK 3 354\r\n" % (len(CONTENT), stuffed)
    assert server.data_to_send() == expected


def test_a_message_without_last_line_end() -> None:
    server = logged_in()
    say(server, "RETR 1")
    server.message(b"A: b\r\n\r\nx")
    assert server.data_to_send().endswith(b"\r\nx\r\n.\r\n")


TOPS = {
    "0": (0, b"Subject: hi\r\n\r\n"),
    "1": (1, b"Subject: hi\r\n\r\none\r\n"),
    "2": (2, b"Subject: hi\r\n\r\none\r\n..two\r\n"),
    "all": (3, b"Subject: hi\r\n\r\none\r\n..two\r\nthree\r\n"),
    "more": (9_999_999_999, b"Subject: hi\r\n\r\none\r\n..two\r\nthree\r\n"),
}


@pytest.mark.parametrize("case", TOPS)
@pytest.mark.parametrize("step", [1, 5, 1000])
def test_top(case: str, step: int) -> None:
    lines, expected = TOPS[case]
    server = logged_in()
    assert say(server, f"TOP 3 {lines}") == [Retrieve(2, lines)]
    server.message_begin(len(CONTENT))
    for start in range(0, len(CONTENT), step):
        if server.wants_more:
            server.message_piece(CONTENT[start : start + step])
    server.message_end()
    head = b"+OK top of message follows\r\n"
    assert server.data_to_send() == head + expected + b".\r\n"


def test_top_of_a_message_without_header_or_body() -> None:
    for content, expected in (
        (b"\r\nbody\r\nmore\r\n", b"\r\nbody\r\n"),
        (b"A: b\r\n", b"A: b\r\n"),
        (b"", b""),
    ):
        server = logged_in()
        say(server, "TOP 1 1")
        server.message(content)
        sent = server.data_to_send().partition(b"\r\n")[2]
        assert sent == expected + b".\r\n"


def test_a_message_that_cannot_be_had() -> None:
    server = logged_in()
    say(server, "RETR 1")
    server.message_refused("gone", "SYS/TEMP")
    say(server, "STAT")
    assert replies(server) == ["-ERR [SYS/TEMP] gone", "+OK 3 354"]


def test_quit_before_login() -> None:
    server = connection()
    assert say(server, "QUIT") == [Ended("quit")]
    assert replies(server) == ["+OK signing off"]


UPDATES: dict[str, tuple[list[str], tuple[int, ...], int, str]] = {
    "nothing": ([], (), 0, "+OK signing off (3 left)"),
    "some": (["DELE 3", "DELE 1"], (0, 2), 0, "+OK signing off (1 left)"),
    "all": (
        ["DELE 1", "DELE 2", "DELE 3"],
        (0, 1, 2),
        0,
        "+OK signing off (mailbox empty)",
    ),
    "reset": (["DELE 1", "RSET"], (), 0, "+OK signing off (3 left)"),
    "failed": (
        ["DELE 1"],
        (0,),
        1,
        "-ERR [SYS/TEMP] some deleted messages not removed",
    ),
}


@pytest.mark.parametrize("case", UPDATES)
def test_update(case: str) -> None:
    commands, deleted, failed, reply = UPDATES[case]
    server = logged_in()
    assert say(server, *commands, "QUIT", "STAT") == [Update(deleted)]
    assert server.state is State.UPDATE
    server.updated(failed)
    assert events(server) == [Ended("quit")]
    assert replies(server)[-1] == reply


def test_loss_never_updates() -> None:
    server = logged_in()
    say(server, "DELE 1")
    server.receive(b"QUIT")
    server.receive(b"")
    assert events(server) == [Ended("lost")]
    assert events(server) == []


def test_quit_then_loss_updates() -> None:
    server = logged_in()
    say(server, "DELE 1")
    server.receive(b"QUIT\r\n")
    server.receive(b"")
    assert events(server) == [Update((0,))]


def test_much_output_is_flushed_between_pages() -> None:
    server = connection()
    say(server, "USER joe", "PASS x")
    count = 50_000
    server.login_accepted(range(count), [f"uid-{i}" for i in range(count)])
    server.data_to_send()
    server.receive(b"UIDL\r\n" * 3 + b"NOOP\r\n")
    sent, most = [], 0
    while event := server.next_event():
        assert event == Flush()
        sent.append(server.data_to_send())
        most = max(most, len(sent[-1]))
    sent.append(server.data_to_send())
    assert most < 2 * FLUSH_OCTETS
    lines = b"".join(sent).split(b"\r\n")
    assert lines.count(b".") == 3
    assert len(lines) == 3 * (count + 2) + 2
    assert lines[1] == b"1 uid-0"
    assert lines[count] == b"50000 uid-49999"


def test_replies_stay_one_line() -> None:
    server = connection()
    server.greet("x\r\n+OK forged\u2028" + "y" * 600)
    data = server.data_to_send()
    assert data.count(b"\r\n") == 1
    assert len(data) <= 512
    assert b"x??+OK forged?" in data


def test_answers_are_owed() -> None:
    wrong: list[Callable[[ServerConnection], None]] = [
        lambda s: s.login_accepted((), ()),
        lambda s: s.login_refused("", ""),
        lambda s: s.message(b""),
        lambda s: s.message_refused(""),
        lambda s: s.updated(0),
    ]
    for answer in wrong:
        with pytest.raises(AssertionError):
            answer(connection())


SETTINGS = {
    "short lines": {"command_octets_max": 254},
    "no errors": {"errors_max": 0},
    "no reading": {"read_ahead_messages": 0},
    "no time": {"timeout": 0},
    "unknown key": {"time_out": 10},
}


@pytest.mark.parametrize("case", SETTINGS)
def test_bad_settings(case: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(SETTINGS[case], Pop3Settings, dec_hook=lambda t, v: t(v))
