"""What ``sendmail -bv`` is told of addresses, and ``newaliases`` of the file."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from postroom.admin.control import Access, Caller, ControlError
from postroom.admin.requests import HopNow
from postroom.app.assembly import Built
from postroom.app.errands import Office
from postroom.config.settings import Config
from postroom.dns.own import OwnNames
from postroom.dns.resolver import Resolver
from postroom.mail.address import Address
from postroom.observe.metrics import Metrics
from postroom.observe.traces import Found, Search
from postroom.services.answer import Answer
from postroom.services.queue_run import QueueSelection
from postroom.services.receive import ReceiveService
from postroom.services.submission import EX_DATAERR, EX_NOUSER, EX_OK, EX_TEMPFAIL
from postroom.tables.aliases import alias_file
from postroom.tables.settings import TableSettings
from postroom.testing.workbench import Bench, Plan, bench

ALIASES: dict[str, Sequence[str]] = {
    "all": ["joe", "x@far.test"],
    "joe": ["joe", "betty"],
    "bad": ["joe", "nosuch"],
    "loop": ["pool"],
    "pool": ["loop"],
    "shut": ["betty", "x@closed.test"],
    "shut-bad": ["nosuch", "x@closed.test"],
}


def office(b: Bench, aliases: Path | None = None) -> Office:
    config = Config()
    table = alias_file(str(aliases), TableSettings()) if aliases else None
    built = Built(
        config,
        b.generation,
        Resolver(config.dns, b.clock),
        OwnNames(),
        table,
        None,
        None,
        None,
    )
    receive = ReceiveService(b.tools)
    return Office(0, "run", lambda: built, [b.line], receive, Metrics())


JOE = "joe@gonzo.test... deliverable: mailer local, user joe"
BETTY = "betty@gonzo.test... deliverable: mailer local, user betty"
FAR = "x@far.test... deliverable: mailer esmtp, host far.test, user x@far.test"


@pytest.mark.parametrize(
    ("address", "lines", "exit_code"),
    [
        ("betty", ["betty... deliverable: mailer local, user betty"], EX_OK),
        ("x@far.test", [FAR], EX_OK),
        ("nosuch", ["nosuch... User unknown"], EX_NOUSER),
        ("joe", [JOE, BETTY], EX_OK),  # an alias that names itself
        ("all", [JOE, BETTY, FAR], EX_OK),
        ("bad", ["nosuch... User unknown", JOE, BETTY], EX_NOUSER),
        ("loop", ["loop... aliasing/forwarding loop broken"], EX_NOUSER),
        ("x@closed.test", ["x@closed.test... Closed for today"], EX_TEMPFAIL),
        ("shut", [BETTY, "x@closed.test... Closed for today"], EX_TEMPFAIL),
        (
            "shut-bad",
            ["nosuch... User unknown", "x@closed.test... Closed for today"],
            EX_NOUSER,
        ),
    ],
)
async def test_verify(address: str, lines: list[str], exit_code: int) -> None:
    routes = {"closed.test": "error:450 4.3.2 Closed for today"}
    async with bench(Plan(aliases=ALIASES, routes=routes)) as b:
        answer = await office(b).verify(Address.from_text(address), verbose=False)
        assert (list(answer.lines), answer.exit_code) == (lines, exit_code)


async def test_verify_goes_to_the_end_of_a_long_list() -> None:
    crowd = [f"m{number}@far.test" for number in range(2_500)]
    async with bench(Plan(aliases={"crowd": [*crowd, "nosuch"]})) as b:
        answer = await office(b).verify(Address.from_text("crowd"), verbose=False)
    assert (len(answer.lines), answer.exit_code) == (2_501, EX_NOUSER)
    assert "nosuch... User unknown" in answer.lines


async def test_verify_while_a_table_fails() -> None:
    async with bench(Plan(aliases=ALIASES)) as b:
        b.aliases.fault = "broken"
        answer = await office(b).verify(Address.from_text("all"), verbose=False)
        assert answer.exit_code == EX_TEMPFAIL


async def test_verbose_tells_the_way() -> None:
    async with bench(Plan(aliases=ALIASES)) as b:
        answer = await office(b).verify(Address.from_text("all"), verbose=True)
        assert answer.lines[0].startswith("all... aliased to joe, x@far.test")


@pytest.mark.parametrize(
    ("before", "text", "exit_code", "words"),
    [
        ("", "a: joe\nb: joe, betty\n", EX_OK, "2 aliases"),
        ("a: joe\n", "a: joe\n: nobody\n", EX_DATAERR, "the old aliases stay in force"),
        ("b c\n", "a: joe\n: nobody\n", EX_DATAERR, "there are no aliases before"),
    ],
)
async def test_newaliases(
    tmp_path: Path, before: str, text: str, exit_code: int, words: str
) -> None:
    path = tmp_path / "aliases"
    path.write_text(before)
    async with bench() as b:
        caller = office(b, path)
        await caller.newaliases()
        path.write_text(text)
        answer = await caller.newaliases()
        assert answer.exit_code == exit_code
        assert words in answer.lines[-1]


async def test_newaliases_without_a_file() -> None:
    async with bench() as b:
        answer = await office(b).newaliases()
        assert "route.aliases" in answer.lines[0]


ROOT = Caller(0, "root", Access.FULL)


async def test_the_queue_is_run_as_chosen(tmp_path: Path) -> None:
    async with bench() as b:
        o = office(b)
        noted = await o.run_queue(QueueSelection(note="by itself"), "root")
        assert noted.lines == ("by itself",)
        kept = await o.run_queue(QueueSelection(quarantined=True), "root")
        assert "-qQ -Q" in kept.lines[0]
        empty = await o.run_queue(QueueSelection(quarantine=""), "root")
        assert "-qQ" in empty.lines[0]
        none = await o.run_queue(QueueSelection(senders=("x",)), "root")
        assert none == Answer(("0 messages will be tried now",))


async def test_history_is_searched_for_those_who_cannot_read_it() -> None:
    async with bench() as b:
        handlers = office(b).handlers(lambda _: None)
        search = msgspec.Raw(msgspec.json.encode(Search(since_us=1)))
        assert [part async for part in handlers["history.find"](ROOT, search)] == [
            Found()
        ]
        wrong = handlers["history.find"](ROOT, msgspec.Raw(b'{"queue_ids": ["x"]}'))
        with pytest.raises(ControlError, match="malformed search"):
            await anext(wrong)


async def test_how_a_hop_gets_on() -> None:
    async with bench() as b:
        handlers = office(b).handlers(lambda _: None)
        asked = msgspec.Raw(b'"whizzer.test"')
        (found,) = [part async for part in handlers["queue.hop"](ROOT, asked)]
        assert found == HopNow("whizzer.test", 0, b.scheduler.window("whizzer.test"))
