"""What the client makes of extensions: parameters said, content in chunks, PRDR."""

from collections.abc import Sequence

import msgspec
import pytest

from postroom.mail.address import Address
from postroom.smtp.chunk_writer import CHUNK_OCTETS
from postroom.smtp.client import BodyWanted, ClientConnection, LostConnection
from postroom.smtp.dialogue import State, Verb
from postroom.smtp.transaction import Transaction, TransactionDone, Wish
from postroom.testing.ready_client import SENDER, events, ready, to, told

ALL = (
    "PIPELINING",
    "8BITMIME",
    "SIZE",
    "DSN",
    "CHUNKING",
    "BINARYMIME",
    "SMTPUTF8",
    "DELIVERBY",
    "MT-PRIORITY",
    "REQUIRETLS",
    "PRDR",
)
UMLAUT = Address("jürgen", "mx.example")
ASCII = Address("joe", "mx.example")


def offering(*keywords: str, lmtp: bool = False) -> ClientConnection:
    lines = ["mx.example", *keywords]
    text = "".join(f"250-{line}\r\n" for line in lines[:-1]) + f"250 {lines[-1]}\r\n"
    return ready(text.encode(), lmtp=lmtp)


def said(client: ClientConnection) -> list[str]:
    return client.data_to_send().decode().split("\r\n")[:-1]


def done(client: ClientConnection) -> TransactionDone:
    (found,) = [e for e in events(client) if isinstance(e, TransactionDone)]
    return found


# -- parameters of MAIL ---------------------------------------------------------

_RICH = Transaction(
    SENDER,
    (ASCII,),
    size_octets=7,
    eight_bit=True,
    ret="HDRS",
    envid="e1",
    utf8=True,
    requiretls=True,
    by="60;R",
    priority=-3,
)


def test_all_that_is_offered_is_said() -> None:
    client = offering(*ALL)
    client.submit(_RICH)
    assert said(client)[0] == (
        "MAIL From:<a@c.example> SIZE=7 BODY=8BITMIME RET=HDRS ENVID=e1 SMTPUTF8"
        " REQUIRETLS BY=60;R MT-PRIORITY=-3"
    )


@pytest.mark.parametrize(
    ("changes", "keyword", "words"),
    [
        ({"by": "-5;N"}, "DELIVERBY 60", " BY=-5;N"),
        ({"by": "5;NT"}, "DELIVERBY", " BY=5;NT"),
        ({"priority": 4}, "MT-PRIORITY MIXER", " MT-PRIORITY=4"),
        ({"eight_bit": True}, "8BITMIME", " BODY=8BITMIME"),
        ({"size_octets": 9}, "SIZE 100", " SIZE=9"),
        ({"envid": "x"}, "DSN", " ENVID=x"),
    ],
)
def test_what_is_not_offered_is_left_out(
    changes: dict[str, object], keyword: str, words: str
) -> None:
    value = msgspec.structs.replace(to("x"), **changes)
    for offers, line in ((("X-NO",), ""), ((keyword,), words)):
        client = offering(*offers)
        client.submit(value)
        assert said(client) == [f"MAIL From:<a@c.example>{line}"]


@pytest.mark.parametrize(
    ("value", "offers", "status"),
    [
        ({"requiretls": True}, (), "5.7.30"),
        ({"requiretls": True}, ("STARTTLS",), "5.7.30"),
        ({"binary": True}, ("8BITMIME", "PIPELINING"), "5.6.1"),
        ({"binary": True}, ("BINARYMIME", "PIPELINING"), "5.6.1"),
        ({"binary": True}, ("BINARYMIME", "CHUNKING"), "5.6.1"),
        ({"utf8": True}, ("8BITMIME",), "5.6.7"),
        ({"by": "5;R"}, ("8BITMIME",), "5.3.3"),
        ({"by": "5;R"}, ("DELIVERBY 6",), "5.3.3"),
        ({"by": "5;rt"}, ("DELIVERBY 6",), "5.3.3"),
    ],
)
def test_what_a_server_may_not_get(
    value: dict[str, object], offers: Sequence[str], status: str
) -> None:
    client = offering(*offers, "X-LAST")
    client.submit(msgspec.structs.replace(to("x", "y"), **value))
    assert client.data_to_send() == b""
    over = done(client)
    assert [r and r.status for r in over.results] == [status] * 2
    assert over.verbs == (None, None)  # the server was not asked
    assert client.is_idle


@pytest.mark.parametrize("offer", ["DELIVERBY", "DELIVERBY 5", "DELIVERBY 5,x", "X"])
def test_a_promised_time_that_is_short_enough(offer: str) -> None:
    client = offering(offer)
    client.submit(msgspec.structs.replace(to("x"), by="5;N" if offer == "X" else "5;R"))
    by = "" if offer == "X" else " BY=5;R"
    assert said(client) == [f"MAIL From:<a@c.example>{by}"]


# -- SMTPUTF8 -----------------------------------------------------------------------


def test_smtputf8_is_said_only_where_it_is_needed() -> None:
    for value, needed in (
        (Transaction(SENDER, (ASCII,)), False),
        (Transaction(SENDER, (ASCII, UMLAUT)), True),
        (Transaction(UMLAUT, (ASCII,)), True),
        (Transaction(SENDER, (ASCII,), utf8=True), True),
    ):
        client = offering("SMTPUTF8", "PIPELINING")
        client.submit(value)
        assert said(client)[0].endswith(" SMTPUTF8") is needed


def test_utf8_addresses_go_out_as_utf8() -> None:
    client = offering("SMTPUTF8", "PIPELINING")
    client.submit(Transaction(UMLAUT, (UMLAUT, Address("a\u200bb", "bücher.example"))))
    assert said(client) == [
        "MAIL From:<jürgen@mx.example> SMTPUTF8",
        "RCPT To:<jürgen@mx.example>",
        "RCPT To:<a\u200bb@bücher.example>",
        "DATA",
    ]


def test_only_the_recipients_outside_ascii_suffer() -> None:
    client = offering("PIPELINING")
    client.submit(Transaction(SENDER, (UMLAUT, ASCII)))
    assert said(client)[1:] == ["RCPT To:<joe@mx.example>", "DATA"]
    client.receive(b"250 ok\r\n250 ok\r\n354 go\r\n")
    client.end_body()
    client.receive(b"250 ok\r\n")
    over = done(client)
    assert [r and (r.code, r.status) for r in over.results] == [
        (553, "5.6.7"),
        (250, ""),
    ]
    assert over.verbs == (None, Verb.CONTENT)


def test_orcpt_outside_ascii_is_left_out() -> None:
    client = offering("DSN", "PIPELINING")
    wishes = (Wish("NEVER", "utf-8;jürgen@x"),)
    client.submit(Transaction(SENDER, (ASCII,), wishes=wishes))
    assert said(client)[1] == "RCPT To:<joe@mx.example> NOTIFY=NEVER"


# -- LIMITS ---------------------------------------------------------------------


def domains(*names: str) -> Transaction:
    return Transaction(SENDER, tuple(Address("u", name) for name in names))


@pytest.mark.parametrize(
    ("limits", "value", "named"),
    [
        ("RCPTMAX=2", domains("a", "b", "c", "a"), (0, 1)),
        ("RCPTDOMAINMAX=1", domains("a", "b", "A.", "a"), (0, 2, 3)),
        ("RCPTDOMAINMAX=2 RCPTMAX=3", domains("a", "b", "c", "b", "a"), (0, 1, 3)),
        ("rcptmax=1", domains("a", "b"), (0,)),
        ("RCPTMAX=0", domains("a", "b"), (0, 1)),
        ("RCPTMAX=x RCPTMAXX=1 XRCPTMAX=1", domains("a", "b"), (0, 1)),
        ("MAILMAX=1", domains("a", "b"), (0, 1)),
    ],
)
def test_limits_are_kept(
    limits: str, value: Transaction, named: tuple[int, ...]
) -> None:
    client = offering("PIPELINING", f"LIMITS {limits}")
    client.submit(value)
    lines = said(client)
    kept = [f"RCPT To:<{value.recipients[i].to_text()}>" for i in named]
    assert [line for line in lines if line.startswith("RCPT")] == kept
    client.receive(b"250 ok\r\n" * (len(kept) + 1) + b"354 go\r\n")
    client.end_body()
    client.receive(b"250 ok\r\n")
    left = [r.status for r in done(client).results if r and r.code == 452]
    assert left == ["4.5.3"] * (len(value.recipients) - len(kept))


def test_limits_that_are_told() -> None:
    offered = offering("LIMITS RCPTMAX=20 MAILMAX=5 RCPTDOMAINMAX=1").extensions
    assert offered.recipients_max == 20
    assert offered.messages_max == 5
    assert offered.recipient_domains_max == 1
    assert offering("PIPELINING").extensions.messages_max == 0


# -- chunks -------------------------------------------------------------------------


def in_chunks(*names: str, binary: bool = False) -> Transaction:
    return msgspec.structs.replace(to(*names), chunked=True, binary=binary)


CHUNKY = ("PIPELINING", "CHUNKING", "BINARYMIME")


def begun(
    value: Transaction, replies: bytes, *, lmtp: bool = False
) -> ClientConnection:
    client = offering(*CHUNKY, lmtp=lmtp)
    client.submit(value)
    assert not any(line.startswith(("DATA", "BDAT")) for line in said(client))
    client.receive(replies)
    assert events(client) == [BodyWanted(1)]
    return client


def test_content_in_one_chunk() -> None:
    client = begun(in_chunks("x", "y"), b"250 ok\r\n250 ok\r\n550 no\r\n")
    client.send_body(b"Subject: x\r\n\r\n")
    assert client.data_to_send() == b""
    client.send_body(b".\r\n..\r\na\nb\rc")
    client.end_body()
    body = b"Subject: x\r\n\r\n.\r\n..\r\na\r\nb\r\nc\r\n"
    assert client.data_to_send() == b"BDAT %d LAST\r\n" % len(body) + body
    client.submit(to("z"))
    assert client.data_to_send() == b""  # RSET might be due first
    client.receive(b"250 taken\r\n")
    assert told(client) == [[250, 550]]
    assert client.data_to_send().startswith(b"MAIL")


def test_binary_content_is_not_touched() -> None:
    client = offering(*CHUNKY)
    client.submit(in_chunks("x", binary=True))
    assert said(client)[0] == "MAIL From:<a@c.example> BODY=BINARYMIME"
    client.receive(b"250 ok\r\n250 ok\r\n")
    client.send_body(b"a\rb\nc\0\r")
    client.end_body()
    assert client.data_to_send() == b"BDAT 7 LAST\r\na\rb\nc\0\r"


@pytest.mark.parametrize("offers", [("PIPELINING", "X"), ("CHUNKING", "X")])
def test_no_chunks_without_chunking_and_pipelining(offers: tuple[str, ...]) -> None:
    client = offering(*offers)
    client.submit(in_chunks("x"))
    lines = said(client)
    while len(lines) < 3:
        client.receive(b"250 ok\r\n")
        lines += said(client)
    assert lines[-1] == "DATA"


def test_large_content_comes_in_many_chunks_ahead_of_replies() -> None:
    client = begun(in_chunks("x"), b"250 ok\r\n250 ok\r\n")
    line = b"x" * 98 + b"\r\n"
    piece = line * (CHUNK_OCTETS // 100 + 1)
    for _ in range(3):
        client.send_body(piece)
    client.end_body()
    octets = client.data_to_send()
    assert octets.count(b"BDAT %d\r\n" % len(piece)) == 3
    assert octets.endswith(b"BDAT 0 LAST\r\n")
    client.receive(b"250 a\r\n250 b\r\n250 c\r\n")
    assert not events(client)
    client.receive(b"250 taken\r\n")
    assert told(client) == [[250]]
    assert client.is_idle


def test_so_many_chunks_that_their_replies_can_wait() -> None:
    size = 1024 * 1024 * 1024
    value = msgspec.structs.replace(in_chunks("x"), size_octets=size)
    client = begun(value, b"250 ok\r\n250 ok\r\n")
    piece = b"x" * 1022 + b"\r\n"
    sent = 0
    while sent < 21 * 1024 * 1024:
        client.send_body(piece * 1024)
        sent += 1024 * 1024
    assert client.data_to_send().count(b"BDAT ") == 3  # of over 5 MiB each


@pytest.mark.parametrize("late", [False, True], ids=["while-sending", "after-the-end"])
def test_a_chunk_is_refused(late: bool) -> None:
    client = begun(in_chunks("x", "y"), b"250 ok\r\n250 ok\r\n550 no\r\n")
    client.send_body(b"x" * CHUNK_OCTETS)
    client.data_to_send()
    if late:
        client.end_body()
        assert client.data_to_send().endswith(b"BDAT 2 LAST\r\n\r\n")
    client.receive(b"552 5.3.4 too much\r\n")
    assert client.content_is_refused is not late
    if late:
        client.submit(to("z"))
        assert client.data_to_send() == b""
        client.receive(b"503 5.5.1 no\r\n")
    else:
        client.send_body(b"more")
        client.end_body()
        client.submit(to("z"))
    assert told(client) == [[552, 550]]
    # RFC 3030 §2: RSET must clear it
    assert client.data_to_send() == b"RSET\r\n"
    client.receive(b"250 ok\r\n")
    assert client.data_to_send().startswith(b"MAIL")


def test_rset_after_a_refused_last_chunk() -> None:
    client = begun(in_chunks("x"), b"250 ok\r\n250 ok\r\n")
    client.end_body()
    client.receive(b"451 later\r\n")
    assert told(client) == [[451]]
    client.data_to_send()
    client.submit(to("z"))
    assert client.data_to_send() == b"RSET\r\n"


def test_a_reply_ahead_of_its_chunk_is_none_to_another() -> None:
    """Else the reply to the last chunk but one would be taken for that to the last."""
    client = begun(in_chunks("x"), b"250 ok\r\n250 ok\r\n")
    client.send_body(b"x" * 10)
    client.receive(b"250 what\r\n")
    client.send_body(b"x" * CHUNK_OCTETS)
    client.end_body()
    client.receive(b"250 the first chunk\r\n")
    assert told(client) == [[None]]
    assert client.is_closed


def test_chunks_in_lmtp() -> None:
    client = begun(in_chunks("x", "y"), b"250 ok\r\n250 a\r\n250 b\r\n", lmtp=True)
    client.end_body()
    client.receive(b"250 x taken\r\n")
    assert not events(client)
    client.receive(b"452 4.2.2 y full\r\n")
    assert told(client) == [[250, 452]]
    assert client.state is State.READY


def test_a_refused_chunk_ends_lmtp() -> None:
    client = begun(in_chunks("x", "y"), b"250 ok\r\n250 a\r\n250 b\r\n", lmtp=True)
    client.send_body(b"x" * CHUNK_OCTETS)
    client.receive(b"452 4.3.1 full\r\n")
    assert told(client) == [[452, 452]]
    assert client.is_closed
    client.send_body(b"more")
    client.end_body()


def test_no_recipient_no_chunk() -> None:
    client = offering(*CHUNKY)
    client.submit(in_chunks("x"))
    said(client)
    client.receive(b"250 ok\r\n550 no\r\n")
    assert told(client) == [[550]]
    client.submit(to("y"))
    assert said(client) == ["RSET"]


@pytest.mark.parametrize(
    ("replies", "results"),
    [
        (b"", [None]),
        (b"250 ok\r\n", [None]),
        (b"451 no\r\n", [451]),
        (b"250 ok\r\n250 taken\r\n", [250]),
        (b"421 bye\r\n", [421]),
        (b"250 ok\r\n421 bye\r\n", [421]),
    ],
)
def test_drops_between_chunks(replies: bytes, results: list[int | None]) -> None:
    client = begun(in_chunks("x"), b"250 ok\r\n250 ok\r\n")
    client.send_body(b"x" * CHUNK_OCTETS)
    client.end_body()
    client.receive(replies)
    client.receive(b"")
    assert told(client) == [results]


# -- PRDR -----------------------------------------------------------------------------


def prdr(*names: str) -> ClientConnection:
    client = offering("PIPELINING", "PRDR")
    client.submit(to(*names))
    asked = len(names) > 1
    assert said(client)[0].endswith(" PRDR") is asked
    client.receive(b"250 ok\r\n" * (len(names) + 1) + b"354 go\r\n")
    client.end_body()
    client.data_to_send()
    events(client)
    return client


@pytest.mark.parametrize(
    ("replies", "results"),
    [
        (b"353 now\r\n250 x\r\n250 y\r\n250 all\r\n", ["x", "y"]),
        (b"353 now\r\n250 x\r\n550 y\r\n250 some\r\n", ["x", "y"]),
        (b"353 now\r\n450 x\r\n550 y\r\n550 none\r\n", ["x", "y"]),
        (b"353 now\r\n250 x\r\n550 y\r\n451 broken\r\n", ["broken", "y"]),
        (b"250 all alike\r\n", ["all alike"] * 2),
        (b"554 all alike\r\n", ["all alike"] * 2),
        (b"353 now\r\n250 x\r\n", [None, None]),
        (b"353 now\r\n550 x\r\n", ["x", None]),
        (b"353 now\r\n250 x\r\n250 y\r\n", [None, None]),
        (b"353 now\r\n550 x\r\n421 bye\r\n", ["x", "bye"]),
        (b"353 now\r\n250 x\r\n421 bye\r\n", ["bye", "bye"]),
        (b"", [None, None]),
    ],
)
def test_replies_for_each_recipient(replies: bytes, results: list[str | None]) -> None:
    client = prdr("x", "y")
    client.receive(replies)
    client.receive(b"")
    assert [r and r.text for r in done(client).results] == results


def test_prdr_and_the_next_transaction_already_on_its_way() -> None:
    client = prdr("x", "y")
    client.submit(to("z"))
    assert said(client) == ["MAIL From:<a@c.example>", "RCPT To:<z@mx.example>", "DATA"]
    client.receive(b"353 now\r\n250 x\r\n550 y\r\n250 some\r\n250 ok\r\n250 z\r\n")
    assert told(client) == [[250, 550]]
    client.receive(b"354 go\r\n")
    assert events(client) == [BodyWanted(2)]


def test_353_that_was_not_asked_for() -> None:
    client = prdr("x")
    client.receive(b"353 now\r\n")
    last = events(client)[-1]
    assert isinstance(last, LostConnection)
    assert client.is_closed


def test_prdr_behind_chunks() -> None:
    client = offering("PIPELINING", "PRDR", "CHUNKING")
    client.submit(in_chunks("x", "y"))
    client.receive(b"250 ok\r\n" * 3)
    client.end_body()
    client.receive(b"353 now\r\n250 x\r\n452 y\r\n250 some\r\n")
    assert told(client) == [[250, 452]]
    assert client.state is State.READY


def test_no_prdr_in_lmtp() -> None:
    client = offering("PIPELINING", "PRDR", lmtp=True)
    client.submit(to("x", "y"))
    assert said(client)[0] == "MAIL From:<a@c.example>"
