"""TLS towards other hosts: levels, certificates, injection, REQUIRETLS, resumption."""

import asyncio
import ssl
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from postroom.agents.lmtp import lmtp_agent
from postroom.agents.settings import Destination, SmtpAgentSettings
from postroom.mail.outcome import Deferred, Delivered, Failed
from postroom.observe.events import TlsFailed, TlsStarted
from postroom.testing.authority import Authority
from postroom.testing.outbound import OFFERS, READY, ZONE, Sender, attempt
from postroom.testing.resolver import FakeResolver
from postroom.testing.scripted_host import Answer, running
from postroom.testing.scripted_host import ScriptedHost as Host

MX = "mx.whizzer.test"
ON_REQUEST: Mapping[str, Answer] = {"EHLO": OFFERS, "STARTTLS": READY}
WITH_REQUIRETLS: Mapping[str, Answer] = {
    **ON_REQUEST,
    "EHLO/TLS": b"250-mx\r\n250 REQUIRETLS\r\n",
}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("other"), "Strangers CA")


def secure(authority: Authority, *names: str, **answers: Answer) -> Host:
    return Host(
        {**ON_REQUEST, **answers}, tls=authority.server_context(*names or (MX,))
    )


def outdated(authority: Authority) -> ssl.SSLContext:
    """What a server needs that speaks no TLS of today."""
    context = authority.server_context(MX)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    return context


async def test_tls_is_used_where_it_is_offered(authority: Authority) -> None:
    host = secure(authority)
    async with running(host):
        sender = Sender(host)
        outcome = await sender.send()
        await sender.aclose()
    assert isinstance(outcome, Delivered)
    assert host.handshakes == ["TLSv1.3"]
    assert host.names == [MX]
    # RFC 3207 §4.2: a new hello, since nothing learnt before counts
    assert host.lines[:3] == ["EHLO gonzo.test", "STARTTLS", "EHLO gonzo.test"]
    (started,) = sender.told(TlsStarted)
    assert (started.side, started.version, started.verify) == (
        "client",
        "TLSv1.3",
        "NO",
    )
    assert started.relay == "mx.whizzer.test [127.0.0.2]"


async def test_off_means_off(authority: Authority) -> None:
    host = secure(authority)
    async with running(host):
        sender = Sender(host, tls="off")
        assert isinstance(await sender.send(), Delivered)
        await sender.aclose()
    assert "STARTTLS" not in host.lines


@pytest.mark.parametrize(
    "answers",
    [
        {"EHLO": b"250 mx\r\n"},
        {"STARTTLS": b"454 4.7.0 TLS not available\r\n"},
        {"STARTTLS": b"502 5.5.1 what\r\n"},
    ],
)
async def test_opportunistic_goes_on_in_the_clear(
    authority: Authority, answers: dict[str, Answer]
) -> None:
    host = secure(authority, **answers)
    async with running(host):
        sender = Sender(host)
        assert isinstance(await sender.send(), Delivered)
        await sender.aclose()
    assert host.connections == 1
    assert not host.handshakes


async def test_a_broken_handshake_is_retried_in_the_clear_and_remembered(
    authority: Authority,
) -> None:
    host = Host(ON_REQUEST, tls=outdated(authority))
    async with running(host):
        sender = Sender(host, messages_per_connection_max=1)
        for _ in range(3):
            assert isinstance(await sender.send(), Delivered)
        await sender.aclose()
    assert host.lines.count("STARTTLS") == 1
    assert host.connections == 4
    (failed,) = sender.told(TlsFailed)
    assert failed.relay == "mx.whizzer.test [127.0.0.2]"


STRICT_REFUSALS: dict[str, tuple[dict[str, Answer], str]] = {
    "not offered": ({"EHLO": b"250 mx\r\n"}, "4.7.4"),
    "refused": ({"STARTTLS": b"454 4.7.0 not now\r\n"}, "4.7.4"),
    "refused for good": ({"STARTTLS": b"554 5.7.0 no\r\n"}, "4.7.4"),
}


@pytest.mark.parametrize("level", ["required", "verified"])
@pytest.mark.parametrize(
    ("answers", "status"), STRICT_REFUSALS.values(), ids=STRICT_REFUSALS.keys()
)
async def test_nothing_leaves_in_the_clear_where_tls_is_required(
    authority: Authority, answers: dict[str, Answer], status: str, level: str
) -> None:
    host = secure(authority, **answers)
    async with running(host):
        sender = Sender(host, tls=level)
        outcome = await sender.send()
        await sender.aclose()
    assert isinstance(outcome, Deferred)
    assert (outcome.status, outcome.hop_failed) == (status, True)
    assert not any(line.startswith("MAIL") for line in host.lines)


async def test_a_stripped_host_is_left_for_the_next(authority: Authority) -> None:
    stripped = Host({"EHLO": b"250 mx\r\n"})
    good = secure(authority, "mx2.whizzer.test")
    async with running(stripped, good):
        sender = Sender(good, tls="required")
        outcome = await sender.send("two.test")
        await sender.aclose()
    assert isinstance(outcome, Delivered)
    assert outcome.peer == "mx2.whizzer.test [127.0.0.3]"
    assert not stripped.messages
    assert len(good.messages) == 1


async def test_required_does_not_look_at_the_certificate(stranger: Authority) -> None:
    host = Host(ON_REQUEST, tls=stranger.server_context("wrong.test", expired=True))
    async with running(host):
        sender = Sender(host, tls="required")
        assert isinstance(await sender.send(), Delivered)
        await sender.aclose()


CERTIFICATES: dict[str, tuple[tuple[str, ...], dict[str, Any], bool]] = {
    "of the host": ((MX,), {}, True),
    "in capitals": (("MX.Whizzer.TEST",), {}, True),
    "wildcard": (("*.whizzer.test",), {}, True),
    "one of many": (("a.test", MX), {}, True),
    "of the domain, wanted": (("whizzer.test",), {"tls_names": ("domain",)}, True),
    "either": (("whizzer.test",), {"tls_names": ("host", "domain")}, True),
    "named": (("mail.x.test",), {"tls_names": ("mail.x.test",)}, True),
    "beneath": (("a.b.x.test",), {"tls_names": (".x.test",)}, True),
    "of another": (("mx2.whizzer.test",), {}, False),
    "of the domain": (("whizzer.test",), {}, False),
    "of the host, domain wanted": ((MX,), {"tls_names": ("domain",)}, False),
    "wildcard too high": (("*.test",), {}, False),
    "wildcard too low": (("*.mx.whizzer.test",), {}, False),
    "not beneath": (("x.test",), {"tls_names": (".x.test",)}, False),
    "beneath by spelling": (("evilx.test",), {"tls_names": (".x.test",)}, False),
    "an address": (("127.0.0.2",), {}, False),
}


@pytest.mark.parametrize(
    ("names", "settings", "good"), CERTIFICATES.values(), ids=CERTIFICATES.keys()
)
async def test_names_in_certificates(
    authority: Authority, names: tuple[str, ...], settings: dict[str, Any], good: bool
) -> None:
    host = secure(authority, *names)
    async with running(host):
        sender = Sender(host, tls="verified", ca_file=authority.ca_file, **settings)
        outcome = await sender.send()
        await sender.aclose()
    if good:
        assert isinstance(outcome, Delivered)
        assert [event.verify for event in sender.told(TlsStarted)] == ["OK"]
    else:
        assert isinstance(outcome, Deferred)
        assert outcome.status == "4.7.5"
        assert "its certificate is for" in outcome.text
        assert not any(line.startswith("MAIL") for line in host.lines)


async def test_the_common_name_counts_if_there_is_no_other(
    authority: Authority,
) -> None:
    host = Host(ON_REQUEST, tls=authority.server_context(common_name=MX))
    async with running(host):
        sender = Sender(host, tls="verified", ca_file=authority.ca_file)
        assert isinstance(await sender.send(), Delivered)
        await sender.aclose()


async def test_an_address_literal_is_verified_by_address(authority: Authority) -> None:
    host = secure(authority, "127.0.0.2")
    async with running(host):
        sender = Sender(host, tls="verified", ca_file=authority.ca_file)
        assert isinstance(await sender.send(f"[127.0.0.2]:{host.port}"), Delivered)
        await sender.aclose()
    assert host.names == [""]  # RFC 6066 §3: no addresses in SNI


@pytest.mark.parametrize("expired", [False, True])
async def test_chains_that_are_not_trusted(
    authority: Authority, stranger: Authority, expired: bool
) -> None:
    issuer = authority if expired else stranger
    host = Host(ON_REQUEST, tls=issuer.server_context(MX, expired=expired))
    async with running(host):
        sender = Sender(host, tls="verified", ca_file=authority.ca_file)
        outcome = await sender.send()
        await sender.aclose()
    assert isinstance(outcome, Deferred)
    assert outcome.status == "4.7.5"
    assert ("expired" if expired else "issuer") in outcome.text
    assert not host.messages
    assert not host.handshakes


async def test_old_versions_are_refused(authority: Authority) -> None:
    host = Host(ON_REQUEST, tls=outdated(authority))
    async with running(host):
        sender = Sender(host, tls="required")
        outcome = await sender.send()
        await sender.aclose()
    assert isinstance(outcome, Deferred)
    assert outcome.status == "4.7.5"


@pytest.mark.parametrize(
    "injected",
    [
        b"250 2.1.0 injected\r\n",
        b"250-mx\r\n250-AUTH PLAIN\r\n250 SIZE 1\r\n",
        b"250-half a rep",
        b"421 4.3.2 go away\r\n",
        b"\x16\x03\x01",
    ],
)
async def test_what_is_said_ahead_of_the_handshake_is_discarded_and_logged(
    authority: Authority, injected: bytes
) -> None:
    host = secure(authority, STARTTLS=READY + injected)
    async with running(host):
        sender = Sender(host, tls="verified", ca_file=authority.ca_file)
        outcome = await sender.send()
        await sender.aclose()
    assert isinstance(outcome, Delivered)
    (told,) = sender.told(TlsFailed)
    assert told.error == (
        f"discarded {len(injected)} octets sent ahead of the handshake"
    )
    assert "MAIL From:<betty@gonzo.test>" in host.lines  # SIZE was not offered within


async def test_tls_from_the_first_octet(authority: Authority) -> None:
    host = Host(tls=authority.server_context(MX), implicit=True)
    async with running(host):
        sender = Sender(host, ca_file=authority.ca_file)
        hop = f"[{MX}]:{host.port};tls=verified;implicit=always"
        assert isinstance(await sender.send(hop), Delivered)
        await sender.aclose()
    assert host.handshakes == ["TLSv1.3"]
    assert "STARTTLS" not in host.lines


async def test_implicit_tls_is_never_left_out(authority: Authority) -> None:
    host = Host(tls=outdated(authority), implicit=True)
    async with running(host):
        sender = Sender(host, implicit_tls="always")
        outcome = await sender.send()
        await sender.aclose()
    assert isinstance(outcome, Deferred)
    assert outcome.status == "4.7.5"
    assert not host.messages


async def test_our_own_certificate_is_shown(
    authority: Authority, tmp_path: Path
) -> None:
    context = authority.server_context(MX)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(authority.ca_file)
    host = Host(ON_REQUEST, tls=context)
    async with running(host):
        ours = authority.issue("gonzo.test")
        sender = Sender(host, tls="verified", ca_file=authority.ca_file)
        assert isinstance(await sender.send(), Deferred)
        shown = Sender(
            host, tls="verified", ca_file=authority.ca_file, certificate=ours
        )
        assert isinstance(await shown.send(), Delivered)
        broken = Sender(host, tls="required", certificate=str(tmp_path / "none.pem"))
        outcome = await broken.send()
        for one in (sender, shown, broken):
            await one.aclose()
    assert isinstance(outcome, Deferred)
    assert outcome.status == "4.3.5"
    assert "none.pem" in broken.told(TlsFailed)[0].error
    assert "none.pem" not in outcome.text


async def test_sessions_are_resumed(authority: Authority) -> None:
    host = secure(authority)
    async with running(host):
        sender = Sender(
            host,
            tls="verified",
            ca_file=authority.ca_file,
            messages_per_connection_max=1,
        )
        for _ in range(3):
            assert isinstance(await sender.send(), Delivered)
        await sender.aclose()
    assert len(host.handshakes) == 3
    assert host.resumed == 2
    assert [event.resumed for event in sender.told(TlsStarted)] == [False, True, True]


async def test_the_dialogue_tells_of_tls(authority: Authority) -> None:
    host = secure(authority)
    said: list[str] = []
    async with running(host):
        sender = Sender(host, tls="verified", ca_file=authority.ca_file)
        assert isinstance(await sender.send(say=said.append), Delivered)
        await sender.aclose()
    assert "(TLS: TLSv1.3, TLS_AES_256_GCM_SHA384, mx.whizzer.test verified)" in said
    assert said.count(">>> EHLO gonzo.test") == 2


# -- terms per destination ------------------------------------------------------


async def test_terms_are_those_of_the_destination(authority: Authority) -> None:
    host = Host()
    async with running(host):
        strict = Destination(match=(".whizzer.test",), tls="required")
        sender = Sender(host, destination=(strict,))
        by_host = await sender.send("two.test")  # its hosts are mx.whizzer.test, ...
        assert isinstance(by_host, Deferred)
        assert isinstance(await sender.send("whizzer.test;tls=off"), Delivered)
        assert isinstance(await sender.send("[127.0.0.2]"), Delivered)
        await sender.aclose()
    assert len(host.messages) == 2


async def test_other_terms_are_other_connections(authority: Authority) -> None:
    host = secure(authority)
    async with running(host):
        sender = Sender(host)
        await sender.send("whizzer.test;tls=off")
        await sender.send()
        await sender.send("whizzer.test;helo=other.test")
        await sender.send("whizzer.test;source=127.0.0.9")
        await sender.send()
        await sender.aclose()
    assert host.connections == 4
    assert host.callers == ["127.0.0.1", "127.0.0.1", "127.0.0.1", "127.0.0.9"]
    assert host.lines.count("EHLO other.test") == 2


async def test_a_certificate_of_one_domain_is_none_of_another(
    authority: Authority,
) -> None:
    """Both have the same hosts, but a connection made for one is not for the other."""
    host = secure(authority, "whizzer.test")
    zone = {**ZONE, "other.test MX": ["10 mx.whizzer.test"]}
    async with running(host):
        sender = Sender(
            host,
            zone,
            tls="verified",
            tls_names=("domain",),
            ca_file=authority.ca_file,
        )
        assert isinstance(await sender.send(), Delivered)
        assert isinstance(await sender.send("other.test"), Deferred)
        assert isinstance(await sender.send(), Delivered)
        await sender.aclose()
    assert host.connections == 2
    assert len(host.messages) == 2


async def test_failures_on_some_terms_are_none_on_others(authority: Authority) -> None:
    """What the schedule lets rest is a destination on the same terms."""
    host = secure(authority)
    async with running(host):
        sender = Sender(host)
        await sender.send("whizzer.test;tls=verified")
        await sender.send()
        await sender.aclose()
    assert len(set(sender.bound.values())) == 2


# -- REQUIRETLS -----------------------------------------------------------------


async def test_requiretls_goes_to_a_verified_host_that_knows_it(
    authority: Authority,
) -> None:
    host = Host(WITH_REQUIRETLS, tls=authority.server_context(MX))
    async with running(host):
        sender = Sender(host, ca_file=authority.ca_file)
        assert isinstance(await sender.send(requiretls=True), Delivered)
        assert isinstance(await sender.send(), Delivered)
        await sender.aclose()
    assert host.connections == 2  # its connection is its own
    mails = [line for line in host.lines if line.startswith("MAIL")]
    assert [line.endswith(" REQUIRETLS") for line in mails] == [True, False]


REQUIRETLS_FAILURES: dict[str, tuple[dict[str, Answer], tuple[str, ...], str]] = {
    "not known there": ({"EHLO/TLS": b"250 mx\r\n"}, (MX,), "5.7.30"),
    "only known in the clear": (
        {"EHLO": OFFERS[:-10] + b"REQUIRETLS\r\n", "EHLO/TLS": b"250 mx\r\n"},
        (MX,),
        "5.7.10",
    ),
    "no TLS": ({"EHLO": b"250-mx\r\n250 REQUIRETLS\r\n"}, (MX,), "5.7.10"),
    "no TLS just now": ({"STARTTLS": b"454 4.7.0 no\r\n"}, (MX,), "5.7.10"),
    "another's certificate": ({}, ("evil.test",), "5.7.10"),
}


@pytest.mark.parametrize("aloud", [False, True])
@pytest.mark.parametrize(
    ("answers", "names", "status"),
    REQUIRETLS_FAILURES.values(),
    ids=REQUIRETLS_FAILURES.keys(),
)
async def test_requiretls_fails_rather_than_go_unprotected(
    authority: Authority,
    answers: dict[str, Answer],
    names: tuple[str, ...],
    status: str,
    aloud: bool,
) -> None:
    tls = authority.server_context(*names)
    host = Host({**WITH_REQUIRETLS, **answers}, tls=tls)
    said: list[str] = []
    async with running(host):
        sender = Sender(host, ca_file=authority.ca_file)
        say = said.append if aloud else None
        outcome = await sender.send(requiretls=True, say=say)
        await sender.aclose()
    assert isinstance(outcome, Failed)
    assert outcome.status == status
    assert not host.messages


async def test_requiretls_tries_the_next_host(authority: Authority) -> None:
    plain = Host()
    names = ("mx2.whizzer.test",)
    good = Host(WITH_REQUIRETLS, tls=authority.server_context(*names))
    async with running(plain, good):
        sender = Sender(good, ca_file=authority.ca_file)
        outcome = await sender.send("two.test", requiretls=True)
        await sender.aclose()
    assert isinstance(outcome, Delivered)
    assert plain.lines[-1] == "QUIT"  # RFC 8689 §4.2.1


async def test_requiretls_leaves_a_host_that_does_not_know_it(
    authority: Authority,
) -> None:
    names = (MX, "mx2.whizzer.test")
    unknowing = secure(authority, *names)
    good = Host(WITH_REQUIRETLS, tls=authority.server_context(*names))
    async with running(unknowing, good):
        sender = Sender(good, ca_file=authority.ca_file)
        outcome = await sender.send("two.test", requiretls=True)
        await sender.aclose()
    assert isinstance(outcome, Delivered)
    assert len(good.messages) == 1


async def test_requiretls_waits_for_a_host_that_is_down(authority: Authority) -> None:
    plain, down = Host(), Host({"@": b"421 4.3.2 later\r\n"})
    async with running(plain, down):
        sender = Sender(down, ca_file=authority.ca_file)
        outcome = await sender.send("two.test", requiretls=True)
        await sender.aclose()
    assert isinstance(outcome, Deferred)


async def test_requiretls_by_names_that_mx_cannot_forge(authority: Authority) -> None:
    host = Host(WITH_REQUIRETLS, tls=authority.server_context(MX))
    domain = Host(WITH_REQUIRETLS, tls=authority.server_context("two.test"))
    async with running(host, domain):
        sender = Sender(domain, ca_file=authority.ca_file, requiretls_mx="validated")
        assert isinstance(await sender.send(requiretls=True), Failed)
        assert isinstance(await sender.send("two.test", requiretls=True), Delivered)
        hop = f"[{MX}]:{host.port}"
        assert isinstance(await sender.send(hop, requiretls=True), Delivered)
        await sender.aclose()
    assert len(host.messages) == len(domain.messages) == 1


async def test_a_bounce_is_not_lost_for_want_of_requiretls() -> None:
    host = Host()
    async with running(host):
        sender = Sender(host)
        outcome = await sender.send(requiretls=True, bounce=True)
        await sender.aclose()
    assert isinstance(outcome, Delivered)
    assert "MAIL From:<> SIZE=22" in host.lines


# -- TLS-Required: No -----------------------------------------------------------

NO = b"Subject: hi\r\nTLS-Required: No\r\n"
HEADERS: dict[str, tuple[bytes, dict[str, Any], bool]] = {
    "No": (NO, {}, True),
    "no, folded": (b"tls-required:\r\n\tno\r\n", {}, True),
    "not there": (b"Subject: hi\r\n", {}, False),
    "Yes": (b"TLS-Required: Yes\r\n", {}, False),
    "twice": (NO + NO, {}, False),
    "not heeded": (NO, {"heed_tls_required": False}, False),
    "of another": (b"X-TLS-Required: No\r\n", {}, False),
}


@pytest.mark.parametrize(
    ("header", "settings", "goes"), HEADERS.values(), ids=HEADERS.keys()
)
async def test_tls_required_no(
    header: bytes, settings: dict[str, Any], goes: bool
) -> None:
    host = Host()
    async with running(host):
        sender = Sender(host, tls="verified", **settings)
        outcome = await sender.send(header=header)
        await sender.aclose()
    assert isinstance(outcome, Delivered if goes else Deferred)


async def test_requiretls_wins_over_the_header() -> None:
    host = Host()
    async with running(host):
        sender = Sender(host)
        assert isinstance(await sender.send(header=NO, requiretls=True), Failed)
        await sender.aclose()


# -- LMTP -----------------------------------------------------------------------


async def test_lmtp_by_tls(authority: Authority) -> None:
    answers = {"LHLO": OFFERS, "STARTTLS": READY + b"250 injected\r\n"}
    host = Host(answers, lmtp=True, tls=authority.server_context("127.0.0.2"))
    async with running(host):
        settings = SmtpAgentSettings(tls="verified", ca_file=authority.ca_file)
        agent = lmtp_agent(settings, FakeResolver(), "gonzo.test")
        hop = f"[127.0.0.2]:{host.port}"
        outcomes = await agent.deliver(attempt(hop, agent="lmtp"))
        # on this machine no network is crossed
        local = await agent.deliver(attempt(hop, agent="lmtp", requiretls=True))
        await agent.aclose()
    assert all(isinstance(outcome, Delivered) for outcome in (*outcomes, *local))
    assert host.lines[:3] == ["LHLO gonzo.test", "STARTTLS", "LHLO gonzo.test"]


async def test_lmtp_by_socket_needs_no_tls(tmp_path: Path) -> None:
    host = Host(lmtp=True)
    path = str(tmp_path / "lmtp")
    server = await asyncio.start_unix_server(host.serve, path)
    settings = SmtpAgentSettings(tls="verified")
    agent = lmtp_agent(settings, FakeResolver(), "gonzo.test")
    for hop in (f"unix:{path}", path):
        (outcome,) = await agent.deliver(attempt(hop, agent="lmtp"))
        assert isinstance(outcome, Delivered)
    await agent.aclose()
    server.close()
