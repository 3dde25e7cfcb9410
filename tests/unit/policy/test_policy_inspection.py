"""What is found out about clients: lists and weights, names, hellos."""

import asyncio
from typing import Any

import pytest

from postroom.dns.answer import Answer, DnsFailed, Records, RecordType
from postroom.dns.own import OwnNames
from postroom.mail.now import HOUR_US, Now
from postroom.mail.reply import Reply
from postroom.mail.units import Duration
from postroom.mail.verdict import Defer, Reject
from postroom.observe.events import Lifecycle
from postroom.policy.check_settings import (
    ClientSettings,
    DnsListSettings,
    HelloSettings,
    ReverseSettings,
)
from postroom.policy.inspection import Findings, Inspection, Inspector
from postroom.policy.settings import PolicySettings
from postroom.testing.policy import PolicyTest
from postroom.testing.resolver import FakeResolver

IP = "192.0.2.1"
BACK = "1.2.0.192"
PTR = f"{BACK}.in-addr.arpa PTR"
OWN = OwnNames.of(["gonzo.test", "mail.gonzo.test"], ["203.0.113.5", "2001:db8::5"])
SERVFAIL = DnsFailed("SERVFAIL")

ZONES = ("bad.test=127.0.0.[2..9]*3", "worse.test*5", "good.test*-4")
LISTS = PolicySettings(
    dns_lists=DnsListSettings(zones=ZONES, defer_at=3, reject_at=5),
)


class Lab:
    """An inspector with a resolver that knows what it was told."""

    def __init__(
        self, settings: PolicySettings, answers: dict[str, Any] | None = None
    ) -> None:
        self.resolver: Any = FakeResolver(answers or {})
        self.events: list[Any] = []
        self.now = Now(0, 0)
        self.inspector = Inspector(
            settings, self.resolver, OWN, self.events.append, lambda: self.now
        )

    async def find(self, helo: str = "client.example", ip: str = IP) -> Findings:
        inspection = self.inspector.begin(ip)
        assert inspection is not None
        inspection.hello(helo)
        try:
            return await inspection.conclude()
        finally:
            inspection.close()

    @property
    def warnings(self) -> list[str]:
        assert all(isinstance(event, Lifecycle) for event in self.events)
        return [event.what for event in self.events]


def said(findings: Findings) -> str:
    match findings.objection:
        case Reject(reply, rule) | Defer(reply, rule):
            return f"{reply.code} {reply.status} {rule}"
        case _:
            return ""


def on(*zones: str, answer: str = "127.0.0.2") -> dict[str, Any]:
    return {f"{BACK}.{zone} A": answer for zone in zones}


# DNS lists


@pytest.mark.parametrize(
    ("answers", "score", "verdict"),
    [
        pytest.param({}, 0, "", id="on-none"),
        pytest.param(on("bad.test"), 3, "450 4.7.1 dns_lists", id="deferred"),
        pytest.param(on("worse.test"), 5, "550 5.7.1 dns_lists", id="rejected"),
        pytest.param(
            on("bad.test", "worse.test"), 8, "550 5.7.1 dns_lists", id="added-up"
        ),
        pytest.param(
            on("worse.test", "good.test"), 1, "", id="a-good-list-weighs-against"
        ),
        pytest.param(on("good.test"), -4, "", id="only-good"),
        pytest.param(on("bad.test", answer="127.0.0.10"), 0, "", id="another-answer"),
        pytest.param(
            on("worse.test", answer="127.255.255.254"), 0, "", id="not-served"
        ),
        pytest.param(on("worse.test", answer="203.0.113.9"), 0, "", id="parked"),
        pytest.param(
            {f"{BACK}.worse.test A": ["127.0.0.2", "127.0.0.1"]}, 0, "", id="the-world"
        ),
        pytest.param({f"{BACK}.worse.test A": SERVFAIL}, 0, "", id="failing"),
    ],
)
async def test_scores(answers: dict[str, Any], score: int, verdict: str) -> None:
    findings = await Lab(LISTS, answers).find()
    assert findings.score == score
    assert said(findings) == verdict


async def test_the_reply_names_the_lists_that_count_against_the_client() -> None:
    settings = PolicySettings(dns_lists=DnsListSettings(zones=ZONES, reject_at=1))
    findings = await Lab(settings, on("bad.test", "worse.test", "good.test")).find()
    assert findings.lists == ("bad.test", "worse.test", "good.test")
    assert isinstance(findings.objection, Reject)
    assert findings.objection.reply.text == (
        "Your address is listed by bad.test, worse.test"
    )
    assert [(one.check, one.detail, one.action) for one in findings.against] == [
        ("dns_lists", "score 4: bad.test, worse.test, good.test", "reject")
    ]


async def test_without_thresholds_there_is_a_score_and_no_objection() -> None:
    settings = PolicySettings(dns_lists=DnsListSettings(zones=ZONES))
    findings = await Lab(settings, on("worse.test")).find()
    assert (findings.score, findings.objection) == (5, None)
    assert [one.action for one in findings.against] == ["log"]


async def test_a_list_that_does_not_work_is_told_of_now_and_then() -> None:
    lab = Lab(LISTS, on("worse.test", answer="127.255.255.254"))
    for _ in range(3):
        await lab.find()
    assert lab.warnings == [
        "policy.dns_lists: worse.test says nothing: it answers 127.255.255.254, "
        "which is no listing"
    ]
    lab.now = Now(0, HOUR_US)
    await lab.find()
    assert len(lab.warnings) == 2


async def test_an_ipv6_client_is_asked_for_by_nibbles() -> None:
    lab = Lab(LISTS)
    await lab.find(ip="2001:db8::1")
    assert lab.resolver.asked[0] == f"1.{'0.' * 23}8.b.d.0.1.0.0.2.bad.test A"


class Slow:
    """A resolver that answers some questions only when told to."""

    def __init__(self, answers: dict[str, Any], silent: str) -> None:
        self.fake = FakeResolver(answers)
        self.silent = silent
        self.asked: list[str] = []
        self.cancelled = 0

    async def query(self, name: str, rdtype: RecordType) -> Answer:
        self.asked.append(name)
        if self.silent in name:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        return await self.fake.query(name, rdtype)

    def cached(self, name: str, rdtype: RecordType, now: Now) -> Answer | None:
        return None


def slow(settings: PolicySettings, answers: dict[str, Any], silent: str) -> Lab:
    lab = Lab(settings)
    lab.inspector.resolver = Slow(answers, silent)
    return lab


def impatient(**settings: Any) -> PolicySettings:
    return PolicySettings(clients=ClientSettings(timeout=Duration(1_000)), **settings)


async def test_all_lists_are_asked_at_once_and_the_slow_one_is_left_out() -> None:
    settings = impatient(dns_lists=LISTS.dns_lists)
    lab = slow(settings, on("bad.test", "worse.test"), "worse.test")
    inspection = lab.inspector.begin(IP)
    assert inspection is not None
    await asyncio.sleep(0)
    assert len(lab.inspector.resolver.asked) == 3  # type: ignore[attr-defined]
    findings = await inspection.conclude()
    assert (findings.score, said(findings)) == (3, "450 4.7.1 dns_lists")
    assert lab.warnings == [
        "policy.dns_lists: worse.test says nothing: it does not answer in time"
    ]
    inspection.close()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert lab.inspector.resolver.cancelled == 1  # type: ignore[attr-defined]


async def test_whoever_leaves_early_leaves_no_look_ups_behind() -> None:
    lab = slow(LISTS, {}, "test")
    before = asyncio.all_tasks()
    inspection = lab.inspector.begin(IP)
    assert inspection is not None
    await asyncio.sleep(0)
    assert len(asyncio.all_tasks() - before) == 3
    inspection.close()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize(
    "ip", ["", "127.0.0.1", "10.1.2.3", "192.168.1.1", "::1", "fd00::1", "fe80::1"]
)
def test_nothing_is_asked_about_the_near(ip: str) -> None:
    assert Lab(LISTS).inspector.begin(ip) is None


def test_nothing_is_asked_about_those_who_may_relay() -> None:
    settings = PolicySettings(
        dns_lists=LISTS.dns_lists, relay_networks=("192.0.2.0/24",)
    )
    assert Lab(settings).inspector.begin(IP) is None


# Names


REVERSE = PolicySettings(reverse=ReverseSettings(missing="reject", unverified="defer"))


@pytest.mark.parametrize(
    ("answers", "name", "verdict"),
    [
        ({PTR: "mx.test", "mx.test A": IP}, "mx.test", ""),
        ({}, "", "550 5.7.25 reverse_missing"),
        ({PTR: "mx.bank.test"}, "", "450 4.7.25 reverse_unverified"),
        ({PTR: SERVFAIL}, "", ""),
        ({PTR: "mx.test", "mx.test A": SERVFAIL}, "", ""),
    ],
)
async def test_names(answers: dict[str, Any], name: str, verdict: str) -> None:
    findings = await Lab(REVERSE, answers).find()
    assert (findings.client_name, said(findings)) == (name, verdict)


async def test_looking_a_name_up_does_not_judge_it() -> None:
    settings = PolicySettings(reverse=ReverseSettings(look_up=True))
    findings = await Lab(settings, {PTR: "mx.bank.test"}).find()
    assert findings == Findings()


# Hellos


STRICT = PolicySettings(
    hello=HelloSettings(
        own_name="reject", own_address="reject", unqualified="reject",
        unresolvable="defer",
    )
)  # fmt: skip
THERE = {"client.example A": IP, "mail.only.test MX": ["10 mx.test"]}


@pytest.mark.parametrize(
    ("helo", "verdict"),
    [
        ("client.example", ""),
        ("CLIENT.example.", ""),
        ("mail.only.test", ""),
        ("[192.0.2.1]", ""),
        ("[192.0.2.77]", ""),  # RFC 5321 §4.1.4: it need not be the client's
        ("[IPv6:2001:db8::1]", ""),
        ("gonzo.test", "550 5.7.1 hello_own_name"),
        ("Mail.Gonzo.Test", "550 5.7.1 hello_own_name"),
        ("[203.0.113.5]", "550 5.7.1 hello_own_address"),
        ("203.0.113.5", "550 5.7.1 hello_own_address"),
        ("[IPv6:2001:DB8::5]", "550 5.7.1 hello_own_address"),
        ("localhost", "550 5.7.1 hello_unqualified"),
        ("nowhere.test", "450 4.7.1 hello_unresolvable"),
        ("broken.test", ""),
    ],
)
async def test_hellos(helo: str, verdict: str) -> None:
    lab = Lab(STRICT, {**THERE, "broken.test A": SERVFAIL})
    assert said(await lab.find(helo)) == verdict


async def test_by_default_no_hello_is_judged() -> None:
    lab = Lab(PolicySettings())
    for helo in ("gonzo.test", "[203.0.113.5]", "localhost", "nowhere.test"):
        assert await lab.find(helo) == Findings()
    assert lab.resolver.asked == []


async def test_a_later_hello_is_judged_instead() -> None:
    lab = Lab(STRICT, THERE)
    inspection = lab.inspector.begin(IP)
    assert inspection is not None
    inspection.hello("gonzo.test")
    assert said(await inspection.conclude()) == "550 5.7.1 hello_own_name"
    assert not inspection.is_due
    inspection.hello("client.example")
    assert inspection.is_due
    assert said(await inspection.conclude()) == ""
    inspection.close()


async def test_rejecting_is_more_than_deferring() -> None:
    settings = PolicySettings(
        hello=HelloSettings(unresolvable="defer"),
        reverse=ReverseSettings(missing="reject"),
    )
    findings = await Lab(settings).find("nowhere.test")
    assert [one.check for one in findings.against] == [
        "reverse_missing", "hello_unresolvable"
    ]  # fmt: skip
    assert said(findings) == "550 5.7.25 reverse_missing"


async def test_what_cannot_be_looked_up_is_not_held_against_the_client() -> None:
    settings = impatient(hello=STRICT.hello, reverse=REVERSE.reverse)
    lab = slow(settings, {}, ".")
    inspection = lab.inspector.begin(IP)
    assert isinstance(inspection, Inspection)
    inspection.hello("nowhere.test")
    assert await inspection.conclude() == Findings()
    inspection.close()


async def test_a_bug_in_a_look_up_is_not_held_against_the_client() -> None:
    class Buggy(FakeResolver):
        async def query(self, name: str, rdtype: RecordType) -> Answer:
            raise RuntimeError("bug")

    lab = Lab(PolicySettings(dns_lists=LISTS.dns_lists, reverse=REVERSE.reverse))
    lab.inspector.resolver = Buggy()
    assert await lab.find() == Findings()


async def test_what_a_list_says_in_thousands_of_records_is_read_once() -> None:
    answers = {f"{BACK}.bad.test A": Records(("127.0.0.2",) * 1000, HOUR_US)}
    assert (await Lab(LISTS, answers).find()).score == 3


# What comes of it


@pytest.mark.parametrize(
    ("client", "recipient", "routing", "verdict"),
    [
        ({}, "joe@gonzo.test", "local", "550 5.7.1 listed"),
        ({}, "nobody@gonzo.test", "unknown", "550 5.7.1 listed"),
        ({}, "postmaster@gonzo.test", "local", "accept"),
        ({}, "Postmaster@gonzo.test", "local", "accept"),
        ({}, "abuse@gonzo.test", "local", "accept"),
        ({}, "postmaster@elsewhere.test", "relay", "550 5.7.1 listed"),
        ({"login": "joe"}, "joe@gonzo.test", "local", "accept"),
        ({"login": "joe"}, "a@elsewhere.test", "relay", "accept"),
        ({"client_ip": "198.51.100.1"}, "joe@gonzo.test", "local", "accept"),
    ],
)
def test_who_is_refused_at_rcpt(
    client: dict[str, Any], recipient: str, routing: Any, verdict: str
) -> None:
    settings = PolicySettings(
        dns_lists=LISTS.dns_lists, relay_networks=("198.51.100.0/24",)
    )
    objection = Reject(Reply.of(550, "5.7.1", "listed"), "dns_lists")
    test = PolicyTest([], settings, objection=objection, **client)
    assert test.rcpt(recipient, routing) == verdict


def test_no_check_lets_a_stranger_relay() -> None:
    settings = PolicySettings(
        dns_lists=LISTS.dns_lists,
        reverse=ReverseSettings(look_up=True, missing="reject"),
        hello=STRICT.hello,
        clients=ClientSettings(
            exempt_networks=("0.0.0.0/0", "::/0"),
            exempt_recipients=("postmaster", "a"),
        ),
    )
    known: dict[str, Any] = {
        "score": -100,
        "lists": ("good.test",),
        "client_name": "gonzo.test",
    }
    test = PolicyTest([], settings, **known)
    for local in ("a", "postmaster", "abuse"):
        assert test.rcpt(f"{local}@elsewhere.test", "relay") == "550 5.7.1"


def test_without_checks_no_guard_is_asked() -> None:
    names = [hook.name for hook in PolicyTest([]).chain.hooks("rcpt")]
    assert "client" not in names


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (DnsListSettings, {"zones": ("localhost",)}),
        (DnsListSettings, {"zones": ("a.test", "a.test*2")}),
        (DnsListSettings, {"reject_at": -1}),
        (ClientSettings, {"exempt_networks": ("x",)}),
        (ClientSettings, {"timeout": Duration(0)}),
    ],
)
def test_senseless_settings_are_refused(kind: Any, settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        kind(**settings)
