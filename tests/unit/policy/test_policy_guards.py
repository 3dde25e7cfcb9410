"""The built-in guards: relay control, unknown recipients, sizes, hops, rates."""

from typing import Any

import msgspec
import pytest

from postroom import accept, hook
from postroom.limits.gcra import Rate
from postroom.limits.shared import SharedCounters
from postroom.mail.address import Address
from postroom.mail.envelope import Origin
from postroom.mail.now import Now
from postroom.mail.reply import Reply
from postroom.mail.units import Duration
from postroom.policy.builtin import Guards, SharedLimiter
from postroom.policy.session import Rcpt, Session, in_networks
from postroom.policy.settings import PolicySettings, parse_rate
from postroom.testing.policy import PolicyTest

RELAYING = PolicySettings(relay_networks=("192.0.2.0/24", "2001:db8::/32"))


@hook.rcpt
def everything_is_fine(session: object, rcpt: object) -> object:
    return accept()


def policy(settings: PolicySettings = RELAYING, **client: Any) -> PolicyTest:
    return PolicyTest([everything_is_fine], settings, **client)


RELAY: dict[str, tuple[dict[str, Any], str]] = {
    "a stranger": ({"client_ip": "198.51.100.1"}, "550 5.7.1 <a@gonzo.test>... Relay"),
    "loopback is a stranger": ({"client_ip": "127.0.0.1"}, "550 5.7.1"),
    "our network": ({"client_ip": "192.0.2.200"}, "accept"),
    "our IPv6 network": ({"client_ip": "2001:db8::1"}, "accept"),
    "our network, over IPv6": ({"client_ip": "::ffff:192.0.2.1"}, "accept"),
    "another IPv6 network": ({"client_ip": "2001:db9::1"}, "550 5.7.1"),
    "who logged in": ({"client_ip": "198.51.100.1", "login": "joe"}, "accept"),
    "a local submission": ({"client_ip": "", "login": "joe"}, "accept"),
    "no address at all": ({"client_ip": "unknown"}, "550 5.7.1"),
}


@pytest.mark.parametrize("name", RELAY)
def test_who_may_relay_whatever_the_site_says(name: str) -> None:
    client, said = RELAY[name]
    assert policy(**client).rcpt("a@gonzo.test", "relay") == said


def test_by_default_no_client_may_relay() -> None:
    for ip in ("127.0.0.1", "::1", "10.0.0.1"):
        test = policy(PolicySettings(), client_ip=ip)
        assert test.rcpt("a@gonzo.test", "relay") == "550 5.7.1"


def test_relaying_for_logins_can_be_turned_off() -> None:
    settings = PolicySettings(relay_logins=False)
    assert policy(settings, login="joe").rcpt("a@gonzo.test", "relay") == "550"


FOR_ALL = PolicySettings(
    relay_domains=("Backed.test", ".under.test", "b\u00fccher.test")
)
FOR_ALL_CASES: dict[str, tuple[str, str]] = {
    "the domain": ("a@backed.test", "accept"),
    "in other case, with a dot": ("A+x@BACKED.test.", "accept"),
    "its postmaster": ("postmaster@backed.test", "accept"),
    "U-label": ("a@B\u00fccher.test", "accept"),
    "A-label": ("a@xn--bcher-kva.test", "accept"),
    "beneath": ("a@x.under.test", "accept"),
    "far beneath": ("a@z.y.x.under.test", "accept"),
    "beneath what is meant alone": ("a@x.backed.test", "550 5.7.1"),
    "above what is beneath": ("a@under.test", "550 5.7.1"),
    "another one": ("a@elsewhere.test", "550 5.7.1"),
    "with the same end": ("a@notbacked.test", "550 5.7.1"),
    "with the same beginning": ("a@backed.test.elsewhere.test", "550 5.7.1"),
    "top level": ("a@test", "550 5.7.1"),
    "literal": ("a@[192.0.2.1]", "550 5.7.1"),
    "percent": ("a%elsewhere.test@backed.test", "550 5.7.1"),
    "bang": ("elsewhere.test!a@backed.test", "550 5.7.1"),
    "quoted at-sign": ('"a@elsewhere.test"@backed.test', "550 5.7.1"),
    "source route": ("@backed.test:a@elsewhere.test", "550 5.7.1"),
}


@pytest.mark.parametrize(
    ("text", "said"), FOR_ALL_CASES.values(), ids=FOR_ALL_CASES.keys()
)
def test_domains_that_anybody_may_send_to(text: str, said: str) -> None:
    test = policy(FOR_ALL, client_ip="198.51.100.1")
    assert test.rcpt(Address.from_text(text).to_text(), "relay") == said
    assert policy(PolicySettings(), client_ip="198.51.100.1").rcpt(text, "relay") == (
        "550 5.7.1"
    )


@pytest.mark.parametrize(
    ("routing", "said"),
    [
        ("local", "accept"),
        ("unknown", "550 5.1.1 <joe@whizzer.test>... User unknown"),
        ("failed", "451 4.4.3 <joe@whizzer.test>... Cannot be routed now"),
    ],
)
def test_what_the_router_said_counts(routing: str, said: str) -> None:
    test = policy()
    assert test.rcpt("joe@whizzer.test", routing) == said  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (
            Reply.of(550, "5.1.2", "no such host"),
            "550 5.1.2 <joe@x.test>... no such host",
        ),
        (Reply.of(451, "4.3.0", "later"), "451 4.3.0 <joe@x.test>... later"),
    ],
)
def test_the_routers_own_refusal_is_used(reply: Reply, said: str) -> None:
    rcpt = Rcpt(Address("joe", "x.test"), "unknown", reply=reply)
    assert policy().ask("rcpt", rcpt) == said


SENDERS = {
    "the null sender": ("", "accept"),
    "a name": ("joe@whizzer.test", "accept"),
    "an address literal": ("joe@[192.0.2.1]", "accept"),
    "an IPv6 literal": ("joe@[IPv6:2001:db8::1]", "accept"),
    "a final dot": ("joe@whizzer.test.", "accept"),
    "no domain": ("joe", "553 5.5.4 <joe>... Real domain name required"),
    "one label": ("joe@localhost", "553 5.5.4"),
    "one label and a dot": ("joe@localhost.", "553 5.5.4"),
    "an address without brackets": ("joe@192.0.2.1", "553 5.5.4"),
    "postmaster alone": ("postmaster", "553 5.5.4"),
}


@pytest.mark.parametrize("name", SENDERS)
def test_sender_domains(name: str) -> None:
    sender, said = SENDERS[name]
    stranger = policy(client_ip="198.51.100.1")
    assert stranger.mail(sender) == said
    assert policy(client_ip="192.0.2.1").mail(sender) == "accept"
    lax = policy(PolicySettings(sender_domain_real=False))
    assert lax.mail(sender) == "accept"


def test_sizes() -> None:
    test = PolicyTest([], message_octets_max=100)
    assert test.mail("a@b.test", 100) == "accept"
    assert test.mail("a@b.test", 101) == "552 5.3.4 Message is larger than 100 octets"
    assert test.message("A: b\n\n" + "x" * 92) == "accept"
    assert test.message("A: b\n\n" + "x" * 93) == "552 5.3.4"
    assert PolicyTest([], message_octets_max=0).mail("a@b.test", 1 << 40) == "accept"


def test_hops() -> None:
    test = policy(PolicySettings(hops_max=3))
    hop = "Received: from a by b; now\n"
    assert test.message(hop * 3 + "\n\n") == "accept"
    assert test.message(hop * 4 + "\n\n") == "554 5.4.6 Too many hops 4 (3 max)"
    assert test.message("A: b\n\n" + hop * 9) == "accept"


# Rates

RATES = PolicySettings(
    connection_rate="2/1m", message_rate="2/1m", recipient_rate="2/1m"
)


class Told:
    """A limiter that allows so many events of each key, ever."""

    def __init__(self, allowed: int) -> None:
        self._allowed = allowed
        self.keys: list[str] = []

    def allow(self, key: str, rate: Rate) -> bool:
        self.keys.append(key)
        return self.keys.count(key) <= self._allowed


def rated(ip: str, told: Told, settings: PolicySettings = RATES) -> PolicyTest:
    test = PolicyTest([], guards=False, client_ip=ip)
    guards = Guards(settings, 0, told).hooks()
    test.chain = type(test.chain)(
        guards, settings, test.events.append, lambda: Now(0, 0)
    )
    return test


def test_rates_of_one_client() -> None:
    told = Told(1)
    test = rated("192.0.2.1", told)
    assert test.connect() == "accept"
    assert test.connect() == "421 4.7.0 Too many connections"
    assert test.mail("a@b.test") == "accept"
    assert test.mail("a@b.test") == "450 4.7.1 Too many messages"
    assert test.rcpt("joe@whizzer.test") == "accept"
    assert test.rcpt("joe@whizzer.test") == "450 4.7.1 Too many recipients"
    assert rated("192.0.2.2", told).connect() == "accept"
    assert set(told.keys) == {
        "connection/192.0.2.1",
        "connection/192.0.2.2",
        "message/192.0.2.1",
        "recipient/192.0.2.1",
    }


def test_an_ipv6_client_is_its_network() -> None:
    told = Told(1)
    assert rated("2001:db8::1", told).connect() == "accept"
    assert rated("2001:db8::2", told).connect() == "421"
    assert rated("2001:db8:0:1::1", told).connect() == "accept"
    assert rated("::ffff:192.0.2.1", told).connect() == "accept"
    assert rated("192.0.2.1", told).connect() == "421"


@pytest.mark.parametrize("ip", ["127.0.0.1", "::1", ""])
def test_clients_whose_rates_are_free(ip: str) -> None:
    told = Told(0)
    assert rated(ip, told).connect() == "accept"
    assert told.keys == []


def test_without_rates_nobody_is_asked() -> None:
    hooks = Guards(PolicySettings(), 0, Told(0)).hooks()
    assert not any(one.name.endswith("_rate") for one in hooks)


def test_rates_over_the_shared_counters() -> None:
    now = [Now(0, 1_000_000)]
    limiter = SharedLimiter(SharedCounters.private(), lambda: now[0])
    rate = parse_rate("2/1m")
    assert rate is not None
    assert [limiter.allow("a", rate) for _ in range(3)] == [True, True, False]
    assert limiter.allow("b", rate)
    now[0] = Now(0, 32_000_000)
    assert limiter.allow("a", rate)


@pytest.mark.parametrize("text", ["10", "10/", "/1h", "0/1h", "-1/1h", "x/1h", "1/0s"])
def test_rates_that_cannot_be(text: str) -> None:
    with pytest.raises(ValueError, match="is no rate"):
        PolicySettings(connection_rate=text)


@pytest.mark.parametrize(
    "values",
    [
        {"relay_networks": ("192.0.2.1/24",)},
        {"relay_networks": ("everyone",)},
        {"rate_free_networks": ("",)},
        {"relay_domains": ("*",)},
        {"relay_domains": ("",)},
        {"relay_domains": ("192.0.2.1",)},
        {"relay_domains": ("joe@w.test",)},
        {"hops_max": 0},
        {"blocking_threads_max": 0},
        {"async_timeout": Duration(0)},
        {"blocking_timeout": Duration(0)},
    ],
)
def test_settings_that_cannot_be(values: dict[str, object]) -> None:
    with pytest.raises((ValueError, msgspec.ValidationError)):
        PolicySettings(**values)  # type: ignore[arg-type]


def test_a_hook_may_ask_for_networks() -> None:
    session = Session(Origin(client_ip="192.0.2.7"))
    assert session.is_in("192.0.2.0/24")
    assert not session.is_in("198.51.100.0/24", "::/0")
    with pytest.raises(ValueError, match="write"):
        in_networks("192.0.2.7", ("nonsense",))
