"""Expansion of aliases: lists, owners, loops, and what crashes leave."""

from collections.abc import Awaitable

import pytest

from postroom.dns.own import OwnNames
from postroom.mail.address import Address
from postroom.mail.route import Route
from postroom.route.drive import answer_now
from postroom.route.expansion import Expansion, Problem
from postroom.route.questions import (
    Answer,
    Failed,
    Found,
    Lookup,
    NotFound,
    Question,
    ReadInclude,
    UserExists,
)
from postroom.route.router import Router
from postroom.route.routing import LocalUser, RoutingFailed
from postroom.route.settings import RouteSettings
from postroom.tables.aliases import parse_aliases
from postroom.tables.settings import TableSettings


class Aliases:
    """Facts from an aliases text, some users, and lists."""

    def __init__(self, text: str, users: str = "betty joe") -> None:
        self.entries = dict(parse_aliases(text, TableSettings()).entries)
        self.users = users.split()
        self.lists: dict[str, Answer] = {}
        self.failing = ""

    def get(self, question: Question) -> Answer | Awaitable[Answer]:
        match question:
            case Lookup("aliases", key) if key == self.failing:
                return Failed("the disk")
            case Lookup("aliases", key) if key in self.entries:
                return Found(self.entries[key])
            case UserExists(name) if name in self.users:
                return Found()
            case ReadInclude(path):
                return self.lists[path]
            case _:
                return NotFound()


def make_router(**changes: object) -> Router:
    settings = RouteSettings(local_domains=("other.test",), **changes)  # type: ignore[arg-type]
    return Router(settings, "gonzo.test", OwnNames())


def expand(
    facts: Aliases, name: str, cursor: int = 0, limit: int = 1000, **changes: object
) -> Expansion:
    address = Address.from_text(name)
    found = answer_now(make_router(**changes).expand(address, cursor, limit), facts)
    assert isinstance(found, Expansion)
    return found


def names(expansion: Expansion) -> list[str]:
    return [str(child.address) for child in expansion.children]


def problems(expansion: Expansion) -> list[str]:
    return [f"{p.target}: {p.status} {p.text}" for p in expansion.problems]


LOOP = "5.4.6 aliasing/forwarding loop broken"
CASES: dict[str, tuple[str, str, list[str], list[str]]] = {
    "one": ("a: betty", "a", ["betty@gonzo.test"], []),
    "at another local domain": ("a: betty", "a@other.test", ["betty@gonzo.test"], []),
    "elsewhere": ("a: x@whizzer.test", "a", ["x@whizzer.test"], []),
    "nested": ("a: b, joe\nb: betty", "a", ["betty@gonzo.test", "joe@gonzo.test"], []),
    "same twice": ("a: betty, BETTY, betty@other.test", "a", ["betty@gonzo.test"], []),
    "same twice elsewhere": (
        "a: x@w.test, x@W.TEST, X@w.test",
        "a",
        ["x@w.test", "X@w.test"],
        [],
    ),
    "details are kept apart": (
        "a: betty+x, betty+y, betty",
        "a",
        ["betty+x@gonzo.test", "betty+y@gonzo.test", "betty@gonzo.test"],
        [],
    ),
    "diamond": ("a: b, c\nb: d\nc: d\nd: betty", "a", ["betty@gonzo.test"], []),
    "to itself is the user": (
        "joe: joe, x@w.test",
        "joe",
        ["joe@gonzo.test", "x@w.test"],
        [],
    ),
    "back to a user": ("joe: a\na: joe", "joe", ["joe@gonzo.test"], []),
    "user only": ("joe: \\joe, x@w.test", "joe", ["joe@gonzo.test", "x@w.test"], []),
    "user only, unknown": ("a: \\b\nb: betty", "a", [], ["\\b: 5.1.1 User unknown"]),
    "loop of one": ("a: a", "a", [], [f"a: {LOOP}"]),
    "loop of two": ("a: b\nb: a", "a", [], [f"a: {LOOP}"]),
    "loop of three beside a user": (
        "a: b\nb: c, betty\nc: a",
        "a",
        ["betty@gonzo.test"],
        [f"a: {LOOP}"],
    ),
    "unknown target": (
        "a: nosuch, joe",
        "a",
        ["joe@gonzo.test"],
        ["nosuch: 5.1.1 User unknown"],
    ),
    "program": (
        'a: "|cat"',
        "a",
        [],
        ["|cat: 5.3.3 mail to programs is not supported"],
    ),
    "file": (
        "a: /x, joe",
        "a",
        ["joe@gonzo.test"],
        ["/x: 5.3.3 mail to files is not supported"],
    ),
    "nowhere": (
        "a: /dev/null, joe, /dev/null",
        "a",
        ["/dev/null@gonzo.test", "joe@gonzo.test"],
        [],
    ),
    "nowhere and the user": (
        "joe: joe, /dev/null",
        "joe",
        ["joe@gonzo.test", "/dev/null@gonzo.test"],
        [],
    ),
    "a name like nowhere": ("/dev/null: joe", "/dev/null", ["joe@gonzo.test"], []),
    "a name like a file": ("/x: joe", "/x", ["joe@gonzo.test"], []),
    "list in a file, switched off": (
        "a: :include:/x",
        "a",
        [],
        [":include:/x: 5.2.4 :include: is not allowed here (setting includes)"],
    ),
    "no such domain": (
        "a: x@\u200db.test",
        "a",
        [],
        ["x@\u200db.test: 5.1.2 Host unknown (malformed domain name)"],
    ),
    "no alias any more, a user": ("", "betty", ["betty@gonzo.test"], []),
    "no alias any more, nobody": ("", "a", [], ["a: 5.1.1 User unknown"]),
    "by detail": ("a: betty", "a+x", ["betty@gonzo.test"], []),
}


@pytest.mark.parametrize(
    ("text", "name", "children", "wrong"), CASES.values(), ids=CASES.keys()
)
def test_expand(text: str, name: str, children: list[str], wrong: list[str]) -> None:
    expansion = expand(Aliases(text), name)
    assert names(expansion) == children
    assert problems(expansion) == wrong
    assert expansion.cursor is None


def test_dev_null_is_thrown_away() -> None:
    """As every aliases file of sendmail's has it for those who want no mail."""
    [child] = expand(Aliases("nobody: /dev/null"), "nobody").children
    assert child.route == Route("discard", "local", "alias nobody")
    asking = make_router().postmaster_problem()
    thrown = answer_now(asking, Aliases("postmaster: /dev/null"))
    assert thrown == "mail for postmaster is thrown away: mend its alias"


def test_children_carry_their_routes() -> None:
    expansion = expand(Aliases("a: betty, x@w.test"), "a")
    routes = [child.route for child in expansion.children]
    assert [(route.agent, route.hop) for route in routes if route] == [
        ("mailbox", "local"),
        ("smtp", "w.test"),
    ]
    assert isinstance(expansion.children[0].routing, LocalUser)


class Closed(Aliases):
    """As ``Aliases``; a route refuses mail for ``closed.test``."""

    answer = "error:450 4.3.2 Closed for today"

    def get(self, question: Question) -> Answer | Awaitable[Answer]:
        if question == Lookup("routes", "closed.test"):
            return Found((self.answer,))
        return super().get(question)


def test_what_is_refused_for_a_while_is_routed_again_later() -> None:
    """The others get their mail now, and nobody is told that it failed."""
    text = "a: x@closed.test, X@closed.test, x@Closed.Test, betty\nowner-a: joe"
    found = expand(Closed(text), "a", routes="there")
    assert names(found) == [
        "x@closed.test",
        "X@closed.test",
        "betty@gonzo.test",
    ]
    assert [child.route is None for child in found.children] == [True, True, False]
    assert {str(child.owner) for child in found.children} == {"owner-a@gonzo.test"}
    assert not found.problems
    router = make_router(routes="there")
    again = router.expand(found.children[0].address)
    assert answer_now(again, Closed(text)) == RoutingFailed("Closed for today")
    opened = expand(Aliases(text), "x@closed.test", routes="there")
    assert [child.route and child.route.hop for child in opened.children] == [
        "closed.test"
    ]


def test_what_is_refused_for_ever_is_reported() -> None:
    facts = Closed("a: x@closed.test, betty")
    facts.answer = "error:5.1.2 gone"
    found = expand(facts, "a", routes="there")
    assert names(found) == ["betty@gonzo.test"]
    assert problems(found) == ["x@closed.test: 5.1.2 gone"]


def test_trace_is_what_sendmail_prints() -> None:
    facts = Aliases(
        "friends: betty, joe@whizzer.test\nowner-friends: postmaster\n"
        'toprog: "|/bin/cat >/tmp/prog.out"\nloop: loop2\nloop2: loop, loop\n'
    )
    assert expand(facts, "friends@gonzo.test").trace == (
        "friends... aliased to betty, joe@whizzer.test",
    )
    assert expand(facts, "toprog").trace == (
        'toprog... aliased to "|/bin/cat >/tmp/prog.out"',
    )
    assert expand(facts, "loop@other.test").trace == (
        "loop@other.test... aliased to loop2",
        "loop2... aliased to loop, loop",
    )


def test_owner() -> None:
    facts = Aliases(
        "friends: betty, inner\nowner-friends: joe\n"
        "inner: joe, x@w.test\nowner-inner: betty\n"
        "plain: y@w.test\nall: friends, plain, owner-friends\nowner-owner-friends: z"
    )
    friends = Address("owner-friends", "gonzo.test")
    inner = Address("owner-inner", "gonzo.test")
    expansion = expand(facts, "friends")
    assert expansion.owner == friends
    assert [child.owner for child in expansion.children] == [friends, inner, inner]
    assert expand(facts, "friends+detail").owner == friends
    expansion = expand(facts, "all")
    assert expansion.owner is None
    parted = expansion.by_owner()
    assert [str(c.address) for c in parted[None]] == ["y@w.test"]
    assert [str(c.address) for c in parted[friends]] == ["betty@gonzo.test"]
    assert len(parted[inner]) == 2


@pytest.mark.parametrize(
    ("text", "name", "owner"),
    [
        ("c++-users: joe\nowner-c++-users: betty", "c++-users", "owner-c++-users"),
        ("a+b: joe\nowner-a: betty", "a+b", "owner-a"),
        ("a+b: joe\nowner-a: betty\nowner-a+b: joe", "a+b", "owner-a+b"),
        ("a: joe\nowner-a: betty", "a+x", "owner-a"),
        ("a+*: joe\nowner-a: betty", "a+x", "owner-a"),
    ],
)
def test_owner_of_names_with_the_delimiter(text: str, name: str, owner: str) -> None:
    assert str(expand(Aliases(text), name).owner) == f"{owner}@gonzo.test"


def test_problems_name_the_alias_and_its_owner() -> None:
    expansion = expand(Aliases("a: b\nb: nosuch\nowner-b: betty"), "a")
    owner = Address("owner-b", "gonzo.test")
    assert expansion.problems == (
        Problem("nosuch", "b", "5.1.1", "User unknown", owner),
    )


def test_depth() -> None:
    deep = "".join(f"a{n}: a{n + 1}\n" for n in range(20)) + "a20: betty\n"
    expansion = expand(Aliases(deep), "a0")
    assert problems(expansion) == [f"a10: {LOOP} (11 aliases deep; 10 max)"]
    assert names(expand(Aliases(deep), "a11")) == ["betty@gonzo.test"]
    assert names(expand(Aliases(deep), "a0", alias_depth_max=30)) == [
        "betty@gonzo.test"
    ]


INCLUDES: dict[str, tuple[Answer, list[str], list[str]]] = {
    "list": (Found(("betty", "joe")), ["betty@gonzo.test", "joe@gonzo.test"], []),
    "list within itself": (Found((":include:/x", "joe")), ["joe@gonzo.test"], []),
    "unsafe": (
        NotFound("do: chmod go-w /x"),
        [],
        [":include:/x: 5.2.4 list cannot be used: do: chmod go-w /x"],
    ),
    "nonsense in it": (
        Found(("a b",)),
        [],
        ["a b: 5.1.3 local part has characters that need quotes"],
    ),
}


@pytest.mark.parametrize(
    ("answer", "children", "wrong"), INCLUDES.values(), ids=INCLUDES.keys()
)
def test_include(answer: Answer, children: list[str], wrong: list[str]) -> None:
    facts = Aliases("a: :include:/x")
    facts.lists["/x"] = answer
    expansion = expand(facts, "a", includes=True)
    assert names(expansion) == children
    assert problems(expansion) == wrong


def test_include_that_cannot_be_read_now_waits() -> None:
    facts = Aliases("a: betty, :include:/x")
    facts.lists["/x"] = Failed("disk")
    walk = make_router(includes=True).walk(Address.from_text("a"))
    first = answer_now(walk.chunk(), facts)
    assert isinstance(first, Expansion)
    assert names(first) == ["betty@gonzo.test"]
    assert first.cursor is not None
    assert answer_now(walk.chunk(), facts) == RoutingFailed("disk")
    facts.lists["/x"] = Found(("joe",))
    last = answer_now(walk.chunk(), facts)
    assert isinstance(last, Expansion)
    assert names(last) == ["joe@gonzo.test"]
    assert last.cursor is None


@pytest.mark.parametrize("failing", ["a", "owner-a", "betty"])
def test_failed_look_up_loses_nothing(failing: str) -> None:
    facts = Aliases("a: betty")
    facts.failing = failing
    walk = make_router().walk(Address.from_text("a"))
    assert answer_now(walk.chunk(), facts) == RoutingFailed("the disk")
    facts.failing = ""
    found = answer_now(walk.chunk(), facts)
    assert isinstance(found, Expansion)
    assert names(found) == ["betty@gonzo.test"]


BIG = "all: half, " + ", ".join(f"u{n}@w.test" for n in range(10)) + ", u3@w.test\n"
BIG += "half: " + ", ".join(f"u{n}@w.test" for n in range(5)) + ", nosuch\n"


def in_chunks(facts: Aliases, limit: int) -> list[Expansion]:
    walk = make_router().walk(Address.from_text("all"))
    chunks = []
    while True:
        found = answer_now(walk.chunk(limit), facts)
        assert isinstance(found, Expansion)
        chunks.append(found)
        if found.cursor is None:
            return chunks


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 1000])
def test_chunks_make_the_whole(limit: int) -> None:
    facts = Aliases(BIG)
    whole = expand(facts, "all")
    chunks = in_chunks(facts, limit)
    assert all(len(c.children) + len(c.problems) <= limit for c in chunks)
    assert [n for c in chunks for n in names(c)] == names(whole)
    assert [p for c in chunks for p in problems(c)] == problems(whole)
    assert len(names(whole)) == 10
    lines = [line for c in chunks for line in c.trace]
    assert lines == list(whole.trace)


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
def test_resumed_at_each_cursor(limit: int) -> None:
    facts = Aliases(BIG)
    done: list[str] = []
    cursor = 0
    while True:
        chunk = expand(facts, "all", cursor, limit)
        done += names(chunk)
        if chunk.cursor is None:
            break
        assert 0 < chunk.cursor < 1 << 63
        cursor = chunk.cursor
    assert done == names(expand(facts, "all"))


CHANGES = {
    "one more in front": ("all: new@w.test, a@w.test, b@w.test, c@w.test, d@w.test", 5),
    "one less in front": ("all: b@w.test, c@w.test, d@w.test", 3),
    "much shorter": ("all: d@w.test", 1),
    "other order": ("all: b@w.test, a@w.test, c@w.test, d@w.test", 4),
    "one more at the end": ("all: a@w.test, b@w.test, c@w.test, d@w.test, e@w.test", 3),
    "one less at the end": ("all: a@w.test, b@w.test, c@w.test", 1),
}


@pytest.mark.parametrize(("text", "left"), CHANGES.values(), ids=CHANGES.keys())
def test_a_list_that_changed_in_between_loses_nobody(text: str, left: int) -> None:
    before = Aliases("all: a@w.test, b@w.test, c@w.test, d@w.test")
    first = expand(before, "all", limit=2)
    assert first.cursor is not None
    after = Aliases(text)
    rest = expand(after, "all", first.cursor)
    assert len(rest.children) == left
    everybody = set(names(expand(after, "all")))
    assert everybody <= set(names(first)) | set(names(rest))
