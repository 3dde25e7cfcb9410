"""Name servers that lie or keep silent: mail waits, or comes back; none is lost."""

from collections.abc import Iterator

import pytest

from postroom.testing.caller import Caller
from postroom.testing.faulty_peer import FaultyPeer
from postroom.testing.host import Host
from postroom.testing.ledger import (
    Ledger,
    audit,
    id_of,
    letter,
    mail_of,
    reasons_of,
)
from postroom.testing.world import World, until

SENDER = "betty@gonzo.test"

WAITING = {
    "wrong-id": "no answer in 300ms",
    "wrong-question": "no answer in 300ms",
    "truncated-no-tcp": "truncated answer, and by TCP: connection closed",
    "cname-loop": "CNAME loop",
    "cname-chain": "more than 8 CNAMEs",
    "servfail": "SERVFAIL",
    "refused": "REFUSED",
    "referral": "a referral instead of an answer",
    "garbage": "malformed answer",
    "silence": "no answer in 300ms",
}
"""Lies for which mail waits, and what the queue says then."""

SEEN_THROUGH = ("forged-first", "truncated", "formerr-on-edns", "many-mx")
"""Lies in spite of which mail arrives."""

COMING_BACK = {
    "nowhere.test": "5.1.2",
    "null-mx.test": "5.1.10",
    "to-us.test": "5.4.6",
    "mx-nowhere.test": "5.4.4",
}
"""Domains whose mail comes back, and the status in the report."""


@pytest.fixture
def peer(world: World) -> Iterator[FaultyPeer]:
    with world.peer(3) as made:
        yield made


def send(world: World, ledger: Ledger, domain: str) -> None:
    name = domain.removesuffix(".test")
    with Caller(world.ip(1), world.smtp_port) as caller:
        caller.hello()
        said = caller.give(SENDER, [f"joe@{domain}"], letter(name))
        assert said.code == 250, said
    ledger.promise(name, [f"joe@{domain}"])


def waiting(host: Host) -> dict[str, str]:
    """Return why each domain's mail waits, as far as it has been tried."""
    return {
        address.partition("@")[2]: text for address, text in reasons_of(host).items()
    }


def test_lies_and_silence(
    world: World, gonzo: Host, ledger: Ledger, peer: FaultyPeer
) -> None:
    domains = {lie: f"{lie}.test" for lie in WAITING}
    for lie, domain in domains.items():
        world.name(domain, 3)
        world.zone.add(f"{domain} LIE {lie}")
        send(world, ledger, domain)
    until("all tried", lambda: len(waiting(gonzo)) == len(domains), gonzo)
    why = waiting(gonzo)
    for lie, text in WAITING.items():
        assert why[f"{lie}.test"].startswith("Deferred: Name server: "), lie
        assert text in why[f"{lie}.test"], lie
    assert not audit(ledger, {"gonzo.test": gonzo}).missing
    assert peer.messages == []
    for domain in domains.values():
        world.zone.remove(domain)
        world.name(domain, 3)

    def retried() -> bool:
        assert gonzo.run("postroom", "queue", "retry", "--all").returncode == 0
        return len(peer.messages) == len(domains)

    until("delivery", retried, gonzo)
    assert {id_of(one) for one in peer.messages} == set(domains)
    ledger.elsewhere += peer.messages


def test_seen_through(
    world: World, gonzo: Host, ledger: Ledger, peer: FaultyPeer
) -> None:
    for lie in SEEN_THROUGH:
        world.name(f"{lie}.test", 3)
        world.zone.add(f"{lie}.test LIE {lie}")
    world.zone.add(f"mx95.many-mx.test A {world.ip(3)}")
    for lie in SEEN_THROUGH:
        send(world, ledger, f"{lie}.test")
    until("delivery", lambda: len(peer.messages) == len(SEEN_THROUGH), gonzo)
    assert {id_of(one) for one in peer.messages} == set(SEEN_THROUGH)
    ledger.elsewhere += peer.messages


def test_coming_back(
    world: World, gonzo: Host, ledger: Ledger, peer: FaultyPeer
) -> None:
    world.zone.add("null-mx.test MX 0 .")
    world.name("to-us.test", 1)
    world.zone.add("mx-nowhere.test MX 10 nothing.nowhere.test")
    for domain in COMING_BACK:
        send(world, ledger, domain)

    def reports() -> dict[str, bytes]:
        return {
            id_of(one): one
            for one in mail_of(gonzo, "betty")
            if b"Final-Recipient: rfc822; joe@" in one
        }

    names = {domain.removesuffix(".test") for domain in COMING_BACK}
    until("reports", lambda: names <= reports().keys(), gonzo)
    for domain, status in COMING_BACK.items():
        report = reports()[domain.removesuffix(".test")]
        assert f"\r\nStatus: {status}\r\n".encode() in report, domain
        assert f"rfc822; joe@{domain}\r\n".encode() in report
    assert peer.connections == 0
