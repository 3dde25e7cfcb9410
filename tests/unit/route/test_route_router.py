"""What a recipient is when it is named: every kind of address, and every bad one."""

from collections.abc import Awaitable, Mapping

import pytest

from postroom.dns.own import OwnNames
from postroom.mail.address import Address
from postroom.mail.route import Route
from postroom.route.drive import Waiting, answer_now, drive
from postroom.route.questions import (
    Answer,
    Failed,
    Found,
    Lookup,
    NotFound,
    Question,
    UserExists,
)
from postroom.route.router import Router
from postroom.route.routing import (
    LocalAlias,
    LocalUser,
    Relay,
    Routing,
    RoutingFailed,
    Unknown,
    Unroutable,
)
from postroom.route.settings import RouteSettings


class Told:
    """Facts from maps; ``asked`` keeps the questions."""

    def __init__(
        self,
        users: str = "",
        aliases: Mapping[str, tuple[str, ...]] | None = None,
        routes: Mapping[str, str] | None = None,
    ) -> None:
        self.users = set(users.split())
        routed: dict[str, tuple[str, ...]] = {
            key: (value,) for key, value in (routes or {}).items()
        }
        self.tables: dict[str, dict[str, tuple[str, ...]]] = {
            "aliases": dict(aliases or {}),
            "routes": routed,
        }
        self.failing: set[str] = set()
        self.asked: list[Question] = []

    def get(self, question: Question) -> Answer | Awaitable[Answer]:
        self.asked.append(question)
        match question:
            case Lookup(table, key):
                if table in self.failing:
                    return Failed(f"{table} cannot be read")
                values = self.tables[table].get(key)
                return NotFound() if values is None else Found(values)
            case UserExists(name):
                if "users" in self.failing:
                    return Failed("users cannot be read")
                return Found() if name in self.users else NotFound()
            case _:
                raise AssertionError(question)


FACTS = Told(
    users="betty joe joe+lists plus+ jürgen",
    aliases={
        "friends": ("betty",),
        "postmaster": ("betty",),
        "sales+eu": ("joe",),
        "sales": ("betty",),
        "shop+*": ("joe",),
    },
    routes={
        "relayed.test": "smtp:[127.0.1.9]:2525",
        ".sub.test": "smtp:hub.test",
        "exact.sub.test": "smtp:",
        "lmtp.test": "lmtp:/run/lmtp.sock",
        "gone.test": "error:5.1.2 This domain has closed",
        "later.test": "error:4.3.2 Closed for today",
        "sink.test": "discard:",
        "second.test": "mailbox:",
        "broken.test": "pigeon:",
        "xn--bcher-kva.test": "discard:",
    },
)
OWN = OwnNames.of(["mx.gonzo.test"], ["127.0.1.1", "::1"])


def make_router(**changes: object) -> Router:
    settings = {"local_domains": ("gonzo.test", "Other.Test"), **changes}
    return Router(RouteSettings(**settings), "mx.gonzo.test", OWN)  # type: ignore[arg-type]


def classify(text: str, facts: Told = FACTS, **changes: object) -> Routing:
    routing = answer_now(make_router(**changes).classify(read(text)), facts)
    assert not isinstance(routing, Waiting)
    return routing


def read(text: str) -> Address:
    return Address.from_text(text)


def user(name: str, detail: str = "") -> LocalUser:
    return LocalUser(name, detail, Route("mailbox", "local", f"user {name}"))


def smtp(hop: str, rule: str) -> Relay:
    return Relay(Route("smtp", hop, rule))


NO_SUCH_HOST = "Host unknown (malformed domain name)"
CASES: dict[str, tuple[str, Routing]] = {
    "user": ("betty@gonzo.test", user("betty")),
    "user, any case": ("BETTY@Gonzo.TEST", user("betty")),
    "user, final dot": ("betty@gonzo.test.", user("betty")),
    "user at another local domain": ("joe@other.test", user("joe")),
    "user at the host name": ("joe@mx.gonzo.test", user("joe")),
    "user at localhost": ("joe@localhost", user("joe")),
    "user, no domain": ("joe", user("joe")),
    "user at our address": ("joe@[127.0.1.1]", user("joe")),
    "user at our IPv6 address": ("joe@[IPv6:0:0:0:0:0:0:0:1]", user("joe")),
    "detail": ("betty+Lists@gonzo.test", user("betty", "Lists")),
    "empty detail": ("betty+@gonzo.test", user("betty")),
    "two delimiters": ("betty+a+b@gonzo.test", user("betty", "a+b")),
    "user whose name has a delimiter": ("joe+lists@gonzo.test", user("joe+lists")),
    "quoted user": ('"betty"@gonzo.test', user("betty")),
    "UTF-8 user, decomposed": ("ju\u0308rgen@gonzo.test", user("jürgen")),
    "alias": ("Friends@gonzo.test", LocalAlias("friends", ("betty",), "alias friends")),
    "alias by detail": (
        "friends+x@gonzo.test",
        LocalAlias("friends", ("betty",), "alias friends"),
    ),
    "alias of a detail": (
        "sales+EU@gonzo.test",
        LocalAlias("sales+eu", ("joe",), "alias sales+eu"),
    ),
    "alias of any detail": (
        "shop+x@gonzo.test",
        LocalAlias("shop+*", ("joe",), "alias shop+*"),
    ),
    "alias of any detail, without detail": ("shop@gonzo.test", Unknown()),
    "unknown": ("nosuch@gonzo.test", Unknown()),
    "unknown with detail": ("nosuch+betty@gonzo.test", Unknown()),
    "only a delimiter": ("+@gonzo.test", Unknown()),
    "only a detail": ("+betty@gonzo.test", Unknown()),
    "null": ("", Unknown()),
    # S.7: spellings that try to relay are names like any other
    "percent": ("betty%whizzer.test@gonzo.test", Unknown()),
    "bang": ("whizzer.test!betty@gonzo.test", Unknown()),
    "quoted at": ('"betty@whizzer.test"@gonzo.test', Unknown()),
    "source route to us": ("@whizzer.test:betty@gonzo.test", user("betty")),
    "source route through us": (
        "@gonzo.test:joe@whizzer.test",
        smtp("whizzer.test", "MX of whizzer.test"),
    ),
    "percent with detail": (
        "betty+%whizzer.test@gonzo.test",
        user("betty", "%whizzer.test"),
    ),
    "program": ('"|/bin/sh"@gonzo.test', Unknown()),
    "file": ('"/etc/passwd"@gonzo.test', Unknown()),
    "include": ('":include:/etc/passwd"@gonzo.test', Unknown()),
    "elsewhere": ("joe@Whizzer.Test.", smtp("whizzer.test", "MX of whizzer.test")),
    "sub-domain of ours": (
        "joe@a.gonzo.test",
        smtp("a.gonzo.test", "MX of a.gonzo.test"),
    ),
    "literal of another": ("joe@[127.0.1.2]", smtp("[127.0.1.2]", "address literal")),
    "IPv6 literal of another": (
        "joe@[IPv6:2001:db8::2]",
        smtp("[IPv6:2001:db8::2]", "address literal"),
    ),
    "u-label": (
        "joe@übung.test",
        smtp("xn--bung-zra.test", "MX of xn--bung-zra.test"),
    ),
    "no possible domain": (
        "joe@\u200da.test",
        Unroutable(NO_SUCH_HOST, "domain name"),
    ),
    "address for a domain": ("joe@1.2.3.4", smtp("[1.2.3.4]", "address literal")),
}


@pytest.mark.parametrize(("text", "expected"), CASES.values(), ids=CASES.keys())
def test_classify(text: str, expected: Routing) -> None:
    assert classify(text) == expected


RULE = "table routes: "
ROUTED: dict[str, tuple[str, Routing]] = {
    "host and port": (
        "a@relayed.test",
        smtp("[127.0.1.9]:2525", RULE + "relayed.test"),
    ),
    "sub-domain": ("a@x.y.sub.test", smtp("hub.test", RULE + ".sub.test")),
    "exact before sub-domain": (
        "a@exact.sub.test",
        smtp("exact.sub.test", RULE + "exact.sub.test"),
    ),
    "the domain itself is no sub-domain": (
        "a@sub.test",
        smtp("sub.test", "MX of sub.test"),
    ),
    "LMTP is ours": (
        "a@lmtp.test",
        Relay(Route("lmtp", "/run/lmtp.sock", RULE + "lmtp.test"), ours=True),
    ),
    "discard is ours": (
        "a@sink.test",
        Relay(Route("discard", "local", RULE + "sink.test"), ours=True),
    ),
    "refused": (
        "a@gone.test",
        Unroutable("This domain has closed", RULE + "gone.test", "5.1.2", 550),
    ),
    "deferred": (
        "a@later.test",
        Unroutable("Closed for today", RULE + "later.test", "4.3.2", 450),
    ),
    "as if local": ("joe@second.test", user("joe")),
    "as if local, unknown": ("nosuch@second.test", Unknown()),
    "u-label": (
        "a@bücher.test",
        Relay(Route("discard", "local", RULE + "xn--bcher-kva.test"), ours=True),
    ),
    "nonsense waits": (
        "a@broken.test",
        RoutingFailed(
            'table routes: broken.test: "pigeon:" is no way for mail: write '
            '"smtp:[host]:port", "smtp:host", "smtps:[host]", "lmtp:[host]:port", '
            '"lmtp:/socket", '
            '"discard:", "mailbox:" or "error:5.1.1 text"'
        ),
    ),
    "local domains are not asked for": ("betty@gonzo.test", user("betty")),
    "not in the table": ("a@b.test", smtp("b.test", "MX of b.test")),
}


@pytest.mark.parametrize(("text", "expected"), ROUTED.values(), ids=ROUTED.keys())
def test_routes_table(text: str, expected: Routing) -> None:
    assert classify(text, routes="routes") == expected


def test_catch_all_route_and_smart_host() -> None:
    facts = Told(routes={"*": "smtp:[hub.test]"})
    assert classify("a@b.test", facts, routes="routes") == smtp(
        "[hub.test]", RULE + "*"
    )
    facts = Told(routes={".": "smtp: tls=required"})  # as in a mailertable
    assert classify("a@b.test", facts, routes="routes") == smtp(
        "b.test;tls=required", RULE + "."
    )
    smart = "[Relay.Test]:587"
    assert classify("a@b.test", smart_host=smart) == smtp(
        "[relay.test]:587", "smart host"
    )
    assert classify("a@relayed.test", routes="routes", smart_host=smart) == smtp(
        "[127.0.1.9]:2525", RULE + "relayed.test"
    )
    assert classify("a@[127.0.1.2]", smart_host=smart) == smtp(
        "[127.0.1.2]", "address literal"
    )


POSTMASTERS: dict[str, tuple[Told, str, Routing]] = {
    "alias": (FACTS, "", LocalAlias("postmaster", ("betty",), "alias postmaster")),
    "user": (Told("postmaster"), "", user("postmaster")),
    "setting": (
        Told(),
        "joe@whizzer.test",
        LocalAlias("postmaster", ("joe@whizzer.test",), "setting postmaster"),
    ),
    "nobody, yet accepted": (
        Told(),
        "",
        LocalUser(
            "postmaster",
            "",
            Route("mailbox", "local", "postmaster, without an alias or a user"),
        ),
    ),
    "setting that means itself": (
        Told(),
        "Postmaster",
        LocalUser(
            "postmaster",
            "",
            Route("mailbox", "local", "postmaster, without an alias or a user"),
        ),
    ),
}


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (FACTS, LocalAlias("mailer-daemon", ("postmaster",), "whom reports are from")),
        (Told("mailer-daemon"), user("mailer-daemon")),
        (
            Told(aliases={"mailer-daemon": ("/dev/null",)}),
            LocalAlias("mailer-daemon", ("/dev/null",), "alias mailer-daemon"),
        ),
    ],
    ids=["nobody", "user", "alias"],
)
def test_who_answers_a_report_reaches_postmaster(
    facts: Told, expected: Routing
) -> None:
    assert classify("MAILER-DAEMON@gonzo.test", facts) == expected


@pytest.mark.parametrize(
    ("facts", "setting", "expected"), POSTMASTERS.values(), ids=POSTMASTERS.keys()
)
@pytest.mark.parametrize(
    "text", ["postmaster", "PostMaster@gonzo.test", "postmaster@[127.0.1.1]"]
)
def test_postmaster_always_resolves(
    text: str, facts: Told, setting: str, expected: Routing
) -> None:
    assert classify(text, facts, postmaster=setting) == expected


PROBLEMS = {
    "alias": (FACTS, "", ""),
    "user": (Told("postmaster"), "", ""),
    "setting": (Told(), "joe@whizzer.test", ""),
    "nobody": (Told(), "", "add an alias or a user"),
    "alias to nobody": (
        Told(aliases={"postmaster": ("nosuch",)}),
        "",
        "reaches nobody: mend its alias",
    ),
    "alias to a program": (Told(aliases={"postmaster": ("|x",)}), "", "mend its alias"),
    "alias to itself": (
        Told(aliases={"postmaster": ("postmaster",)}),
        "",
        "add an alias or a user",
    ),
}


@pytest.mark.parametrize(
    ("facts", "setting", "problem"), PROBLEMS.values(), ids=PROBLEMS.keys()
)
def test_postmaster_problem(facts: Told, setting: str, problem: str) -> None:
    found = answer_now(make_router(postmaster=setting).postmaster_problem(), facts)
    assert isinstance(found, str)
    assert problem in found
    assert bool(problem) == bool(found)


def test_postmaster_problem_when_a_table_fails() -> None:
    facts = Told()
    facts.failing = {"aliases"}
    found = answer_now(make_router().postmaster_problem(), facts)
    assert found == "mail for postmaster cannot be routed: aliases cannot be read"


@pytest.mark.parametrize(
    ("failing", "text"),
    [
        ("aliases", "betty@gonzo.test"),
        ("users", "nosuch@gonzo.test"),
        ("users", "postmaster"),
        ("routes", "a@b.test"),
    ],
)
def test_failure_is_a_deferral_never_unknown(failing: str, text: str) -> None:
    facts = Told("betty")
    facts.failing = {failing}
    routing = classify(text, facts, routes="routes")
    assert routing == RoutingFailed(f"{failing} cannot be read")
    assert routing.kind == "failed"
    reply = routing.to_reply()
    assert reply is not None
    assert reply.code == 451


def test_another_delimiter_and_none() -> None:
    assert classify("betty-x@gonzo.test", recipient_delimiter="-") == user("betty", "x")
    assert classify("betty+x@gonzo.test", recipient_delimiter="") == Unknown()


def test_another_agent() -> None:
    routing = classify("betty@gonzo.test", local_agent="discard")
    assert routing.to_route() == Route("discard", "local", "user betty")


def test_what_each_kind_means_to_policy_and_queue() -> None:
    assert classify("betty@gonzo.test").kind == "local"
    assert classify("friends@gonzo.test").kind == "local"
    assert classify("friends@gonzo.test").to_route() is None
    assert classify("a@b.test").kind == "relay"
    assert classify("a@lmtp.test", routes="routes").kind == "local"
    assert classify("nosuch@gonzo.test").kind == "unknown"
    unknown = classify("nosuch@gonzo.test").to_reply()
    assert str(unknown) == "550 5.1.1 User unknown"
    assert str(classify("a@gone.test", routes="x").to_reply()) == (
        "550 5.1.2 This domain has closed"
    )
    for text in ("betty@gonzo.test", "friends@gonzo.test", "a@b.test"):
        assert classify(text).to_reply() is None
        assert classify(text).rule
    for refused in (Unknown(), Unroutable("", ""), RoutingFailed("")):
        assert refused.to_route() is None


def test_ways_are_remembered_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("postroom.route.router.WAYS_KEPT_MAX", 3)
    router = make_router()
    for number in range(10):
        address = read(f"a@b{number}.test")
        assert answer_now(router.classify(address), FACTS) == smtp(
            f"b{number}.test", f"MX of b{number}.test"
        )
    assert len(router._ways) <= 3


BAD_SETTINGS = {
    "local domain": ({"local_domains": ("a b",)}, "local_domains"),
    "smart host": ({"smart_host": "[relay"}, "smart_host"),
    "postmaster": ({"postmaster": "a@"}, "postmaster"),
}


@pytest.mark.parametrize(
    ("changes", "named"), BAD_SETTINGS.values(), ids=BAD_SETTINGS.keys()
)
def test_bad_settings_are_named(changes: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        make_router(**changes)


def test_recall_answers_only_from_what_is_known() -> None:
    class Slow(Told):
        def get(self, question: Question) -> Answer | Awaitable[Answer]:
            return later(super().get(question))

    async def later(answer: Answer | Awaitable[Answer]) -> Answer:
        assert isinstance(answer, Found | NotFound | Failed)
        return answer

    router = make_router()
    assert router.recall(read("betty@gonzo.test"), FACTS) == user("betty")
    assert router.recall(read("betty@gonzo.test"), Slow("betty")) is None
    assert router.recall(read("a@b.test"), Slow()) == smtp("b.test", "MX of b.test")


async def test_the_same_answer_when_facts_come_late() -> None:
    class Late(Told):
        def get(self, question: Question) -> Answer | Awaitable[Answer]:
            answer = super().get(question)
            assert not isinstance(answer, Awaitable)
            return self._later(answer) if len(self.asked) % 2 else answer

        async def _later(self, answer: Answer) -> Answer:
            return answer

    facts = Late("betty", {"friends": ("betty",)})
    for text in ("betty+x@gonzo.test", "friends@gonzo.test", "no@gonzo.test"):
        found = await drive(make_router().classify(read(text)), facts)
        assert found == classify(text, Told("betty", {"friends": ("betty",)}))


def test_users_are_asked_for_in_lower_case_and_once() -> None:
    facts = Told("betty")
    classify("Betty@gonzo.test", facts)
    assert facts.asked == [Lookup("aliases", "betty"), UserExists("betty")]
