"""A letter's header is made whole, and nothing else in it changes."""

import pytest

from postroom.mail.address import NULL_SENDER, Address
from postroom.mail.completion import (
    Author,
    complete_header,
    display_name,
    header_recipients,
)

BETTY = Author(Address("betty", "gonzo.test"), "Betty Boop", "gonzo.test")
ALL = b"Date: d\r\nFrom: a@x.test\r\nMessage-Id: <1@x>\r\n"


def completed(header: bytes, author: Author = BETTY) -> bytes:
    return complete_header(header, author, date="DATE", message_id="<ID@gonzo.test>")


def test_all_is_missing() -> None:
    assert completed(b"") == (
        b"Date: DATE\r\nFrom: Betty Boop <betty@gonzo.test>\r\n"
        b"Message-Id: <ID@gonzo.test>\r\n"
    )


KEPT = {
    "all there": ALL,
    "other case": b"dATE: d\r\nfROM: a@x.test\r\nmESSAGE-iD: <1@x>\r\n",
    "bad id": b"Date: d\r\nFrom: a@x.test\r\nMessage-Id: not an id\r\n",
    "no blank, no value": ALL + b"Subject:s\r\nX-A:\r\nX-B: \r\n",
    "octets and nul": ALL + b"Subject: \xe9\x00\r\n",
    "folded": ALL + b"To: joe@x.test,\r\n\tbob@x.test\r\n",
    "second from": ALL + b"From: b@x.test\r\n",
    "not understood": ALL + b'To: joe; bob\r\nCc: "joe\r\n',
    "uucp": ALL + b"Sender: hosta!hostb!user\r\n",
    "blank in from": ALL + b"Reply-To: john smith@x.test\r\n",
    "latin-1 name": ALL + b"To: Ren\xe9 <r@x.test>\r\n",
    "received": ALL + b"Received: from a by b; x\r\n",
    "route": ALL + b"To: <@a,@b:c@d>\r\n",
    "group": ALL + b"To: undisclosed-recipients:;\r\n",
}


@pytest.mark.parametrize("header", KEPT.values(), ids=KEPT.keys())
def test_kept_as_it_is(header: bytes) -> None:
    assert completed(header) == header


CHANGED = {
    "bare names": (
        b'From: Betty <betty>\r\nTo: joe, "A, B" <ab> (x), c@d\r\n',
        b"From: Betty <betty@gonzo.test>\r\n"
        b'To: joe@gonzo.test, "A, B" <ab@gonzo.test> (x), c@d\r\n',
    ),
    "commas lost": (
        b"To: joe@x bob@x\r\n ann\r\n",
        b"To: joe@x, bob@x,\r\n ann@gonzo.test\r\n",
    ),
    "bcc": (
        b"To: a@x\r\nBcc: s@x,\r\n t@x\r\nSubject: s\r\n",
        b"To: a@x\r\nSubject: s\r\n",
    ),
    "only bcc": (b"bcc: s@x\r\nSubject: s\r\n", b"Subject: s\r\nBcc:\r\n"),
    "resent-bcc": (b"To: a@x\r\nResent-Bcc: s@x\r\n", b"To: a@x\r\n"),
    "not the sender's": (
        b"Return-Path: <e@x>\r\nContent-Length: 3\r\nTo: a@x\r\n",
        b"To: a@x\r\n",
    ),
    "many": (
        b"Sender: betty\r\nReply-To: b, c@x.test\r\n",
        b"Sender: betty@gonzo.test\r\nReply-To: b@gonzo.test, c@x.test\r\n",
    ),
}


@pytest.mark.parametrize("case", CHANGED.values(), ids=CHANGED.keys())
def test_changed(case: tuple[bytes, bytes]) -> None:
    header, expected = case
    assert completed(header).endswith(expected)


def test_full_name_field_names_the_author() -> None:
    nameless = Author(Address("betty", "gonzo.test"), "", "gonzo.test", "", "B. Boop")
    made = completed(b"Full-Name: Betty The Great\r\n", nameless)
    assert b"From: Betty The Great <betty@gonzo.test>\r\n" in made
    assert b"Full-Name" not in made
    assert b'From: "B. Boop" <betty@gonzo.test>\r\n' in completed(b"", nameless)


def test_resent() -> None:
    header = ALL + b"Resent-To: joe\r\n"
    assert completed(header) == (
        b"Resent-Date: DATE\r\n"
        b"Resent-From: Betty Boop <betty@gonzo.test>\r\n"
        b"Resent-Message-Id: <ID@gonzo.test>\r\n"
        + ALL
        + b"Resent-To: joe@gonzo.test\r\n"
    )


def test_null_sender_has_a_from_field() -> None:
    made = completed(b"", Author(NULL_SENDER, "", "gonzo.test"))
    assert b"From: Mail Delivery Subsystem <MAILER-DAEMON@gonzo.test>\r\n" in made


def test_warning_cannot_forge_a_field() -> None:
    author = Author(BETTY.address, "", "gonzo.test", warning="a\r\nBcc: x")
    assert completed(ALL, author) == b"X-Authentication-Warning: a Bcc: x\r\n" + ALL


NAMES = {
    "": "",
    "Betty Boop": "Betty Boop",
    "Betty Q. Boop, Esq.": '"Betty Q. Boop, Esq."',
    'a "b" \\c': '"a \\"b\\" \\\\c"',
    "Evil\r\nBcc: x@y": '"Evil Bcc: x@y"',
    "x <root@gonzo.test>": '"x <root@gonzo.test>"',
    "Bétty": "=?UTF-8?B?QsOpdHR5?=",
}


@pytest.mark.parametrize(("name", "expected"), NAMES.items())
def test_display_name(name: str, expected: str) -> None:
    assert display_name(name) == expected


def test_long_names_become_short_encoded_words() -> None:
    words = display_name("é" * 300).split(" ")
    assert all(len(word) <= 75 for word in words)


@pytest.mark.parametrize(
    ("header", "expected", "problem"),
    [
        (b"To: a@x\r\nCc: b\r\nBcc: c@x\r\n", ["a@x", "b", "c@x"], ""),
        (b"To: a@x\r\nTo: b@x\r\n", ["a@x", "b@x"], ""),
        (b"To: a@x\r\nResent-To: b@x\r\nResent-Bcc: c@x\r\n", ["b@x", "c@x"], ""),
        (b"Subject: To: a@x\r\n", [], ""),
        (b"To: undisclosed-recipients:;\r\nBcc: a@x\r\n", ["a@x"], ""),
        (b"To: a@x; b@x\r\n", [], "To: ';' outside of a group"),
    ],
)
def test_header_recipients(header: bytes, expected: list[str], problem: str) -> None:
    found = header_recipients(header)
    assert [mailbox.text for mailbox in found.mailboxes] == expected
    assert found.problem == problem
