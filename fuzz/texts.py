"""Targets of what messages hold: headers, address lists, whole letters, conversion."""

from binascii import a2b_base64, a2b_qp

from postroom.mail.address import Address
from postroom.mail.address_list import parse_address_list
from postroom.mail.automatic import automatic
from postroom.mail.completion import (
    Author,
    complete_header,
    display_name,
    header_recipients,
)
from postroom.mail.headers import fields, find, find_all, split_message, unfold
from postroom.mail.trace import hop_count, was_delivered_to
from postroom.render.demand import Demand, has_long_line
from postroom.render.plan import Unconvertible
from postroom.testing.rendering import in_windows

AUTHOR = Author(Address("betty", "gonzo.test"), "Betty Boop", "gonzo.test")
DEMANDS = (
    Demand(seven_bit=True),
    Demand(),
    Demand(seven_bit=True, was_binary=True),
    Demand(was_binary=True),
)


def canonical(data: bytes) -> bytes:
    """Bring line ends into the form in which content is kept."""
    return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")


def headers(data: bytes) -> None:
    """A message is parted without loss, and so is its header."""
    content = canonical(data)
    header, body, separated = split_message(content)
    assert header + b"\r\n" * separated + body == content
    found = list(fields(header))
    assert b"".join(field.raw for field in found) == header
    assert 0 <= hop_count(header) <= len(found)
    automatic(header, AUTHOR.address)
    was_delivered_to(header, AUTHOR.address)
    for field in found[:20]:
        assert field.name
        assert field.name.isascii()
        assert b"\n" not in field.value
        assert field.value == unfold(field.value)
        assert find(header, field.name) is not None
        assert field.value in find_all(header, field.name)


def address_lists(data: bytes) -> None:
    """A list of addresses: each stands where it is said to, in order."""
    text = data.decode("utf-8", "surrogateescape")
    parsed = parse_address_list(text)
    at = 0
    for mailbox in parsed.mailboxes:
        assert 0 <= mailbox.start <= mailbox.end <= len(text)
        if mailbox.text:
            assert mailbox.start >= at
            at = mailbox.end
        assert len(mailbox.text) <= mailbox.end - mailbox.start
    assert not parsed.problem or parsed.problem.isprintable()
    assert len(parsed.mailboxes) <= len(text) + 1


def completion(data: bytes) -> None:
    """A letter's header is made whole: still a header, and whole from then on."""
    header, _, _ = split_message(canonical(data))
    header_recipients(header)
    given = {"date": "Sun, 22 Nov 2026 12:00:00 +0000", "message_id": "<1@gonzo.test>"}
    whole = complete_header(header, AUTHOR, **given)
    assert split_message(whole + b"\r\n") == (whole, b"", True)
    for name in ("Date", "From", "Message-Id"):
        assert find(whole, name) is not None
    keys = {field.key for field in fields(whole)}
    assert not keys & {"return-path", "full-name", "content-length"}
    assert len(whole) <= len(header) * 20 + 1000
    name = display_name(data.decode("utf-8", "replace"))
    assert not set(name) & set("\r\n\0")


def conversion(data: bytes) -> None:
    """A message made fit for a hop: the same however it is read, and nothing lost."""
    if not data:
        return
    demand = DEMANDS[data[0] % len(DEMANDS)]
    content = data[1:] if demand.was_binary else canonical(data[1:])
    made = in_windows(content, demand, 1 << 20)
    assert in_windows(content, demand, 2000) == made
    if isinstance(made, Unconvertible):
        assert made.reason.isprintable()
        return
    assert len(made) <= 4 * len(content) + 2000 * (1 + content.count(b"--"))
    header, body, _ = split_message(content)
    if made == content or any(f.key.startswith("content-") for f in fields(header)):
        return
    new_header, new_body, separated = split_message(made)
    assert separated
    assert not has_long_line(new_body)
    assert new_body.isascii() or not demand.seven_bit
    encoding = find(new_header, "Content-Transfer-Encoding") or b""
    if encoding.lower() == b"base64":
        assert a2b_base64(new_body) in (body, body + b"\r\n")
    elif encoding.lower() == b"quoted-printable":
        assert a2b_qp(new_body) in (body, body + b"\r\n")
