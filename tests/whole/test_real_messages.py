"""Real mail through the whole line: SMTP, queue, MX, SMTP, Maildir, POP3."""

import pytest

from postroom.testing.corpus import RealMessage, read_sample, without_trace
from postroom.testing.host import Host
from postroom.testing.real_mail import RealMail, compare
from postroom.testing.world import World


@pytest.fixture(scope="module")
def sample() -> list[RealMessage]:
    return list(read_sample())


def test_the_sample_is_hard(sample: list[RealMessage]) -> None:
    assert len(sample) == 300
    assert sum(one.longest_line_octets > 998 for one in sample) == 9
    assert sum(not one.content.isascii() for one in sample) >= 20
    assert any(b"\r\n." in one.content for one in sample)


def test_what_comes_out_is_what_went_in(
    world: World, gonzo: Host, whizzer: Host, sample: list[RealMessage]
) -> None:
    RealMail(world, gonzo, whizzer).fetch()  # what other tests have left there
    assert RealMail(world, gonzo, whizzer).differences(sample) == []


def test_trace_fields_in_front(world: World, gonzo: Host, whizzer: Host) -> None:
    mail = RealMail(world, gonzo, whizzer)
    mail.fetch()
    mail.hand_in(
        [RealMessage("one", b"Received: from old\r\nSubject: x\r\n\r\n.x\r\n")]
    )
    mail._await(1)
    (content,) = mail.fetch()
    fields = [line for line in content.split(b"\r\n") if line[:1].isalpha()]
    names = [field.partition(b":")[0].decode() for field in fields]
    assert names == [
        *("Return-Path", "Delivered-To", "Received", "Received"),
        *("Received", "Subject"),
    ]
    assert fields[0] == b"Return-Path: <list@lists.example>"
    assert fields[1] == b"Delivered-To: joe@whizzer.test"
    assert b"by whizzer.test" in content
    assert (
        without_trace(content, 2) == b"Received: from old\r\nSubject: x\r\n\r\n.x\r\n"
    )


def envelope(queue_id: str, content: bytes) -> bytes:
    received = f"Received: from a by gonzo.test id {queue_id}\r\n"
    return b"Return-Path: <>\r\nReceived: b\r\n" + received.encode() + content


def test_differences_are_found() -> None:
    sent = {
        "q1": RealMessage("same", b"A: b\r\n\r\n1\r\n"),
        "q2": RealMessage("changed", b"A: b\r\n\r\n2\r\n"),
        "q3": RealMessage("lost", b"A: b\r\n\r\n3\r\n"),
        "q4": RealMessage("bare", b"A: b\r\n\r\n4\r\n"),
    }
    fetched = [
        envelope("q1", b"A: b\r\n\r\n1\r\n"),
        envelope("q2", b"A: b\r\n\r\n2 \r\n"),
        envelope("q1", b"A: b\r\n\r\n1\r\n"),
        b"X: by gonzo.test id q4\r\n\r\n",
    ]
    differs, twice, bare, lost = compare(sent, fetched)
    assert differs == "changed: differs"
    assert twice.startswith("a message that was never sent, or twice: ")
    assert bare == "bare: fewer than 2 Received fields in front"
    assert lost == "lost: did not arrive"
