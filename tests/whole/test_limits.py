"""Limits of the SMTP side on a real server with two workers, over real connections."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from postroom.testing.caller import Caller, Said
from postroom.testing.host import Host
from postroom.testing.world import World, until

SESSIONS = 3
LISTED, GOOD, PLAIN, CROWD, FAST, EARLY, FOREIGN = range(210, 217)
"""Clients, by the last number of their addresses."""


@pytest.fixture(scope="module")
def strict(world: World) -> Iterator[Host]:
    """A host with narrow limits, on an address of its own."""
    for number, zone in ((LISTED, "bl.test"), (GOOD, "bl.test"), (GOOD, "wl.test")):
        backwards = ".".join(reversed(world.ip(number).split(".")))
        world.zone.add(f"{backwards}.{zone} A 127.0.0.2")
    backwards = ".".join(reversed(world.ip(PLAIN).split(".")))
    world.zone.add(f"{backwards}.in-addr.arpa PTR plain.test")
    world.zone.add(f"plain.test A {world.ip(PLAIN)}")
    settings: dict[str, dict[str, object]] = {
        "receive": {
            "sessions_per_client_max": SESSIONS,
            "greet_pause": "50ms",
            "idle_commands_max": 5,
            "bad_recipients_free": 1,
            "bad_recipient_delay": "1ms",
            "bad_recipients_max": 3,
        },
        "policy": {
            "connection_rate": "12/1h",
            "rate_free_networks": [
                f"{world.ip(n)}/32" for n in (LISTED, GOOD, PLAIN, CROWD, EARLY)
            ],
        },
        # On a busy machine the other hosts' patience with the DNS would not be enough.
        "dns": {"timeout": "20s"},
        "policy.clients": {"exempt_networks": [], "timeout": "30s"},
        "policy.dns_lists": {"zones": ["bl.test*2", "wl.test*-2"], "reject_at": 2},
        "policy.reverse": {"look_up": True},
        "policy.hello": {"own_name": "reject"},
    }
    with world.host("strict.test", 5, settings) as host:
        yield host


def call(world: World, number: int) -> Caller:
    return Caller(world.ip(5), world.smtp_port, source_ip=world.ip(number))


def greeting_of(caller: Caller) -> Said:
    return caller.reply()


def test_sessions_of_one_client_are_counted_over_both_workers(
    world: World, strict: Host
) -> None:
    with ExitStack() as stack:
        for _ in range(SESSIONS):
            assert stack.enter_context(call(world, CROWD)).hello().code == 250
        for _ in range(4):
            with call(world, CROWD) as late:
                said = greeting_of(late)
                assert str(said).startswith("421 4.7.0 too many sessions"), said
                assert late.is_hung_up()
        with call(world, PLAIN) as other:
            assert other.hello().code == 250
    until("the log names the limit", lambda: "sessions_per_client_max" in strict.log)

    def is_let_in() -> bool:
        with call(world, CROWD) as again:
            return again.hello().code == 250

    until("a place is free again", is_let_in, strict)


def test_connections_per_time_are_counted_over_both_workers(
    world: World, strict: Host
) -> None:
    codes = []
    for _ in range(16):
        with call(world, FAST) as caller:
            codes.append(greeting_of(caller).code)
            caller.socket.shutdown(socket.SHUT_WR)
            caller.is_hung_up()
    assert codes == [220] * 12 + [421] * 4


def test_a_listed_client_reaches_postmaster_only(world: World, strict: Host) -> None:
    with call(world, LISTED) as caller:
        assert caller.hello().code == 250
        assert caller.ask("MAIL FROM:<ann@client.example>").code == 250
        said = caller.ask("RCPT TO:<joe@strict.test>")
        assert str(said) == "550 5.7.1 Your address is listed by bl.test"
        assert caller.ask("RCPT TO:<postmaster@strict.test>").code == 250
    until("the log tells", lambda: "check dns_lists: score 2: bl.test" in strict.log)


def test_a_good_list_makes_up_for_a_bad_one(world: World, strict: Host) -> None:
    with call(world, GOOD) as caller:
        assert caller.hello().code == 250
        assert caller.ask("MAIL FROM:<ann@client.example>").code == 250
        assert caller.ask("RCPT TO:<joe@strict.test>").code == 250


def test_the_name_of_a_client_stands_in_received(world: World, strict: Host) -> None:
    with call(world, PLAIN) as caller:
        caller.hello()
        content = b"Subject: named\r\n\r\nhello\r\n"
        assert caller.give("a@client.example", ["joe@strict.test"], content).code == 250
    folder = strict.directory / "mail/joe/new"

    def letters() -> list[bytes]:
        found = folder.iterdir() if folder.exists() else iter(())
        return [one for one in (path.read_bytes() for path in found)]

    wanted = f"(plain.test [{world.ip(PLAIN)}])".encode()
    until("the letter", lambda: any(wanted in one for one in letters()), strict)


def test_who_calls_itself_us_is_refused(world: World, strict: Host) -> None:
    with call(world, PLAIN) as caller:
        assert caller.reply().code == 220
        assert caller.ask("EHLO strict.test").code == 250
        assert caller.ask("MAIL FROM:<ann@client.example>").code == 250
        assert caller.ask("RCPT TO:<joe@strict.test>").code == 550


def test_who_talks_before_the_greeting_is_refused(world: World, strict: Host) -> None:
    def is_refused() -> bool:
        with call(world, EARLY) as caller:
            caller.send(b"EHLO early.example\r\n")
            said = caller.reply()
            if said.code == 220:  # on a busy machine our words may come too late
                return False
            assert str(said).startswith("554 5.5.1 ")
            return caller.is_hung_up()

    until("it is refused", is_refused, strict)


@pytest.mark.parametrize("octets", [b"\x16\x03\x01\x02\0\x01", b"GET / HTTP/1.1\r\n"])
def test_another_protocol_is_dropped(world: World, strict: Host, octets: bytes) -> None:
    with call(world, FOREIGN) as caller:
        assert caller.reply().code == 220
        caller.send(octets)
        assert str(caller.reply()).startswith("421 4.7.0 ")
        assert caller.is_hung_up()


def test_a_search_for_names_ends(world: World, strict: Host) -> None:
    with call(world, PLAIN) as caller:
        caller.hello()
        caller.ask("MAIL FROM:<ann@client.example>")
        codes = [caller.ask(f"RCPT TO:<n{n}@strict.test>").code for n in range(4)]
        assert codes == [550, 550, 550, 421]
        assert caller.is_hung_up()


def test_a_session_that_only_stays_ends(world: World, strict: Host) -> None:
    with call(world, PLAIN) as caller:
        caller.hello()
        codes = [caller.ask("NOOP").code for _ in range(5)]
        assert codes == [250, 250, 250, 250, 421]
        assert caller.is_hung_up()
