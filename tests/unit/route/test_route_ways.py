"""The routes table, the driver, the facts, and what explain prints."""

import asyncio
from collections.abc import Awaitable, Generator
from pathlib import Path

import pytest

from postroom.dns.answer import Answer as Dns
from postroom.dns.answer import DnsFailed
from postroom.dns.exchangers import find_exchangers
from postroom.dns.mx import Exchangers
from postroom.dns.own import OwnNames
from postroom.mail.address import Address
from postroom.mail.route import Route
from postroom.route.drive import Waiting, answer_now, drive
from postroom.route.explain import Prospect, explain
from postroom.route.facts import AnyTable, RouteFacts, Sources
from postroom.route.questions import (
    Answer,
    Failed,
    Found,
    Lookup,
    NotFound,
    Question,
    ReadInclude,
    Resolve,
    UserExists,
)
from postroom.route.questions import to_text as said
from postroom.route.router import Router
from postroom.route.routing import Relay, Unroutable
from postroom.route.settings import RouteSettings
from postroom.route.ways import AsLocal, Way, check_way, read_way
from postroom.tables.aliases import alias_file
from postroom.tables.include import Include, Included, Unreadable, Unusable
from postroom.tables.settings import TableSettings
from postroom.tables.text import text_table
from postroom.testing.resolver import FakeResolver

WAYS: dict[str, Way] = {
    "smtp:hub.test": Relay(Route("smtp", "hub.test", "r")),
    "smtp:": Relay(Route("smtp", "w.test", "r")),
    "SMTP: [Hub.test]:26": Relay(Route("smtp", "[hub.test]:26", "r")),
    "esmtp:[127.0.0.2]": Relay(Route("smtp", "[127.0.0.2]", "r")),
    "relay:hub.test:26": Relay(Route("smtp", "hub.test:26", "r")),
    "lmtp:[127.0.0.1]:24": Relay(Route("lmtp", "[127.0.0.1]:24", "r"), ours=True),
    "lmtp:unix:/run/x": Relay(Route("lmtp", "/run/x", "r"), ours=True),
    "lmtp:/run/x": Relay(Route("lmtp", "/run/x", "r"), ours=True),
    "smtp:[hub.test]:587 tls=verified login=relay": Relay(
        Route("smtp", "[hub.test]:587;tls=verified;login=relay", "r")
    ),
    "smtp:hub.test  login=relay   tls=required": Relay(
        Route("smtp", "hub.test;tls=required;login=relay", "r")
    ),
    "smtp: tls=required": Relay(Route("smtp", "w.test;tls=required", "r")),
    "smtp:hub.test source=192.0.2.1 source=2001:db8::1 helo=Out.Test": Relay(
        Route("smtp", "hub.test;source=192.0.2.1;source=2001:db8::1;helo=out.test", "r")
    ),
    "smtps:[hub.test]": Relay(Route("smtp", "[hub.test]:465;implicit=always", "r")),
    "smtps:[hub.test]:2465 login=me": Relay(
        Route("smtp", "[hub.test]:2465;implicit=always;login=me", "r")
    ),
    "lmtp:[192.0.2.9]:24 tls=required": Relay(
        Route("lmtp", "[192.0.2.9]:24;tls=required", "r"), ours=True
    ),
    "discard:": Relay(Route("discard", "local", "r"), ours=True),
    "mailbox:": AsLocal("r"),
    "local:": AsLocal("r"),
    "error:5.1.1 no": Unroutable("no", "r", "5.1.1", 550),
    "error:551 5.1.6 moved away": Unroutable("moved away", "r", "5.1.6", 551),
    "error:5.7.1:554 go away": Unroutable("go away", "r", "5.7.1", 554),
    "error:550": Unroutable("Access denied", "r", "5.0.0", 550),
    "error:450 later": Unroutable("later", "r", "4.0.0", 450),
    "error:4.3.2": Unroutable("Access denied", "r", "4.3.2", 450),
    "error:no": Unroutable("no", "r", "5.0.0", 550),
}


@pytest.mark.parametrize(("value", "expected"), WAYS.items(), ids=WAYS.keys())
def test_way(value: str, expected: Way) -> None:
    assert read_way("w.test", value, "r") == expected


BAD_WAYS = (
    "",
    "smtp",
    "pigeon:x",
    "smtp:[x",
    "smtp:a b",
    "smtp:a tls",
    "smtp:a tls=",
    "smtp:a tls=perhaps",
    "smtp:a tls=off tls=off",
    "smtp:a password=x",
    "smtp:a login=../x",
    "smtp:a login=;x",
    "smtp:a source=here",
    "smtp:a helo=-",
    "smtp:a implicit=yes",
    "smtps:",
    "lmtp:",
    "lmtp:relative/path",
    "discard:x",
    "mailbox:joe",
    "error:",
    "error:450 5.1.1 both",
    ":x",
)


@pytest.mark.parametrize("value", BAD_WAYS)
def test_bad_way(value: str) -> None:
    with pytest.raises(ValueError, match=r"write|does not fit"):
        check_way("w.test", value)


def test_keys_are_ascii() -> None:
    with pytest.raises(ValueError, match="xn--bcher-kva"):
        check_way("bücher.test", "discard:")


GOOD_KEYS = (
    "*",
    ".",
    ".sub.test",
    "w.test",
    "xn--bcher-kva.test",
    "[192.0.2.1]",
    "[ipv6:2001:db8::1]",
)


@pytest.mark.parametrize("value", ["smtp:", "smtp: tls=required", "smtp:[hub.test]"])
@pytest.mark.parametrize("key", GOOD_KEYS)
def test_keys_go_with_ways_that_name_no_host(key: str, value: str) -> None:
    check_way(key, value)


BAD_KEYS = (
    "joe@w.test",
    "w.test.",
    "w..test",
    "..test",
    "*.test",
    "w.test,x.test",
    "[192.0.2.1",
    "[192.0.2]",
    "[ipv6:2001:0db8::1]",
    "-w.test",
)


@pytest.mark.parametrize("key", BAD_KEYS)
def test_keys_that_no_domain_has_are_refused(key: str) -> None:
    with pytest.raises(ValueError, match="is no domain: write"):
        check_way(key, "discard:")


def three_questions() -> Generator[Question, Answer, list[Answer]]:
    first = yield UserExists("a")
    second = yield UserExists("b")
    third = yield UserExists("c")
    return [first, second, third]


class Some:
    """Answers at once or later, by name."""

    def __init__(self, later: str) -> None:
        self.later = later

    def get(self, question: Question) -> Answer | Awaitable[Answer]:
        assert isinstance(question, UserExists)
        answer = Found((question.name,))
        return self._fetch(answer) if question.name in self.later else answer

    async def _fetch(self, answer: Answer) -> Answer:
        await asyncio.sleep(0)
        return answer


@pytest.mark.parametrize("later", ["", "a", "b", "c", "abc"])
async def test_drive(later: str) -> None:
    expected = [Found(("a",)), Found(("b",)), Found(("c",))]
    assert await drive(three_questions(), Some(later)) == expected
    found = answer_now(three_questions(), Some(later))
    if isinstance(found, Waiting):
        assert later
        found.close()
        found.close()
    else:
        assert found == expected


async def test_waiting_on_a_future_can_be_given_up() -> None:
    future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    class Futures:
        def get(self, question: Question) -> Answer | Awaitable[Answer]:
            return future

    found = answer_now(three_questions(), Futures())
    assert isinstance(found, Waiting)
    found.close()
    assert future.cancelled()


def no_users(name: str) -> bool:
    raise OSError("users file is gone")


async def includes(path: str) -> Include:
    known: dict[str, Include] = {"/l": Included(("joe",)), "/u": Unusable("why")}
    return known.get(path, Unreadable("io"))


RESOLVER = FakeResolver(
    {
        "w.test MX": ["10 mx.w.test"],
        "w.test TXT": "x",
        "f.test MX": DnsFailed("SERVFAIL"),
    }
)
TOLD: dict[str, tuple[Question, Answer]] = {
    "empty table": (Lookup("routes", "a"), NotFound()),
    "faulty table": (Lookup("aliases", "a"), Failed("table /none has not been read")),
    "users fail": (UserExists("a"), Failed("users: users file is gone")),
    "list": (ReadInclude("/l"), Found(("joe",))),
    "unusable list": (ReadInclude("/u"), NotFound("why")),
    "unreadable list": (ReadInclude("/x"), Failed("io")),
    "MX": (Resolve("w.test", "MX"), Found(("10 mx.w.test",))),
    "TXT": (Resolve("w.test", "TXT"), Found(("x",))),
    "no data": (Resolve("w.test", "A"), NotFound()),
    "no domain": (Resolve("none.test", "A"), NotFound()),
    "DNS failed": (Resolve("f.test", "MX"), Failed("SERVFAIL")),
}


@pytest.mark.parametrize(("question", "expected"), TOLD.values(), ids=TOLD.keys())
async def test_facts(question: Question, expected: Answer) -> None:
    aliases = alias_file("/none", TableSettings())
    facts = RouteFacts(Sources({"aliases": aliases}, no_users, RESOLVER, includes))
    answer = facts.get(question)
    if isinstance(answer, Awaitable):
        answer = await answer
    assert answer == expected


async def test_facts_without_sources() -> None:
    facts = RouteFacts(Sources({}, set[str]().__contains__))
    assert facts.get(UserExists("a")) == NotFound()
    for question in (ReadInclude("/l"), Resolve("w.test", "A")):
        answer = facts.get(question)
        assert isinstance(answer, Awaitable)
        assert isinstance(await answer, NotFound | Failed)


SAID: dict[str, Question | Answer] = {
    "aliases: joe?": Lookup("aliases", "joe"),
    "DNS: w.test MX?": Resolve("w.test", "MX"),
    "users: joe?": UserExists("joe"),
    "file: /l?": ReadInclude("/l"),
    "yes": Found(),
    "a, b": Found(("a", "b")),
    "a, a, a, a, a, a, a, a, a, a, ... (11)": Found(("a",) * 11),
    "no": NotFound(),
    "no: why": NotFound("why"),
    "cannot say now: io": Failed("io"),
}


@pytest.mark.parametrize(("text", "value"), SAID.items(), ids=SAID.keys())
def test_questions_are_readable(text: str, value: Question | Answer) -> None:
    assert said(value) == text


@pytest.fixture
def facts(tmp_path: Path) -> RouteFacts:
    path = tmp_path / "aliases"
    path.write_text(
        "friends: betty, joe@w.test, ann@w.test, nosuch\nowner-friends: betty\n"
        "big: " + ", ".join(f"u{n}@w.test" for n in range(200)) + "\n"
        "circle: circle\nfar: betty, x@null.test\nstrange: x@\u200db.test\n"
        "perhaps: betty, x@silent.test\nperhaps-not: x@silent.test, x@gone.test\n"
    )
    routes = tmp_path / "routes"
    routes.write_text(
        "closed.test error:450 later\ngone.test error:5.1.2 gone\n"
        "by-none.test smtp:[none.test]\n"
    )
    aliases = alias_file(str(path), TableSettings())
    aliases.reload()
    ways = text_table(str(routes), TableSettings())
    ways.reload()
    tables: dict[str, AnyTable] = {"aliases": aliases, "routes": ways}
    return RouteFacts(Sources(tables, {"betty"}.__contains__))


async def find_hosts(hop: str) -> Exchangers:
    known: dict[str, str | list[str] | Dns] = {
        "w.test MX": ["10 mx.w.test"],
        "mx.w.test A": "127.0.1.2",
        "null.test MX": "0 .",
        "us.test A": "127.0.1.1",
        "silent.test MX": DnsFailed("no answer"),
    }
    own = OwnNames.of([], ["127.0.1.1"])
    return await find_exchangers(FakeResolver(known), hop, own, 1)


EXPLAINED: dict[str, list[str]] = {
    "betty+x@gonzo.test": [
        "  aliases: betty+x? no",
        "  aliases: betty+*? no",
        "  aliases: betty? no",
        "  users: betty+x? no",
        "  users: betty? yes",
        "betty+x@gonzo.test: local user betty, detail x: agent mailbox (user betty)",
    ],
    "joe@w.test": [
        "joe@w.test: agent smtp, hop w.test (MX of w.test)",
        "  w.test: 10 mx.w.test [127.0.1.2]",
    ],
    "joe@none.test": [
        "joe@none.test: agent smtp, hop none.test (MX of none.test)",
        "  none.test: 550 5.1.2 Host unknown (Name server: none.test: host not found)",
    ],
    "joe@null.test": [
        "joe@null.test: agent smtp, hop null.test (MX of null.test)",
        "  null.test: 556 5.1.10 Host does not accept mail: MX 0 .",
    ],
    "joe@us.test": [
        "joe@us.test: agent smtp, hop us.test (MX of us.test)",
        "  us.test: 553 5.4.6 config error: mail loops back to me (MX problem?): "
        "us.test is this system, but us.test is not among its local domains",
    ],
    "joe@silent.test": [
        "joe@silent.test: agent smtp, hop silent.test (MX of silent.test)",
        "  silent.test: cannot say now: no answer",
    ],
    "nosuch@gonzo.test": [
        "  aliases: nosuch? no",
        "  users: nosuch? no",
        "nosuch@gonzo.test: 550 5.1.1 User unknown (no alias and no user of that name)",
    ],
}


@pytest.mark.parametrize(("text", "lines"), EXPLAINED.items(), ids=EXPLAINED.keys())
async def test_explain(text: str, lines: list[str], facts: RouteFacts) -> None:
    router = Router(RouteSettings(), "gonzo.test", OwnNames())
    told = await explain(router, facts, Address.from_text(text), find_hosts)
    assert list(told.lines) == lines


PROSPECTS: dict[str, Prospect] = {
    "betty@gonzo.test": Prospect.FINE,
    "nosuch@gonzo.test": Prospect.UNKNOWN,
    "friends": Prospect.UNKNOWN,
    "big": Prospect.FINE,
    "circle": Prospect.UNKNOWN,
    "far": Prospect.NO_HOST,
    "strange": Prospect.NO_HOST,
    "perhaps": Prospect.CANNOT_SAY,
    "perhaps-not": Prospect.NO_HOST,
    "joe@w.test": Prospect.FINE,
    "joe@none.test": Prospect.NO_HOST,
    "joe@null.test": Prospect.NO_HOST,
    "joe@us.test": Prospect.NO_HOST,
    "joe@silent.test": Prospect.CANNOT_SAY,
    "joe@closed.test": Prospect.CANNOT_SAY,
    "joe@gone.test": Prospect.NO_HOST,
    "joe@by-none.test": Prospect.CANNOT_SAY,  # a slip of the site: mail waits
}


@pytest.mark.parametrize(("text", "prospect"), PROSPECTS.items(), ids=PROSPECTS.keys())
async def test_what_explain_comes_to(
    text: str, prospect: Prospect, facts: RouteFacts
) -> None:
    router = Router(RouteSettings(routes="routes"), "gonzo.test", OwnNames())
    told = await explain(router, facts, Address.from_text(text), find_hosts)
    assert told.prospect is prospect


async def test_explain_tells_on_which_terms(facts: RouteFacts) -> None:
    def tell_terms(hop: str, host: str) -> str:
        return f"login {host}" if host else f"TLS as {hop}"

    router = Router(RouteSettings(smart_host="w.test tls=off"), "g.test", OwnNames())
    address = Address.from_text("joe@x.test")
    told = await explain(router, facts, address, find_hosts, tell_terms)
    assert list(told.lines) == [
        "joe@x.test: agent smtp, hop w.test;tls=off (smart host)",
        "  w.test: TLS as w.test;tls=off",
        "  w.test: 10 mx.w.test [127.0.1.2] (login mx.w.test)",
    ]


async def test_explain_alias(facts: RouteFacts) -> None:
    router = Router(RouteSettings(), "gonzo.test", OwnNames())
    lines = list(
        (await explain(router, facts, Address.from_text("friends"), find_hosts)).lines
    )
    assert lines[:2] == [
        "  aliases: friends? betty, joe@w.test, ann@w.test, nosuch",
        "friends: alias for betty, joe@w.test, ann@w.test, nosuch (alias friends)",
    ]
    start = lines.index("friends... aliased to betty, joe@w.test, ann@w.test, nosuch")
    assert lines[start + 1 :] == [
        "nosuch... User unknown",
        "errors go to owner-friends@gonzo.test",
        "betty@gonzo.test: local user betty: agent mailbox (user betty)",
        "joe@w.test: agent smtp, hop w.test (MX of w.test)",
        "  w.test: 10 mx.w.test [127.0.1.2]",
        "ann@w.test: agent smtp, hop w.test (MX of w.test)",
        "nosuch: 5.1.1 User unknown",
    ]
    lines = list((await explain(router, facts, Address.from_text("big"))).lines)
    assert lines[-1] == "... and more than 100 in all"


async def test_explain_when_a_table_fails() -> None:
    router = Router(RouteSettings(), "gonzo.test", OwnNames())
    broken = RouteFacts(
        Sources({"aliases": alias_file("/none", TableSettings())}, no_users)
    )
    lines = list((await explain(router, broken, Address.from_text("joe"))).lines)
    assert lines[0] == "  aliases: joe? cannot say now: table /none has not been read"
    assert lines[1].startswith("joe: 451 4.3.0 ")


async def test_explain_waits_for_facts_that_come_late() -> None:
    class Late(Some):
        def get(self, question: Question) -> Answer | Awaitable[Answer]:
            return self._fetch(NotFound())

    router = Router(RouteSettings(), "gonzo.test", OwnNames())
    lines = list((await explain(router, Late(""), Address.from_text("joe"))).lines)
    assert lines[:2] == ["  aliases: joe? no", "  users: joe? no"]
