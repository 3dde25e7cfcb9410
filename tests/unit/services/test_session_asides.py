"""Commands beside a message, in a session: who is told what, and who may ask."""

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from postroom import hook, reject
from postroom.mail.envelope import Origin
from postroom.mail.outcome import Attempt, Outcome
from postroom.mail.tls import TlsFacts
from postroom.observe.events import CommandRejected
from postroom.smtp.settings import ServerSettings
from postroom.spool.selection import QueueFilter
from postroom.spool.spool import SpoolError
from postroom.testing.session import HELLO, STRANGER, begin, say, whole
from postroom.testing.workbench import Plan, bench

ALIASES = {
    "crew": ["joe", "betty@gonzo.test", "ann@elsewhere.test"],
    "nobody": [],
    "world": ["jürgen@elsewhere.test"],
}


@pytest.mark.parametrize(
    ("line", "reply"),
    [
        ("VRFY joe", "250 2.1.5 <joe@gonzo.test>"),
        ("VRFY <joe@gonzo.test>", "250 2.1.5 <joe@gonzo.test>"),
        ("VRFY Joe Doe <joe@gonzo.test>", "250 2.1.5 <joe@gonzo.test>"),
        ("VRFY crew", "250 2.1.5 <crew@gonzo.test>"),
        ("VRFY nosuch", "550 5.1.1 User unknown"),
        ("VRFY joe@elsewhere.test", "252 2.5.2"),
        ("VRFY jürgen", "252 2.6.8"),
        ("VRFY jürgen SMTPUTF8", "550 5.1.1"),
        ("VRFY a@b@c", "501 5.1.3"),
        ("VRFY <>", "501 5.1.3"),
        ("EXPN joe", "250 2.1.5 <joe@gonzo.test>"),
        ("EXPN nosuch", "550 5.1.1"),
        ("EXPN joe@elsewhere.test", "550 5.1.1"),
        ("EXPN world", "252 2.6.8"),
        ("EXPN world SMTPUTF8", "250 2.1.5 <jürgen@elsewhere.test>"),
        ("EXPN <", "501 5.1.3"),
    ],
)
async def test_asking_for_users(line: str, reply: str) -> None:
    server = ServerSettings(vrfy=True, expn=True)
    async with bench(Plan(server=server, aliases=ALIASES)) as b:
        said = await whole(b, f"{line}\n", "QUIT\n")
        assert said.replies[-2].startswith(reply)


async def test_members_of_a_list_are_for_those_who_may_know() -> None:
    server = ServerSettings(expn=True)
    async with bench(Plan(server=server, aliases=ALIASES)) as b:
        said = await whole(b, "EXPN crew\n")
        assert said.replies[-3:] == [
            "250-2.1.5 <joe@gonzo.test>",
            "250-2.1.5 <betty@gonzo.test>",
            "250 2.1.5 <ann@elsewhere.test>",
        ]
        assert await say(b, "EXPN crew\n", origin=STRANGER) == ["550 5.7.1"]
        assert b.told(CommandRejected)[-1].rule == "expn_networks"


async def test_switched_off_they_tell_nothing() -> None:
    async with bench(Plan(aliases=ALIASES)) as b:
        codes = await say(b, "VRFY joe\nVRFY nosuch\nEXPN crew\n")
        assert codes == ["252 2.5.2", "252 2.5.2", "502 5.7.0"]


@pytest.mark.parametrize(
    ("line", "reply"),
    [
        ("HELP", "214-2.0.0 Commands: EHLO HELO MAIL"),
        ("HELP mail", "214-2.0.0 MAIL FROM:<sender>"),
        ("HELP NOOP", "214-2.0.0 NOOP [text]"),
        ("HELP ETRN", '504 5.3.0 HELP topic "ETRN" unknown'),
        ("HELP nonsense", '504 5.3.0 HELP topic "nonsense" unknown'),
    ],
)
async def test_help(line: str, reply: str) -> None:
    async with bench() as b:
        said = await whole(b, f"{line}\n")
        assert said.written.decode().split("250 HELP\r\n")[1].startswith(reply)


async def test_verb_tells_what_is_done() -> None:
    async with bench(Plan(server=ServerSettings(verb=True))) as b:
        agent = b.agents["mailbox"]
        deliver = agent.deliver

        async def tell(attempt: Attempt) -> Sequence[Outcome]:
            assert attempt.say is not None
            attempt.say("joe... Connecting to local...")
            return await deliver(attempt)

        vars(agent)["deliver"] = tell
        said = await whole(
            b, "VERB\n", begin(), "DATA\n", "Subject: s\n\nhello\n.\n", "QUIT\n"
        )
        assert said.replies[-3] == "050 joe... Connecting to local..."
        assert said.replies[-2].startswith("250 2.0.0 ")


class Flushed:
    """Takes the place of all workers' queues."""

    def __init__(self, count: int, fault: SpoolError | None = None) -> None:
        self.wanted: list[QueueFilter] = []
        self._count = count
        self._fault = fault

    async def __call__(self, wanted: QueueFilter) -> int:
        await asyncio.sleep(0)
        self.wanted.append(wanted)
        if self._fault:
            raise self._fault
        return self._count


@pytest.mark.parametrize(
    ("node", "wanted", "count", "reply"),
    [
        ("c.test", QueueFilter(domains=("c.test",)), 14, "253 2.0.0 OK, 14 pending"),
        ("C.test.", QueueFilter(domains=("c.test",)), 0, "251 2.0.0 OK, no messages"),
        ("@c.test", QueueFilter(domains=("c.test", "*.c.test")), 1, "253 2.0.0 OK, 1"),
        ("#[192.0.2.1]:25", QueueFilter(hops=("[192.0.2.1]:25",)), 1, "253 "),
        ("@test", None, 1, "458 4.5.0 Unable"),
        ("#*", None, 1, "458 4.5.0 Unable"),
    ],
)
async def test_etrn(
    node: str, wanted: QueueFilter | None, count: int, reply: str
) -> None:
    async with bench(Plan(server=ServerSettings(etrn=True))) as b:
        flushed = Flushed(count)
        b.tools = b.tools._replace(flush=flushed)
        said = await whole(b, f"ETRN {node}\n")
        assert said.replies[-1].startswith(reply)
        assert flushed.wanted == ([wanted] if wanted else [])


async def test_etrn_is_for_those_who_may() -> None:
    async with bench(Plan(server=ServerSettings(etrn=True))) as b:
        flushed = Flushed(1)
        b.tools = b.tools._replace(flush=flushed)
        assert await say(b, "ETRN c.test\n", origin=STRANGER) == ["459 4.7.1"]
        assert not flushed.wanted
        assert b.told(CommandRejected)[-1].rule == "etrn_networks"


async def test_etrn_with_a_broken_queue() -> None:
    async with bench(Plan(server=ServerSettings(etrn=True))) as b:
        b.tools = b.tools._replace(flush=Flushed(1, SpoolError("broken")))
        assert await say(b, "ETRN c.test\n") == ["458 4.3.0"]


PROXY = ServerSettings(xclient_networks=("127.0.0.0/8",))


async def test_a_proxy_speaks_for_another() -> None:
    seen: list[Any] = []

    @hook.rcpt
    def look(session: Any, rcpt: Any) -> Any:
        seen.append((session.origin, session.local_ip))

    async with bench(Plan(server=PROXY, hooks=[look])) as b:
        said = await whole(
            b,
            "XCLIENT NAME=mail.c.test ADDR=192.0.2.7 PORT=99 DESTADDR=192.0.2.1\n",
            "EHLO other.test\n",
            begin(),
        )
        assert said.codes[2:4] == ["220", "250"]
        ((origin, local_ip),) = seen
        assert origin.client_ip == "192.0.2.7"
        assert origin.client_name == "mail.c.test"
        assert origin.client_port == 99
        assert origin.helo == "other.test"
        assert local_ip == "192.0.2.1"


async def test_a_proxys_client_relays_as_little_as_any() -> None:
    async with bench(Plan(server=PROXY)) as b:
        rcpt = "MAIL FROM:<>\nRCPT TO:<ann@elsewhere.test>\n"
        codes = await say(b, "XCLIENT ADDR=192.0.2.7\n", HELLO, rcpt)
        assert codes[-1] == "550 5.7.1"
        assert (await say(b, rcpt))[-1] == "250 2.1.5"  # the proxy itself may


@pytest.mark.parametrize(
    "claim",
    ["ADDR=[UNAVAILABLE]", "ADDR=[TEMPUNAVAIL]", "ADDR=192.0.2.7", "NAME=mail.c.test"],
)
async def test_what_a_proxy_was_before_is_not_its_clients(claim: str) -> None:
    rcpt = "MAIL FROM:<joe@gonzo.test>\nRCPT TO:<x@elsewhere.test>\n"
    tls = TlsFacts("TLSv1.3", "C", 256, verify="OK", emails=("joe@gonzo.test",))
    proxy = msgspec.structs.replace(STRANGER, tls=tls)
    seen: list[Origin] = []

    @hook.mail
    def look(session: Any, mail: Any) -> None:
        seen.append(session.origin)

    server = ServerSettings(xclient_networks=("127.0.0.0/8", "192.0.2.0/24"))
    async with bench(Plan(server=server, hooks=[look])) as b:
        claims = f"XCLIENT ADDR=192.0.2.9 LOGIN=joe\n{HELLO}", f"XCLIENT {claim}\n"
        codes = await say(b, *claims, HELLO, rcpt, origin=proxy)
        assert codes[-1] == "550 5.7.1"
        codes = await say(b, claims[0], rcpt, origin=proxy)
        assert codes[-1] == "250 2.1.5"  # the login, as long as it was claimed
        assert [origin.login for origin in seen] == ["", "joe"]
        for origin in seen:
            assert origin.tls is not None
            assert (origin.tls.verify, origin.tls.emails) == ("NOT", ())


@pytest.mark.parametrize("claim", ["[UNAVAILABLE]", "[TEMPUNAVAIL]"])
async def test_a_proxys_client_of_no_address_does_not_relay(claim: str) -> None:
    async with bench(Plan(server=PROXY)) as b:
        rcpt = "MAIL FROM:<ann@c.test>\nRCPT TO:<x@elsewhere.test>\n"
        codes = await say(b, f"XCLIENT ADDR={claim}\n", HELLO, rcpt)
        assert codes[-1] == "550 5.7.1"


async def test_a_proxys_client_may_be_turned_away() -> None:
    @hook.connect
    def no(session: Any, connect: Any) -> Any:
        return reject("5.7.1", "no") if connect.client_ip == "192.0.2.7" else None

    async with bench(Plan(server=PROXY, hooks=[no])) as b:
        codes = await say(b, "XCLIENT ADDR=192.0.2.7\n", HELLO, "NOOP\n")
        assert codes == ["554 5.7.1"]


async def test_xclient_is_unknown_to_others() -> None:
    async with bench(Plan(server=PROXY)) as b:
        codes = await say(b, "XCLIENT ADDR=127.0.0.1\n", begin(), origin=STRANGER)
        assert codes[0] == "502 5.5.1"
        assert b.told(CommandRejected)[0].origin.client_ip == "192.0.2.7"


def test_bad_settings_are_named() -> None:
    for change, text in (
        ({"etrn_networks": ("nonsense",)}, "etrn_networks"),
        ({"xclient_networks": ("10.0.0.1/8",)}, "xclient_networks"),
        ({"mt_priority_max": 10}, "mt_priority"),
        ({"mt_priority_min": 1}, "mt_priority"),
        ({"mt_priority_policy": "a b"}, "mt_priority_policy"),
    ):
        with pytest.raises(ValueError, match=text):
            msgspec.structs.replace(ServerSettings(), **change)
