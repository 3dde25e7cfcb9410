"""What the agent sends to hosts of different abilities, and says of the outcome.

The hosts are our own server's core on loopback, with some of its extensions hidden.
"""

from collections.abc import Sequence
from email import message_from_bytes
from typing import Any

import msgspec
import pytest

from postroom.agents.settings import SmtpAgentSettings
from postroom.agents.smtp import SmtpAgent
from postroom.dns.own import OwnNames
from postroom.mail.address import Address
from postroom.mail.envelope import BodyType, Envelope, Recipient
from postroom.mail.ids import QueueId
from postroom.mail.message import CHUNK_OCTETS, Body, MemoryBody, Message
from postroom.mail.now import SECOND_US
from postroom.mail.outcome import Attempt, Deferred, Delivered, Failed, Outcome
from postroom.mail.route import Route
from postroom.net.clock import read_now
from postroom.smtp.settings import ServerSettings
from postroom.testing.resolver import FakeResolver
from postroom.testing.scripted_host import ScriptedHost, running
from postroom.testing.served_site import ServedSite, served
from postroom.testing.site import Site

MIME = b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=iso-8859-1\r\n"
JOE = Address("joe", "whizzer.test")
BOB = Address("bob", "whizzer.test")
UMLAUT = Address("jürgen", "whizzer.test")


class StoredBody:
    """A body that is read in pieces, as from a file."""

    def __init__(self, data: bytes, fails_at: int = 1 << 60) -> None:
        self.data = data
        self.size = len(data)
        self._fails_at = fails_at

    async def read(self, offset: int, octets: int) -> bytes:
        if offset >= self._fails_at:
            raise OSError("the disk is gone")
        return self.data[offset : offset + octets]


def attempt(
    *recipients: Address | Recipient,
    header: bytes = b"Subject: hi\r\n",
    body: bytes | Body = b"Text.\r\n",
    **envelope: Any,
) -> Attempt:
    given = [r if isinstance(r, Recipient) else Recipient(r) for r in recipients]
    sender = envelope.pop("sender", Address("betty", "gonzo.test"))
    envelope["body"] = envelope.pop("kind", BodyType.SEVEN_BIT)
    return Attempt(
        QueueId("0Abcdefghij"),
        Envelope(sender, tuple(given or [Recipient(JOE)]), **envelope),
        tuple(range(len(given) or 1)),
        Message(header, MemoryBody(body) if isinstance(body, bytes) else body),
        Route("smtp", "whizzer.test"),
        read_now(),
    )


def site(*hidden: str, **settings: Any) -> Site:
    return Site(ServerSettings(hidden_keywords=hidden, **settings))


def agent_at(port: int, **settings: Any) -> SmtpAgent:
    zone = {"whizzer.test MX": ["10 mx.whizzer.test"], "mx.whizzer.test A": "127.0.0.2"}
    chosen = SmtpAgentSettings(port=port, **settings)
    return SmtpAgent(chosen, FakeResolver(zone), "gonzo.test", OwnNames())


async def deliver(
    host: Site, *attempts: Attempt, **settings: Any
) -> tuple[ServedSite, list[Sequence[Outcome]]]:
    async with served(host) as serving:
        agent = agent_at(serving.port, **settings)
        outcomes = [await agent.deliver(one) for one in attempts]
        await agent.aclose()
    return serving, outcomes


def leaf(content: bytes) -> object:
    return message_from_bytes(content).get_payload(decode=True)


# -- 8 bits ---------------------------------------------------------------------


async def test_eight_bits_stay_where_they_may() -> None:
    letter = attempt(header=MIME, body=b"caf\xe9\r\n", kind=BodyType.EIGHT_BIT)
    serving, ((outcome,),) = await deliver(site(), letter)
    assert isinstance(outcome, Delivered)
    assert serving.commands()[1].endswith(" BODY=8BITMIME")
    assert serving.site.messages[0].content == MIME + b"\r\ncaf\xe9\r\n"


@pytest.mark.parametrize("stored", [False, True], ids=["in-memory", "stored"])
async def test_eight_bits_are_converted_for_others(stored: bool) -> None:
    text = b"A caf\xe9 with enough letters around.\r\n" * (3000 if stored else 1)
    body: bytes | Body = StoredBody(text) if stored else text
    letter = attempt(header=MIME, body=body, kind=BodyType.EIGHT_BIT)
    serving, ((outcome,),) = await deliver(site("8BITMIME", "CHUNKING"), letter)
    assert isinstance(outcome, Delivered)
    assert "BODY" not in serving.commands()[1]
    content = serving.site.messages[0].content
    assert content.isascii()
    assert b"from 8bit to quoted-printable by gonzo.test id 0Abcdefghij\r\n" in content
    assert leaf(content) == text


async def test_eight_bits_pass_where_that_is_wanted() -> None:
    letter = attempt(header=MIME, body=b"caf\xe9\r\n", kind=BodyType.EIGHT_BIT)
    serving, _ = await deliver(site("8BITMIME"), letter, eight_bit="pass")
    assert serving.site.messages[0].content == MIME + b"\r\ncaf\xe9\r\n"


async def test_seven_bits_are_not_touched_for_others() -> None:
    letters = [attempt(), attempt(body=StoredBody(b"Text.\r\n" * 20_000))]
    serving, outcomes = await deliver(site("8BITMIME"), *letters)
    assert all(isinstance(o, Delivered) for (o,) in outcomes)
    sent = [message.content for message in serving.site.messages]
    assert sent == [
        b"Subject: hi\r\n\r\n" + b"Text.\r\n" * times for times in (1, 20_000)
    ]


async def test_long_lines() -> None:
    letter = attempt(body=b"x" * 2000 + b"\r\n")
    for settings, converted in (({}, False), ({"long_lines": "convert"}, True)):
        serving, _ = await deliver(site(), letter, **settings)
        assert (b"quoted-printable" in serving.site.messages[0].content) is converted


# -- chunks and binary content ----------------------------------------------------


async def test_large_content_goes_in_chunks() -> None:
    body = StoredBody(b".a line\r\n" * 200_000)
    serving, ((outcome,),) = await deliver(site(), attempt(body=body))
    assert isinstance(outcome, Delivered)
    assert serving.site.messages[0].content == b"Subject: hi\r\n\r\n" + body.data
    said = serving.commands()
    assert "DATA" not in said
    assert serving.said[0].count(b"BDAT ") == 7
    assert serving.said[0].count(b" LAST\r\n") == 1


async def test_a_chunk_is_refused_and_the_connection_goes_on() -> None:
    large = attempt(body=StoredBody(b"a line\r\n" * 250_000))
    host = site("SIZE", message_octets_max=300_000)
    serving, ((refused,), (after,)) = await deliver(host, large, attempt())
    assert isinstance(refused, Failed)
    assert refused.status == "5.3.4"
    assert isinstance(after, Delivered)
    assert len(serving.said) == 1
    assert "RSET" in serving.commands()  # RFC 3030 §2


async def test_extensions_that_are_not_to_be_used() -> None:
    body = StoredBody(b"x" * 70 + b"\r\n" * 2000)
    ignored = ("chunking", "SIZE")
    serving, _ = await deliver(site(), attempt(body=body), ignored_extensions=ignored)
    assert "DATA" in serving.commands()
    assert "SIZE" not in serving.commands()[1]


def test_extensions_with_settings_of_their_own() -> None:
    with pytest.raises(ValueError, match='set "tls"'):
        SmtpAgentSettings(ignored_extensions=("StartTLS",))


BINARY = bytes(range(256)) * 30
BINARY_HEAD = b"MIME-Version: 1.0\r\nContent-Type: a/b\r\n"


def binary_letter(body: bytes = BINARY, header: bytes = BINARY_HEAD) -> Attempt:
    header += b"Content-Transfer-Encoding: binary\r\n"
    return attempt(header=header, body=body, kind=BodyType.BINARY)


async def test_binary_content_goes_as_it_is() -> None:
    serving, ((outcome,),) = await deliver(site(), binary_letter())
    assert isinstance(outcome, Delivered)
    assert serving.commands()[1].endswith(" BODY=BINARYMIME")
    assert serving.site.messages[0].content.endswith(b"\r\n\r\n" + BINARY)


@pytest.mark.parametrize("hidden", ["BINARYMIME", "CHUNKING", "PIPELINING"])
async def test_binary_content_is_converted(hidden: str) -> None:
    host = site(hidden, "BINARYMIME")
    serving, ((outcome,),) = await deliver(host, binary_letter())
    assert isinstance(outcome, Delivered)
    assert "BINARYMIME" not in serving.commands()[1]
    content = serving.site.messages[0].content
    assert b"from binary to base64" in content
    assert leaf(content) == BINARY


async def test_binary_content_that_cannot_be_converted() -> None:
    header = (
        b"MIME-Version: 1.0\r\nContent-Type: multipart/signed; boundary=b\r\n"
        b"Content-Transfer-Encoding: binary\r\n"
    )
    letter = attempt(
        header=header, body=b"--b\r\n\r\na\rb\r\n--b--\r\n", kind=BodyType.BINARY
    )
    serving, ((refused,), (after,)) = await deliver(
        site("BINARYMIME"), letter, attempt()
    )
    assert isinstance(refused, Failed)
    assert refused.status == "5.6.3"
    assert isinstance(after, Delivered)
    assert [m.content for m in serving.site.messages] == [
        b"Subject: hi\r\n\r\nText.\r\n"
    ]


async def test_a_body_that_cannot_be_read_is_never_half_sent() -> None:
    for hidden in ("8BITMIME", "CHUNKING", "NONE"):
        body = StoredBody(b"\xe4" * 1000 + b"\r\n" + b"x\r\n" * 90_000, CHUNK_OCTETS)
        with pytest.raises(OSError, match="the disk is gone"):
            await deliver(host := site(hidden), attempt(body=body))
        assert not host.messages


# -- SMTPUTF8 ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("letter", "is_needed"),
    [
        (attempt(JOE, smtputf8=True), False),
        (attempt(UMLAUT, smtputf8=True), True),
        (attempt(JOE, sender=UMLAUT, smtputf8=True), True),
        (attempt(JOE, header="Subject: ä\r\n".encode(), smtputf8=True), True),
        # raw octets of old, from a client that did not say SMTPUTF8
        (attempt(JOE, header=b"Subject: \xe4\r\n"), False),
        (attempt(Address("joe", "bücher.test"), smtputf8=True), False),
    ],
)
async def test_smtputf8_where_it_is_needed(letter: Attempt, is_needed: bool) -> None:
    serving, ((outcome,),) = await deliver(site(), letter)
    assert isinstance(outcome, Delivered)
    assert serving.commands()[1].endswith(" SMTPUTF8") is is_needed
    serving, ((outcome,),) = await deliver(site("SMTPUTF8"), letter)
    if is_needed:
        assert isinstance(outcome, Failed)
        assert (outcome.status, outcome.code, outcome.said) == ("5.6.7", 0, ())
        assert not serving.site.messages
    else:
        assert isinstance(outcome, Delivered)


async def test_a_domain_outside_ascii_is_written_in_a_labels() -> None:
    serving, _ = await deliver(site(), attempt(Address("joe", "Bücher.test")))
    assert serving.commands()[2] == "RCPT To:<joe@xn--bcher-kva.test>"


async def test_only_some_recipients_need_smtputf8() -> None:
    letter = attempt(UMLAUT, JOE, smtputf8=True)
    serving, ((refused, taken),) = await deliver(site("SMTPUTF8"), letter)
    assert isinstance(refused, Failed)
    assert refused.status == "5.6.7"
    assert isinstance(taken, Delivered)
    assert serving.site.messages[0].recipients == (JOE,)


# -- several recipients -------------------------------------------------------------


async def test_each_recipient_has_an_outcome_of_its_own_with_prdr() -> None:
    host = site()
    host.failing.add("bob@whizzer.test")
    serving, ((joe, bob),) = await deliver(host, attempt(JOE, BOB))
    assert serving.commands()[1].endswith(" PRDR")
    assert isinstance(joe, Delivered)
    assert isinstance(bob, Failed)
    assert bob.status == "5.7.1"


async def test_as_many_recipients_as_a_host_takes_at_once() -> None:
    names = [Address(f"u{i}", "whizzer.test") for i in range(7)]
    host = site(recipients_max=3)
    serving, (outcomes,) = await deliver(host, attempt(*names))
    assert all(isinstance(outcome, Delivered) for outcome in outcomes)
    assert [len(message.recipients) for message in host.messages] == [3, 3, 1]
    assert "LIMITS" not in b"".join(serving.said).decode()


async def test_as_many_messages_as_a_host_takes_in_a_session() -> None:
    host = site(messages_max=2)
    serving, outcomes = await deliver(host, *[attempt() for _ in range(5)])
    assert all(isinstance(outcome, Delivered) for (outcome,) in outcomes)
    assert [said.count(b"MAIL") for said in serving.said] == [2, 2, 1]


# -- DELIVERBY and priorities -------------------------------------------------------


def by(value: str, *recipients: Recipient, ago_s: int = 10) -> Attempt:
    arrival_us = read_now().utc_us - ago_s * SECOND_US
    return attempt(*recipients, deliver_by=value, arrival_us=arrival_us)


async def test_the_time_that_is_left_is_said() -> None:
    serving, ((outcome,),) = await deliver(site(), by("1000;R"))
    assert isinstance(outcome, Delivered)
    assert not outcome.tells
    left, _, mode = serving.commands()[1].partition(" BY=")[2].partition(";")
    assert mode == "R"
    assert 900 < int(left) <= 990


async def test_time_that_is_over() -> None:
    serving, ((failed,), (late,)) = await deliver(site(), by("5;R"), by("5;NT"))
    assert isinstance(failed, Failed)
    assert failed.status == "5.4.7"
    assert isinstance(late, Delivered)
    assert late.tells  # it wants to be traced
    (mail,) = [line for line in serving.commands() if line.startswith("MAIL")]
    assert int(mail.partition(" BY=")[2].partition(";")[0]) < 0


async def test_hosts_that_know_no_time() -> None:
    host = site("DELIVERBY")
    plain, asked = Recipient(JOE), Recipient(JOE, notify="SUCCESS")
    never = Recipient(BOB, notify="NEVER")
    serving, outcomes = await deliver(
        host, by("1000;R"), by("1000;N", plain, never), by("1000;N", asked)
    )
    assert isinstance(outcomes[0][0], Failed)
    assert outcomes[0][0].status == "5.3.3"
    assert all(isinstance(o, Delivered) and o.tells for o in outcomes[1])
    # RFC 2852 §4.1.4.2: then delays are to be told of
    said = [line for line in serving.commands() if line.startswith("RCPT")]
    assert [line.partition("> ")[2].partition(" ORCPT")[0] for line in said] == [
        "NOTIFY=FAILURE,DELAY",
        "NOTIFY=NEVER",
        "NOTIFY=SUCCESS,DELAY",
    ]


async def test_a_priority_is_passed_on() -> None:
    for hidden, said in (("NONE", " MT-PRIORITY=-4"), ("MT-PRIORITY", "")):
        serving, _ = await deliver(site(hidden), attempt(priority=-4))
        line = serving.commands()[1]
        assert line == f"MAIL From:<betty@gonzo.test> SIZE=22{said}"


async def test_what_is_never_passed_on() -> None:
    """FUTURERELEASE is between a submitter and us (RFC 4865 §4)."""
    serving, _ = await deliver(site(), attempt(hold_until_us=1 << 50))
    assert "HOLD" not in serving.commands()[1]


async def test_requiretls_only_to_hosts_that_offer_it() -> None:
    letter = msgspec.structs.replace(attempt(requiretls=True))
    serving, ((outcome,),) = await deliver(site(), letter)
    assert isinstance(outcome, Failed | Deferred)
    assert not serving.site.messages


# -- while somebody listens (sendmail -v) -------------------------------------------


async def test_too_many_for_one_transaction_while_somebody_listens() -> None:
    names = [Address(f"u{i}", "whizzer.test") for i in range(5)]
    lines: list[str] = []
    letter = msgspec.structs.replace(attempt(*names), say=lines.append)
    host = site(recipients_max=2)
    _, (outcomes,) = await deliver(host, letter)
    assert all(isinstance(outcome, Delivered) for outcome in outcomes)
    assert [len(message.recipients) for message in host.messages] == [2, 2, 1]
    assert sum("... Sent" in line for line in lines) == 5


async def test_chunks_are_narrated_without_their_octets() -> None:
    lines: list[str] = []
    body = StoredBody(b"a line\r\n" * 40_000)
    letter = msgspec.structs.replace(attempt(body=body), say=lines.append)
    await deliver(site(), letter)
    said = [line for line in lines if line.startswith(">>> ")]
    assert any(line.startswith(">>> BDAT 2") for line in said)
    assert any(line.endswith(" LAST") for line in said)
    assert not any("a line" in line for line in said)


async def test_a_session_that_ended_takes_nothing_more() -> None:
    """Further parts of a long list wait; nobody waits for a reply that cannot come."""
    host = ScriptedHost({"MAIL": b"421 4.3.2 bye\r\n"})
    letter = msgspec.structs.replace(attempt(JOE, BOB), say=lambda line: None)
    async with running(host):
        agent = agent_at(host.port, recipients_max=1)
        outcomes = await agent.deliver(letter)
        await agent.aclose()
    assert all(isinstance(o, Deferred) and o.hop_failed for o in outcomes)
    assert len(outcomes) == 2
