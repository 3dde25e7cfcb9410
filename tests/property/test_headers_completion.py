"""No text breaks the list parser; completing a header twice changes nothing more."""

from hypothesis import given
from hypothesis import strategies as st

from postroom.mail.address import Address
from postroom.mail.address_list import parse_address_list
from postroom.mail.completion import Author, complete_header, header_recipients
from postroom.mail.headers import fields, split_message
from postroom.mail.local_text import LocalText

WORD = st.sampled_from(["joe", "x.test", "é", "\udcff", "To: ", "From: ", "Bcc: "])
PIECE = WORD | st.sampled_from('@,;:<>"()[]\\ \t.!')
TEXT = st.lists(PIECE, max_size=30).map("".join)
NAME = st.sampled_from(
    ["From", "To", "Cc", "Bcc", "Resent-To", "Subject", "Date", "Sender"]
)
FIELD = st.builds(lambda n, v: f"{n}: {v}\r\n".encode("utf-8", "replace"), NAME, TEXT)
HEADER = st.lists(FIELD, max_size=6).map(b"".join)
AUTHOR = Author(Address("betty", "gonzo.test"), "Betty", "gonzo.test")


@given(TEXT)
def test_every_address_lies_where_it_says(text: str) -> None:
    parsed = parse_address_list(text)
    end = 0
    for mailbox in parsed.mailboxes:
        if mailbox.text:
            assert end <= mailbox.start < mailbox.end <= len(text)
            end = mailbox.end


@given(HEADER)
def test_completing_is_idempotent_and_stays_a_header(header: bytes) -> None:
    once = complete_header(header, AUTHOR, date="d", message_id="<i@x>")
    twice = complete_header(once, AUTHOR, date="e", message_id="<j@x>")
    assert twice == once
    assert split_message(once + b"\r\n") == (once, b"", True)
    keys = {field.key for field in fields(once)}
    assert {"date", "from", "message-id"} <= keys
    header_recipients(once)


@given(st.lists(st.binary(max_size=6), max_size=12), st.booleans())
def test_local_text_does_not_depend_on_the_cuts(
    pieces: list[bytes], dot_ends: bool
) -> None:
    cut, whole = LocalText(dot_ends=dot_ends), LocalText(dot_ends=dot_ends)
    text = b"".join([*(cut.feed(piece) for piece in pieces), cut.finish()])
    assert text == whole.feed(b"".join(pieces)) + whole.finish()
    assert not text or text.endswith(b"\r\n")
    assert text.count(b"\r") == text.count(b"\n") == text.count(b"\r\n")
