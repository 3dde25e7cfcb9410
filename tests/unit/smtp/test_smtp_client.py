"""The client connection: what it sends, what it makes of replies, and how it ends."""

import pytest

from postroom.mail.address import NULL_SENDER, Address
from postroom.smtp import replies
from postroom.smtp.client import (
    PIPELINE_MAX,
    Answered,
    BodyWanted,
    ClientConnection,
    Greeting,
    HelloDone,
    Line,
    LostConnection,
)
from postroom.smtp.dialogue import State, Verb
from postroom.smtp.errors import LocalProtocolError
from postroom.smtp.transaction import Transaction, TransactionDone
from postroom.testing.ready_client import (
    PLAIN,
    SENDER,
    events,
    ready,
    to,
    told,
)


def test_greeting_and_hello() -> None:
    client = ClientConnection("c.example")
    client.receive(b"220-mx.example\r\n220 hi\r\n")
    (greeting,) = events(client)
    assert isinstance(greeting, Greeting)
    assert greeting.reply.lines == ("mx.example", "hi")
    client.send_hello()
    assert client.data_to_send() == b"EHLO c.example\r\n"
    client.receive(
        b"250-mx.example greets\r\n250-pipelining\r\n250-SIZE 1000\r\n250-X-NEW\r\n"
        b"250-AUTH=LOGIN plain\r\n250-8BITMIME\r\n250-?\r\n250 \r\n"
    )
    (hello,) = events(client)
    assert isinstance(hello, HelloDone)
    offered = hello.extensions
    assert (offered.pipelining, offered.size, offered.eight_bit_mime) == (True,) * 3
    assert offered.size_octets_max == 1000
    assert offered.auth_mechanisms == ("LOGIN", "PLAIN")
    assert "X-NEW" in offered
    assert not offered.starttls


def test_helo_follows_a_refused_ehlo() -> None:
    client = ClientConnection("c.example")
    client.receive(b"220 old\r\n")
    client.send_hello()
    client.data_to_send()
    client.receive(b"502 what?\r\n")
    assert client.data_to_send() == b"HELO c.example\r\n"
    client.receive(b"250-old\r\n250 PIPELINING\r\n")
    done = events(client)[-1]
    assert isinstance(done, HelloDone)
    assert done.reply.is_positive
    assert not done.extensions.pipelining


@pytest.mark.parametrize("hello", [b"421 no\r\n", b"450 no\r\n", b"500 a\r\n500 b\r\n"])
def test_a_hello_refused_is_told(hello: bytes) -> None:
    client = ClientConnection("c.example")
    client.receive(b"220 mx\r\n")
    client.send_hello()
    client.receive(hello)
    last = events(client)[-1]
    assert isinstance(last, HelloDone | LostConnection)
    assert last.reply is not None
    assert not last.reply.is_positive


def test_a_pipelined_transaction() -> None:
    client = ready()
    number = client.submit(to("x", "y", size=30, eight_bit=True))
    assert client.data_to_send() == (
        b"MAIL From:<a@c.example> SIZE=30\r\nRCPT To:<x@mx.example>\r\n"
        b"RCPT To:<y@mx.example>\r\nDATA\r\n"
    )
    client.receive(b"250 ok\r\n250 ok\r\n550 5.1.1 no\r\n354 go\r\n")
    assert events(client) == [BodyWanted(number)]
    client.send_body(b"Subject: x\r\n\r\n.dot\r\n")
    client.end_body()
    assert client.data_to_send() == b"Subject: x\r\n\r\n..dot\r\n.\r\n"
    assert not client.is_idle
    client.receive(b"250 2.0.0 taken\r\n")
    (done,) = events(client)
    assert isinstance(done, TransactionDone)
    assert done.verbs == (Verb.CONTENT, Verb.RCPT)
    taken, refused = done.results
    assert taken is not None
    assert refused is not None
    assert (taken.code, taken.status, taken.text) == (250, "2.0.0", "taken")
    assert (refused.code, refused.status, refused.text) == (550, "5.1.1", "no")
    assert client.is_idle


def test_lock_step_without_pipelining() -> None:
    client = ready(PLAIN)
    client.submit(to("x", "y", size=30, eight_bit=True))
    for line, answer in (
        (b"MAIL From:<a@c.example>\r\n", b"250 ok\r\n"),
        (b"RCPT To:<x@mx.example>\r\n", b"450 later\r\n"),
        (b"RCPT To:<y@mx.example>\r\n", b"251 forwarded\r\n"),
        (b"DATA\r\n", b"354 go\r\n"),
    ):
        assert client.data_to_send() == line
        client.receive(answer)
    assert isinstance(events(client)[0], BodyWanted)
    client.end_body()
    client.submit(to("z"))
    assert client.data_to_send() == b".\r\n"
    client.receive(b"250 ok\r\n")
    assert told(client) == [[450, 250]]
    assert client.data_to_send() == b"MAIL From:<a@c.example>\r\n"


def test_8bitmime_is_declared_where_offered() -> None:
    client = ready(b"250-mx\r\n250 8BITMIME\r\n")
    client.submit(to("x", eight_bit=True))
    assert client.data_to_send() == b"MAIL From:<a@c.example> BODY=8BITMIME\r\n"


def test_the_null_sender_and_quoted_names() -> None:
    client = ready()
    recipients = (Address("a b", "mx.example"), Address("postmaster", ""))
    client.submit(Transaction(NULL_SENDER, recipients))
    lines = client.data_to_send().splitlines()
    assert lines[:3] == [
        b"MAIL From:<>",
        b'RCPT To:<"a b"@mx.example>',
        b"RCPT To:<postmaster>",
    ]


def test_lock_step_never_says_data_to_nobody() -> None:
    client = ready(PLAIN)
    client.submit(to("x"))
    client.submit(to("y"))
    client.receive(b"250 ok\r\n")
    client.data_to_send()
    client.receive(b"550 no\r\n")
    assert told(client) == [[550]]
    assert client.data_to_send() == b"RSET\r\n"
    client.receive(b"250 ok\r\n")
    assert client.data_to_send() == b"MAIL From:<a@c.example>\r\n"


NOBODY = b"250 a\r\n550 b\r\n551 c\r\n"
CONTENT = b"250 a\r\n250 b\r\n250 c\r\n354 d\r\n"

CASES: list[tuple[str, bytes, list[int], bytes]] = [
    ("sender refused", b"550 a\r\n503 b\r\n503 c\r\n503 d\r\n", [550, 550], b""),
    ("sender deferred", b"451 a\r\n503 b\r\n503 c\r\n503 d\r\n", [451, 451], b""),
    ("all refused", NOBODY + b"554 d\r\n", [550, 551], b""),
    ("all refused, 354", NOBODY + b"354 d\r\n554 e\r\n", [550, 551], b".\r\n"),
    ("all refused, 354, 250", NOBODY + b"354 d\r\n250 e\r\n", [550, 551], b".\r\n"),
    ("data refused", b"250 a\r\n250 b\r\n551 c\r\n452 d\r\n", [452, 551], b""),
    ("data refused for good", b"250 a\r\n250 b\r\n250 c\r\n554 d\r\n", [554, 554], b""),
]


@pytest.mark.parametrize(
    ("said", "codes", "sent"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_refusals_ahead_of_content(said: bytes, codes: list[int], sent: bytes) -> None:
    client = ready()
    client.submit(to("x", "y"))
    client.data_to_send()
    client.receive(said)
    assert told(client) == [codes]
    assert client.data_to_send() == sent
    assert client.is_idle
    client.submit(to("z"))
    again = client.data_to_send()
    if client.state is State.READY:
        assert again.startswith(b"MAIL ")
    else:
        assert again == b"RSET\r\n"
        client.receive(b"250 ok\r\n")
        assert client.data_to_send().startswith(b"MAIL ")


def test_the_next_transaction_does_not_wait_for_the_last_reply() -> None:
    client = ready()
    first = client.submit(to("x"))
    client.receive(b"250 a\r\n250 b\r\n354 c\r\n")
    client.data_to_send()
    second = client.submit(to("y"))
    assert client.data_to_send() == b""
    client.end_body()
    assert client.data_to_send() == (
        b".\r\nMAIL From:<a@c.example>\r\nRCPT To:<y@mx.example>\r\nDATA\r\n"
    )
    client.receive(b"250 1\r\n250 2\r\n250 3\r\n354 4\r\n")
    kinds = events(client)
    assert kinds[0] == BodyWanted(first)
    assert isinstance(kinds[1], TransactionDone)
    assert kinds[2] == BodyWanted(second)
    client.end_body()
    client.receive(b"552 full\r\n")
    assert told(client) == [[552]]


def test_ten_thousand_recipients_are_sent_as_the_replies_come() -> None:
    client = ready()
    client.submit(to(*(f"u{i}" for i in range(10_000))))
    outstanding = client.data_to_send().count(b"\r\n")
    assert outstanding == PIPELINE_MAX
    sent = outstanding
    while client.state is not State.DATA:
        client.receive(b"250 ok\r\n" * outstanding if sent < 10_002 else b"354 go\r\n")
        outstanding = client.data_to_send().count(b"\r\n")
        assert outstanding <= PIPELINE_MAX
        sent += outstanding
        if sent == 10_002 and outstanding:
            client.receive(b"250 ok\r\n" * (outstanding - 1))
    client.end_body()
    client.receive(b"250 ok\r\n")
    assert told(client) == [[250] * 10_000]


def test_what_cannot_be_said_is_refused_here() -> None:
    client = ready()
    client.submit(
        Transaction(
            SENDER,
            (
                Address("ü", "mx.example"),
                Address("x", "mx.example"),
                Address("x", "mx.example>\r\nRSET"),
                Address("x\r\ny", "mx.example"),
            ),
        )
    )
    assert client.data_to_send().count(b"\r\n") == 3
    client.receive(b"250 a\r\n250 b\r\n354 c\r\n")
    client.end_body()
    client.receive(b"250 ok\r\n")
    assert told(client) == [[553, 250, 553, 553]]
    client.data_to_send()
    client.submit(Transaction(Address("ü", "c.example"), (SENDER,)))
    assert client.data_to_send() == b""
    assert told(client) == [[553]]


def test_bare_line_ends_never_leave() -> None:
    client = ready()
    client.submit(to("x"))
    client.receive(b"250 a\r\n250 b\r\n354 c\r\n")
    client.data_to_send()
    for piece in (b"a\nb\r", b"\n.c\r", b".\n", b".", b"\r\n.\n.\r"):
        client.send_body(piece)
    client.end_body()
    assert client.data_to_send() == (b"a\r\nb\r\n..c\r\n..\r\n..\r\n..\r\n..\r\n.\r\n")


def test_narration_masks_secrets_and_controls() -> None:
    client = ready(narrate=True)
    client.auth("PLAIN", b"\0me\0secret")
    client.receive(b"334 \r\n")
    client.respond(b"secret")
    client.receive(b"235-a\x1b[2J\r\n235 ok\r\n")
    client.submit(to("x"))
    client.receive(b"250 a\r\n250 b\r\n354 c\r\n")
    client.end_body()
    client.quit()
    lines = [
        (">>> " if e.outgoing else "") + e.text
        for e in events(client)
        if isinstance(e, Line)
    ]
    assert lines == [
        ">>> AUTH PLAIN ***",
        "334 ",
        ">>> ***",
        "235-a?[2J",
        "235 ok",
        ">>> MAIL From:<a@c.example>",
        ">>> RCPT To:<x@mx.example>",
        ">>> DATA",
        "250 a",
        "250 b",
        "354 c",
        ">>> .",
        ">>> QUIT",
    ]


def test_quit() -> None:
    client = ready()
    client.quit()
    assert client.data_to_send() == b"QUIT\r\n"
    client.submit(to("late"))
    assert client.data_to_send() == b""
    client.receive(b"221 bye\r\n")
    answered, done, lost = events(client)
    assert isinstance(answered, Answered)
    assert isinstance(done, TransactionDone)
    assert done.results == (None,)
    assert isinstance(lost, LostConnection)


def test_noop_and_reset_are_answered() -> None:
    client = ready()
    client.noop()
    client.reset()
    client.receive(b"250 a\r\n500 b\r\n")
    verbs = [e.verb for e in events(client) if isinstance(e, Answered)]
    assert verbs == [Verb.NOOP, Verb.RSET]


def test_a_refused_rset_gives_the_connection_up() -> None:
    """Without it the next MAIL would be a bad sequence, told to senders as final."""
    client = ready(PLAIN)
    client.submit(to("x"))
    client.submit(to("y"))
    client.receive(b"250 ok\r\n")
    client.receive(b"550 no\r\n")
    client.receive(b"502 no RSET here\r\n")
    assert told(client) == [[550], [None]]
    assert client.is_closed


def test_starttls() -> None:
    client = ready(b"250-mx\r\n250 STARTTLS\r\n")
    client.start_tls()
    client.receive(b"220 go\r\n")
    (answered,) = events(client)
    assert isinstance(answered, Answered)
    client.data_to_send()
    client.tls_started()
    assert client.state is State.START
    assert not client.extensions.starttls
    client.send_hello()
    assert client.data_to_send() == b"EHLO c.example\r\n"


@pytest.mark.parametrize("lmtp", [False, True])
@pytest.mark.parametrize(
    "ahead", [b"250 injected\r\n", b"250-inj", b"250-mx\r\n250 AUTH PLAIN\r\n"]
)
def test_replies_ahead_of_the_handshake_are_discarded(ahead: bytes, lmtp: bool) -> None:
    client = ready(b"250-mx\r\n250 STARTTLS\r\n", lmtp=lmtp)
    client.start_tls()
    client.receive(b"220 go\r\n" + ahead)
    (answered,) = events(client)
    assert isinstance(answered, Answered)
    assert client.discarded_octets == len(ahead)
    client.data_to_send()
    client.tls_started()
    client.send_hello()
    client.receive(b"250 mx\r\n")
    (hello,) = events(client)
    assert isinstance(hello, HelloDone)
    assert hello.extensions.keywords == {}


def test_calls_out_of_place_are_our_bug() -> None:
    client = ready()
    with pytest.raises(LocalProtocolError):
        client.send_body(b"x")
    with pytest.raises(LocalProtocolError):
        client.end_body()
    with pytest.raises(LocalProtocolError):
        client.tls_started()


@pytest.mark.parametrize(
    ("line", "code", "status", "lines"),
    [
        (b"250", 250, "", ("",)),
        (b"250 ", 250, "", ("",)),
        (b"250 2.0.0", 250, "2.0.0", ("",)),
        (b"250 2.0.0 ok", 250, "2.0.0", ("ok",)),
        (b"550 2.0.0 odd", 550, "", ("2.0.0 odd",)),
        (b"250 2.0.0ok", 250, "", ("2.0.0ok",)),
        (b"550 5.7.1234 x", 550, "", ("5.7.1234 x",)),
        (b"250 gr\xfc\xdfe", 250, "", ("gr\ufffd\ufffde",)),
        (b"250 a\nb\tc", 250, "", ("a?b?c",)),
    ],
)
def test_reading_replies(
    line: bytes, code: int, status: str, lines: tuple[str, ...]
) -> None:
    reply = replies.ReplyReader(10).read(line)
    assert not isinstance(reply, str)
    assert reply is not None
    assert (reply.code, reply.status, reply.lines) == (code, status, lines)
