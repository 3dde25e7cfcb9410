"""Next hops that hang, drop or rave at each step: mail waits, then arrives once."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from postroom.testing.caller import Caller
from postroom.testing.faulty_peer import STEPS, WAYS, FaultyPeer
from postroom.testing.host import Host
from postroom.testing.ledger import (
    Ledger,
    audit,
    audit_at_rest,
    entries_of,
    id_of,
    letter,
    mail_of,
    reasons_of,
)
from postroom.testing.world import World, until

SENDER = "betty@sender.test"
FIRST_PEER = 60
TIMEOUT = "700ms"
REASONS = {
    "hangs": "Deferred: Connection timed out with mx.peer",
    "drops": "Deferred: Connection reset by mx.peer",
    "raves": "does not speak SMTP properly: no reply code",
    "refuses now": "Deferred: 421 4.3.2 not now",
}
CASES = [(step, way) for step in STEPS for way in WAYS]


@pytest.fixture(scope="module")
def sender(world: World) -> Iterator[Host]:
    """A host that soon loses patience."""
    timeouts = ("greeting", "hello", "command", "content", "quit", "connect")
    world.name("sender.test", 4)
    with world.host(
        "sender.test", 4, {"outbound": {f"{one}_timeout": TIMEOUT for one in timeouts}}
    ) as host:
        yield host


def domain_of(number: int) -> str:
    return f"peer{number}.test"


@pytest.fixture
def peers(world: World) -> Iterator[list[FaultyPeer]]:
    """A peer for each case, misbehaving."""
    with ExitStack() as stack:
        made = []
        for number, (step, way) in enumerate(CASES):
            world.name(domain_of(number), FIRST_PEER + number)
            peer = stack.enter_context(world.peer(FIRST_PEER + number))
            peer.misbehave(step, way)
            made.append(peer)
        yield made


def send(world: World, ledger: Ledger, recipients: list[str], name: str) -> None:
    with Caller(world.ip(4), world.smtp_port) as caller:
        caller.hello()
        said = caller.give(SENDER, recipients, letter(name))
        assert said.code == 250, said
    ledger.promise(name, recipients)


def test_every_misbehaviour_at_every_step(
    world: World, sender: Host, peers: list[FaultyPeer]
) -> None:
    ledger = Ledger()
    good = {n for n, (step, _) in enumerate(CASES) if step == "QUIT"}
    recipients = [f"joe@{domain_of(number)}" for number in range(len(CASES))]
    for number, recipient in enumerate(recipients):
        send(world, ledger, [recipient], f"case{number}")
    waiting = len(CASES) - len(good)
    until("all tried", lambda: len(reasons_of(sender)) >= waiting, sender)
    why = reasons_of(sender)
    for (step, way), text in zip(CASES, map(why.get, recipients), strict=True):
        if step != "QUIT":
            assert text is not None, (step, way)
            assert REASONS[way] in text, (step, way)
    assert len(why) == waiting
    for number in good:
        ledger.elsewhere += peers[number].messages
        assert len(peers[number].messages) == 1
    assert not audit(ledger, {"sender.test": sender}).missing

    for peer in peers:
        peer.behave()
    assert sender.run("postroom", "queue", "retry", "--all").returncode == 0
    until(
        "delivery",
        lambda: sum(len(peer.messages) for peer in peers) >= waiting,
        sender,
    )
    for number, peer in enumerate(peers):
        names = [id_of(one) for one in peer.messages]
        assert names == ([] if number in good else [f"case{number}"])
        ledger.elsewhere += peer.messages
    found = audit_at_rest(ledger, {"sender.test": sender})
    assert found.duplicates == 0
    until("an empty queue", lambda: not entries_of(sender), sender)


def reports(host: Host, user: str) -> dict[str, bytes]:
    """Return the failure reports in a mailbox, by what they are about."""
    return {
        id_of(one): one
        for one in mail_of(host, user)
        if b"report-type=delivery-status" in one
    }


def test_an_unknown_recipient_is_reported(world: World, sender: Host) -> None:
    """One of three is refused: the sender is told of that one, the others arrive."""
    ledger = Ledger()
    world.name("half.test", 5)
    recipients = ["a@half.test", "b@half.test", "c@half.test"]
    with world.peer(5) as peer:
        ok, no = b"250 2.1.5 Ok\r\n", b"550 5.1.1 <b@half.test>... No such user\r\n"
        peer.answer({"RCPT": [ok, no, ok]})
        send(world, ledger, recipients, "half")
        until("a report", lambda: "half" in reports(sender, "betty"), sender)
        assert [id_of(one) for one in peer.messages] == ["half"]
    report = reports(sender, "betty")["half"]
    assert report.startswith(b"Return-Path: <>\r\n")
    assert report.count(b"Final-Recipient:") == 1
    for line in (
        b"Final-Recipient: rfc822; b@half.test",
        b"Action: failed",
        b"Status: 5.1.1",
        b"Remote-MTA: dns; mx.half.test ([127.0.5.5])",
        b"Diagnostic-Code: smtp; 550 5.1.1 <b@half.test>... No such user",
    ):
        assert line + b"\r\n" in report, line
    until("an empty queue", lambda: not entries_of(sender), sender)


def test_a_refused_report_goes_to_postmaster(world: World, sender: Host) -> None:
    """The sender's own host does not take the report: postmaster gets it, once."""
    world.name("gone.test", 5)
    with world.peer(5) as peer:
        peer.answer({"RCPT": b"550 5.1.1 Nobody here\r\n"})
        with Caller(world.ip(4), world.smtp_port) as caller:
            caller.hello()
            said = caller.give("me@gone.test", ["you@gone.test"], letter("double"))
            assert said.code == 250
        until("a double bounce", lambda: "double" in reports(sender, "betty"), sender)
        until("an empty queue", lambda: not entries_of(sender), sender)
    about = [one for one in mail_of(sender, "betty") if id_of(one) == "double"]
    (report,) = about  # betty is postmaster
    assert b"Final-Recipient: rfc822; me@gone.test\r\n" in report
    assert b"Delivered-To: betty@sender.test\r\n" in report


def test_two_reports_never_chase_each_other(world: World, sender: Host) -> None:
    """A null sender's failing mail makes one report to postmaster, and no more."""
    before = len(mail_of(sender, "betty"))
    with Caller(world.ip(4), world.smtp_port) as caller:
        caller.hello()
        assert caller.give("", ["x@nothing.invalid"], letter("null")).code == 250
    until("a report", lambda: len(mail_of(sender, "betty")) > before, sender)
    until("an empty queue", lambda: not entries_of(sender), sender)
    assert len(mail_of(sender, "betty")) == before + 1
