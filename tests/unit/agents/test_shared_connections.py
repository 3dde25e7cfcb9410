"""Connections that workers and grades of mail share: who goes first, who gives way."""

import asyncio
from collections.abc import Sequence

import pytest

from postroom.agents.settings import SmtpAgentSettings
from postroom.agents.smtp import Links, SmtpAgent
from postroom.dns.own import OwnNames
from postroom.limits.grades import PASSES_MAX, Grade
from postroom.limits.shared import SharedCounters, map_octets, prepare_map
from postroom.mail.address import Address
from postroom.mail.envelope import Envelope, Recipient
from postroom.mail.ids import QueueId
from postroom.mail.message import MemoryBody, Message
from postroom.mail.now import Now
from postroom.mail.outcome import Attempt, Delivered, Outcome
from postroom.mail.route import Route
from postroom.testing.resolver import FakeResolver
from postroom.testing.scripted_host import ScriptedHost, running

ZONE = {"whizzer.test MX": ["10 mx.whizzer.test"], "mx.whizzer.test A": "127.0.0.2"}


def attempt(subject: str, grade: Grade = Grade.LETTER) -> Attempt:
    return Attempt(
        QueueId("0Abcdefghij"),
        Envelope(
            Address("betty", "gonzo.test"), (Recipient(Address("joe", "whizzer.test")),)
        ),
        (0,),
        Message(f"Subject: {subject}\r\n".encode(), MemoryBody(b"Text.\r\n")),
        Route("smtp", "whizzer.test"),
        Now(1_795_361_711_000_000, 0),
        grade=grade,
    )


def agents(host: ScriptedHost, workers: int, connections_max: int) -> list[SmtpAgent]:
    """Return the agents of as many workers, which share one map."""
    buffer = bytearray(map_octets(workers, 64))
    prepare_map(buffer)
    chosen = SmtpAgentSettings(port=host.port, connections_max=connections_max)
    return [
        SmtpAgent(
            chosen,
            FakeResolver(ZONE),
            "gonzo.test",
            OwnNames(),
            Links(counters=SharedCounters(buffer, workers, row)),
        )
        for row in range(workers)
    ]


def subjects(host: ScriptedHost) -> list[str]:
    return [m.partition(b"\r\n")[0].decode().split()[1] for m in host.messages]


async def all_delivered(outcomes: Sequence[asyncio.Task[Sequence[Outcome]]]) -> None:
    for (outcome,) in await asyncio.gather(*outcomes):
        assert isinstance(outcome, Delivered)


@pytest.mark.parametrize("connections_max", [1, 2, 5])
async def test_a_worker_that_has_all_connections_gives_the_other_its_share(
    connections_max: int,
) -> None:
    host = ScriptedHost()
    async with running(host):
        one, two = agents(host, 2, connections_max)
        flood = [asyncio.create_task(one.deliver(attempt("f"))) for _ in range(2_000)]
        await asyncio.wait(flood, return_when=asyncio.FIRST_COMPLETED)
        await two.deliver(attempt("letter"))
        assert not all(task.done() for task in flood)
        await all_delivered(flood)
        await asyncio.gather(one.aclose(), two.aclose())
    assert subjects(host).index("letter") < 1_900
    assert host.connections <= 2 * connections_max + 2_000 // 20


async def test_letters_go_before_lists_that_wait_but_not_always() -> None:
    host = ScriptedHost()
    async with running(host):
        (agent,) = agents(host, 1, connections_max=1)
        tasks = [
            asyncio.create_task(agent.deliver(attempt(grade.name, grade)))
            for grade in (Grade.LIST, Grade.LETTER)
            for _ in range(40)
        ]
        await all_delivered(tasks)
        await agent.aclose()
    order = subjects(host)
    assert len(order) == 80
    letters_over = max(i for i, name in enumerate(order) if name == "LETTER")
    passed = order[:letters_over].count("LIST")
    assert 2 <= passed <= 3 + 40 // PASSES_MAX
