"""The client connection and servers that break off, talk nonsense, or want LMTP."""

import pytest

from postroom.smtp.client import (
    PIPELINE_MAX,
    ClientConnection,
    Greeting,
    LostConnection,
    ProtocolError,
)
from postroom.smtp.transaction import (
    KEPT_CHARS_MAX,
    KEPT_LINES_MAX,
    TransactionDone,
)
from postroom.testing.ready_client import (
    events,
    ready,
    to,
    told,
)

CONTENT = b"250 a\r\n250 b\r\n250 c\r\n354 d\r\n"
LOSSES: list[tuple[str, bytes, bool, list[int | None]]] = [
    ("before MAIL", b"", False, [None, None]),
    ("after MAIL", b"250 a\r\n", False, [None, None]),
    ("amid RCPT", b"250 a\r\n550 b\r\n", False, [550, None]),
    ("amid a line", b"250 a\r\n550 b\r\n550", False, [550, None]),
    ("after MAIL refused", b"550 a\r\n", False, [550, 550]),
    ("before 354", b"250 a\r\n250 b\r\n550 c\r\n", False, [None, 550]),
    ("before the end", b"250 a\r\n250 b\r\n550 c\r\n354 d\r\n", False, [None, 550]),
    ("before the reply", b"250 a\r\n250 b\r\n550 c\r\n354 d\r\n", True, [None, 550]),
    ("421 to MAIL", b"421 a\r\n", False, [421, 421]),
    ("421 amid RCPT", b"250 a\r\n550 b\r\n421 c\r\n", False, [550, 421]),
    ("421 after RCPT", b"250 a\r\n250 b\r\n421 c\r\n", False, [421, 421]),
    ("421 to DATA", b"250 a\r\n250 b\r\n550 c\r\n421 d\r\n", False, [421, 550]),
    ("421 in content", CONTENT + b"421 e\r\n", False, [421, 421]),
    ("552 in content", CONTENT + b"552 e\r\n", False, [552, 552]),
    ("250 in content", CONTENT + b"250 e\r\n", False, [None, None]),
    ("nothing to content", CONTENT, True, [None, None]),
]


@pytest.mark.parametrize(
    ("said", "ends", "codes"), [c[1:] for c in LOSSES], ids=[c[0] for c in LOSSES]
)
def test_a_lost_connection_has_a_result_for_each(
    said: bytes, ends: bool, codes: list[int | None]
) -> None:
    client = ready()
    client.submit(to("x", "y"))
    client.submit(to("z"))
    client.receive(said)
    if ends:
        client.end_body()
    client.receive(b"")
    got = events(client)
    done = [e for e in got if isinstance(e, TransactionDone)]
    assert [d.number for d in done] == [1, 2]
    assert [r.code if r else None for r in done[0].results] == codes
    assert len(done[1].results) == 1
    assert isinstance(got[-1], LostConnection)
    assert client.is_closed
    assert client.next_event() is None
    client.send_body(b"x")
    client.end_body()
    client.quit()
    client.receive(b"250 late\r\n")
    client.submit(to("late"))
    assert told(client) == [[None]]


NONSENSE = [
    b"hello\r\n",
    b"\r\n",
    b"25 ok\r\n",
    b"2500 ok\r\n",
    b"099 ok\r\n",
    b"150 wait\r\n",
    b"650 what\r\n",
    b"354 already\r\n",
    b"250-a\r\n550 b\r\n",
    b"250-" + b"x" * 10_000 + b"\r\n",
    b"\0\0\0\0\r\n",
    b"HTTP/1.1 400 Bad Request\r\n",
]


@pytest.mark.parametrize("nonsense", NONSENSE)
@pytest.mark.parametrize("before", [0, 1, 2, 3, 4])
def test_nonsense_is_told_and_defers(before: int, nonsense: bytes) -> None:
    client = ready()
    client.submit(to("x"))
    for reply in (b"250 a\r\n", b"250 b\r\n", b"354 c\r\n", None)[:before]:
        if reply:
            client.receive(reply)
        else:
            client.end_body()
    if before == 2 and nonsense.startswith(b"354"):
        return  # just what is due there
    client.receive(nonsense)
    if before == 3:
        client.end_body()
    got = events(client)
    assert isinstance(got[-1], LostConnection)
    assert isinstance(got[-3], ProtocolError)
    assert isinstance(got[-2], TransactionDone)
    assert got[-2].results == (None,)


@pytest.mark.parametrize(
    "said",
    [
        b"550 a\r\n250 b\r\n",  # RCPT accepted without MAIL
        b"550 a\r\n503 b\r\n354 c\r\n",  # content wanted without MAIL
        b"250 a\r\n250 b\r\n250 c\r\n",  # DATA done before its content
    ],
)
def test_an_impossible_success_is_nonsense(said: bytes) -> None:
    client = ready()
    client.submit(to("x"))
    client.receive(said)
    assert any(isinstance(e, ProtocolError) for e in events(client))


@pytest.mark.parametrize(
    ("code", "first"),
    [(b"211", 250), (b"259", 250), (b"499", 450), (b"599", 550), (b"500", 550)],
)
def test_only_the_first_digit_counts(code: bytes, first: int) -> None:
    client = ready()
    client.submit(to("x"))
    client.receive(b"299 a\r\n234 b\r\n399 c\r\n")
    client.end_body()
    client.receive(code + b"\r\n")
    ((got,),) = told(client)
    assert got == int(code)
    assert got // 100 == first // 100
    assert not client.is_closed


def test_an_early_reply_is_seen_and_used() -> None:
    client = ready()
    client.submit(to("x"))
    client.receive(b"250 a\r\n250 b\r\n354 c\r\n")
    client.send_body(b"x")
    client.receive(b"552 too much\r\n")
    assert client.early_reply is not None
    client.end_body()
    assert client.early_reply is None
    assert told(client) == [[552]]
    assert not client.is_closed


def test_replies_amid_the_content_are_bounded() -> None:
    client = ready()
    client.submit(to("x"))
    client.receive(b"250 a\r\n250 b\r\n354 c\r\n")
    client.receive(b"552 too much\r\n" * 10_000)
    assert any(isinstance(e, ProtocolError) for e in events(client))
    assert client.is_closed


def test_a_busy_server_greets_with_421() -> None:
    client = ClientConnection("c.example")
    client.submit(to("x"))
    client.receive(b"421 too busy\r\n")
    greeting, done, lost = events(client)
    assert isinstance(greeting, Greeting)
    assert isinstance(done, TransactionDone)
    assert [r and r.code for r in done.results] == [421]
    assert isinstance(lost, LostConnection)


def test_a_refusing_server_is_left() -> None:
    client = ClientConnection("c.example")
    client.submit(to("x"))
    client.receive(b"554 no service\r\n")
    client.quit()
    assert client.data_to_send() == b"QUIT\r\n"
    client.receive(b"221 bye\r\n")
    assert told(client) == [[None]]


def test_a_refused_sender_spares_the_rest_of_a_long_list() -> None:
    client = ready()
    client.submit(to(*(f"u{i}" for i in range(1000))))
    client.submit(to("z"))
    assert client.data_to_send().count(b"\r\n") == PIPELINE_MAX
    client.receive(b"550 no\r\n")
    assert client.data_to_send() == b""
    client.receive(b"503 no\r\n" * (PIPELINE_MAX - 1))
    assert told(client) == [[550] * 1000]
    assert client.data_to_send().startswith(b"MAIL ")


def test_what_is_said_of_each_of_many_is_bounded() -> None:
    """A thousand recipients with 100 KiB each were 100 MB in memory."""
    client = ready()
    client.submit(to("x", "y"))
    long = b"".join(b"550-5.1.1 %d %b\r\n" % (i, b"z" * 1_000) for i in range(99))
    client.receive(b"250 a\r\n" + long + b"550 5.1.1 end\r\n550 5.1.1 short\r\n")
    client.receive(b"503 no\r\n")
    (done,) = [e for e in events(client) if isinstance(e, TransactionDone)]
    first, second = done.results
    assert first is not None
    assert (first.code, first.status) == (550, "5.1.1")
    assert len(first.lines) == KEPT_LINES_MAX
    assert {len(line) for line in first.lines} == {KEPT_CHARS_MAX}
    assert first.lines[0].startswith("0 zz")
    assert second is not None
    assert second.lines == ("short",)


def test_an_idle_server_says_421() -> None:
    client = ready()
    client.receive(b"421 4.4.2 idle too long\r\n")
    (lost,) = events(client)
    assert isinstance(lost, LostConnection)
    assert lost.reply is not None
    assert lost.reply.status == "4.4.2"


def test_lmtp_has_a_reply_for_each() -> None:
    client = ready(b"250-mx\r\n250 PIPELINING\r\n", lmtp=True)
    client.submit(to("x", "y", "z"))
    client.receive(b"250 a\r\n250 b\r\n550 c\r\n250 d\r\n354 e\r\n")
    client.end_body()
    client.submit(to("w"))
    client.receive(b"250 x is in\r\n")
    assert told(client) == []
    client.receive(b"452 z is full\r\n250 MAIL\r\n")
    assert told(client) == [[250, 550, 452]]
    client.receive(b"250 a\r\n354 b\r\n")
    client.end_body()
    client.receive(b"")
    assert told(client) == [[None]]


def test_lmtp_dropped_between_replies() -> None:
    client = ready(b"250-mx\r\n250 PIPELINING\r\n", lmtp=True)
    client.submit(to("x", "y", "z"))
    client.receive(b"250 a\r\n250 b\r\n250 c\r\n250 d\r\n354 e\r\n")
    client.end_body()
    client.receive(b"250 x\r\n")
    client.receive(b"")
    assert told(client) == [[250, None, None]]


def test_lmtp_wants_no_content_for_nobody() -> None:
    client = ready(b"250-mx\r\n250 PIPELINING\r\n", lmtp=True)
    client.submit(to("x"))
    client.receive(b"250 a\r\n550 b\r\n354 c\r\n")
    assert any(isinstance(e, ProtocolError) for e in events(client))


@pytest.mark.parametrize("said", [b"354 x\r\n", b"250 a\r\n354 b\r\n"])
def test_lmtp_nonsense_amid_the_replies(said: bytes) -> None:
    client = ready(b"250-mx\r\n250 PIPELINING\r\n", lmtp=True)
    client.submit(to("x", "y"))
    client.receive(b"250 a\r\n250 b\r\n250 c\r\n354 d\r\n")
    client.end_body()
    client.receive(said)
    assert None in told(client)[0]
    assert client.is_closed
