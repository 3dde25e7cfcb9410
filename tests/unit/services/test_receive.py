"""The door of the SMTP service: who is let in, and what is given back."""

import asyncio
from typing import Any, cast

import pytest

from postroom import hook
from postroom.net.stream import Stream
from postroom.observe.events import Lifecycle, SessionClosed, SessionRefused
from postroom.services.receive import ReceiveService
from postroom.services.settings import ReceiveSettings
from postroom.testing.conversation import ListConversation, Piece
from postroom.testing.workbench import Bench, Plan, bench


def client(*pieces: Piece, ip: str = "192.0.2.1") -> ListConversation:
    made = ListConversation(*pieces)
    made.peer_ip = ip
    return made


async def serve(b: Bench, caller: ListConversation) -> None:
    await ReceiveService(b.tools).serve(cast("Stream", caller), "in")


def let_in_again(b: Bench, sessions_max: int, ip: str = "192.0.2.1") -> bool:
    """Whether as many may come as before: nothing leaked."""
    taken = 0
    while b.counters.add("smtp", 1, sessions_max):
        taken += 1
    for _ in range(taken):
        b.counters.release("smtp", 1)
    mine = b.counters.add(f"smtp:{ip}", 1, 1)
    if mine:
        b.counters.release(f"smtp:{ip}", 1)
    return taken == sessions_max and mine


@pytest.mark.parametrize(
    ("settings", "first_ip", "reply", "why"),
    [
        pytest.param(ReceiveSettings(sessions_max=1), "192.0.2.9",
            "421 4.3.2 too many sessions, try again later", "sessions_max", id="all"),
        pytest.param(ReceiveSettings(sessions_per_client_max=1), "192.0.2.1",
            "421 4.7.0 too many sessions from your address",
            "sessions_per_client_max", id="one-client"),
    ],
)  # fmt: skip
async def test_who_is_over_a_limit_is_turned_away(
    settings: ReceiveSettings, first_ip: str, reply: str, why: str
) -> None:
    async with bench(Plan(receive=settings)) as b:
        let_go = asyncio.Event()

        async def wait() -> None:
            await let_go.wait()

        first = client(wait, "QUIT\n", ip=first_ip)
        task = asyncio.create_task(serve(b, first))
        await b.until(lambda: bool(first.written))
        second = client("QUIT\n")
        await serve(b, second)
        assert second.replies == [reply]
        assert second.is_closed
        assert [event.why for event in b.told(SessionRefused)] == [why]
        let_go.set()
        await task
        third = client("QUIT\n")
        await serve(b, third)
        assert third.codes == ["220", "221 2.0.0"]
        assert let_in_again(b, settings.sessions_max)


@pytest.mark.parametrize(
    "piece",
    [b"", ConnectionError("bug"), RuntimeError("bug"), "QUIT\n"],
    ids=["lost", "unexpected", "bug", "quit"],
)
async def test_whatever_ends_a_session_its_place_is_given_back(piece: Piece) -> None:
    settings = ReceiveSettings(sessions_max=2, sessions_per_client_max=1)
    async with bench(Plan(receive=settings)) as b:
        caller = client("EHLO c\n", piece)
        await serve(b, caller)
        assert caller.is_closed
        assert let_in_again(b, 2)
        assert len(b.told(SessionClosed)) == 1


async def test_a_session_that_is_cancelled_gives_its_place_back() -> None:
    settings = ReceiveSettings(sessions_max=2, sessions_per_client_max=1)
    async with bench(Plan(receive=settings)) as b:
        caller = client("EHLO c\n", asyncio.Event().wait)  # type: ignore[arg-type]
        task = asyncio.create_task(serve(b, caller))
        await b.until(lambda: len(caller.replies) > 1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert caller.is_closed
        assert let_in_again(b, 2)


async def test_a_client_that_cannot_be_closed_still_gives_its_place_back() -> None:
    async with bench() as b:
        caller = client("QUIT\n")

        async def aclose() -> None:
            raise OSError("bug")

        cast("Any", caller).aclose = aclose
        with pytest.raises(OSError, match="bug"):
            await serve(b, caller)
        assert let_in_again(b, 1_000)


async def test_a_bug_in_a_session_is_told_and_apologised_for() -> None:
    async with bench() as b:
        caller = client(RuntimeError("bug"))
        await serve(b, caller)
        assert caller.codes == ["220", "421 4.3.0"]
        assert [t.level for t in b.told(Lifecycle)] == ["error"]


async def test_hooks_know_which_address_of_ours_was_met() -> None:
    met: list[str] = []

    @hook.connect
    def note(session: Any, connect: Any) -> None:
        met.append(session.local_ip)

    async with bench(Plan(hooks=[note])) as b:
        caller = client("QUIT\n")
        caller.local_ip = "192.0.2.25"
        await serve(b, caller)
        assert met == ["192.0.2.25"]
