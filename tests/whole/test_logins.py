"""Logins on a whole host: a submission listener, two workers, real accounts."""

import base64
from collections.abc import Iterator

import pytest

from postroom.testing.caller import Caller, Said
from postroom.testing.exchange import ScramClient
from postroom.testing.host import Host
from postroom.testing.ledger import mail_of
from postroom.testing.world import World, until

DOMAIN = "logins.test"
NUMBER = 46
FAILURES = 6
PLAIN = base64.b64encode(b"\0betty\0betty-secret").decode()
GUESSER, USER = 220, 221
"""Clients, by the last number of their addresses."""


@pytest.fixture(scope="module")
def host(world: World) -> Iterator[Host]:
    settings: dict[str, dict[str, object]] = {
        "[listen]": {
            "address": f"{world.ip(NUMBER)}:{world.smtp_port + 3}",
            "service": "submission",
        },
        "auth": {
            "failure_delay": "1ms",
            "failures_per_client": FAILURES,
            "failures_max": 2,
        },
    }
    with world.host(DOMAIN, NUMBER, settings) as made:
        yield made


def call(world: World, number: int) -> Caller:
    return Caller(world.ip(NUMBER), world.smtp_port + 3, source_ip=world.ip(number))


def b64(octets: bytes) -> str:
    return base64.b64encode(octets).decode()


def scram(caller: Caller, user: str, password: str) -> Said:
    client = ScramClient(user, password)
    said = caller.ask(f"AUTH SCRAM-SHA-256 {b64(client.first)}")
    if said.code != 334:
        return said
    challenge = base64.b64decode(said.text)
    said = caller.ask(b64(client.final(challenge)))
    return caller.ask("") if said.code == 334 else said


def test_a_user_logs_in_and_sends(world: World, host: Host) -> None:
    with call(world, USER) as caller:
        assert "AUTH SCRAM-SHA-256\n" in f"{caller.hello().text}\n"  # no more: no TLS
        refused = caller.ask(f"AUTH PLAIN {PLAIN}")
        assert str(refused).startswith("538 5.7.11")
        refused = caller.ask(f"MAIL FROM:<betty@{DOMAIN}>")
        assert str(refused).startswith("530 5.7.0")
        assert scram(caller, f"betty@{DOMAIN}", "betty-secret").code == 235
        assert "AUTH" not in caller.ask("EHLO client.example").text
        said = caller.give(f"betty@{DOMAIN}", [f"joe@{DOMAIN}"], b"Subject: s\r\n\r\n")
        assert said.code == 250
    until("the letter", lambda: bool(mail_of(host, "joe")), host)
    (letter,) = mail_of(host, "joe")
    assert b"with ESMTPA id" in letter
    told = "authid=betty, mech=SCRAM-SHA-256"
    until("the log tells", lambda: told in host.log, host)


def test_guesses_are_counted_over_both_workers(world: World, host: Host) -> None:
    """Each on a connection of its own, so that both workers hear some."""
    for _ in range(FAILURES):
        with call(world, GUESSER) as caller:
            caller.hello()
            assert scram(caller, "betty", "guess").code == 535
    with call(world, GUESSER) as caller:
        caller.hello()
        for user in ("betty", "joe"):  # good ones, too: nothing is checked
            said = scram(caller, user, f"{user}-secret")
            assert str(said).startswith("454 4.7.0")
    with call(world, USER) as caller:  # nobody else pays for it
        caller.hello()
        assert scram(caller, "betty", "betty-secret").code == 235
