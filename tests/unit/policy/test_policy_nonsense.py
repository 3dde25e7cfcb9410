"""Verdicts that could not be carried out: 451 at once, and the hook is named."""

from collections.abc import Callable
from typing import Any

import pytest

from postroom import accept, add_header, discard, hook, quarantine, reject
from postroom.mail.address import Address
from postroom.mail.message import Add, Prepend, Remove, Replace
from postroom.mail.now import Now
from postroom.mail.reply import Reply
from postroom.mail.route import Route
from postroom.mail.verdict import (
    Accept,
    AddRecipient,
    Defer,
    Quarantine,
    RefuseRecipient,
    RemoveRecipient,
    ReplaceBody,
)
from postroom.observe.events import AnyEvent, HookFailed
from postroom.policy.chain import Chain
from postroom.policy.hooks import MARK
from postroom.policy.session import RouteSubject
from postroom.policy.settings import PolicySettings
from postroom.testing.policy import make_message, make_session

SESSION = make_session()
JOE = Address("joe", "whizzer.test")
USUAL = Route("smtp", "gonzo.test", "router")


class Kit:
    """A chain of one function, and what is told of it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.events: list[AnyEvent] = []
        self.chain = Chain(
            getattr(function, MARK),
            PolicySettings(),
            self.events.append,
            lambda: Now(1_000_000, 0),
        )

    @property
    def failures(self) -> list[str]:
        return [one.error for one in self.events if isinstance(one, HookFailed)]


OK = Reply.of(250, "", "ok")
BAD_CHANGES: dict[str, tuple[object, str]] = {
    "a list": (accept([add_header("X", "y")]), "one by one"),  # type: ignore[arg-type]
    "a text": (accept("X: y"), "one by one"),  # type: ignore[arg-type]
    "a function": (accept(quarantine), "one by one"),  # type: ignore[arg-type]
    "nothing": (accept(None), "one by one"),  # type: ignore[arg-type]
    "a verdict": (accept(reject("5.7.1", "no")), "one by one"),  # type: ignore[arg-type]
    "no tuple": (Accept(5), "a tuple"),  # type: ignore[arg-type]
    "one of two": (accept(add_header("X", "y"), 5), "one by one"),  # type: ignore[arg-type]
    "a field without end": (accept(Add(b"X: y")), "malformed"),
    "two fields in one": (accept(Add(b"X: y\r\nZ: a\r\n")), "malformed"),
    "an empty line": (accept(Prepend(b"X: y\r\n\r\n")), "malformed"),
    "a bare line end": (accept(Prepend(b"X: y\nZ: a\r\n")), "malformed"),
    "a NUL": (accept(Add(b"X: \0\r\n")), "malformed"),
    "a field as text": (accept(Replace("X", "X: y\r\n")), "malformed"),  # type: ignore[arg-type]
    "no name": (accept(Remove("")), "no header name"),
    "a body as text": (accept(ReplaceBody("x")), "not bytes"),  # type: ignore[arg-type]
    "nobody": (accept(AddRecipient(Address("", ""))), "no address"),
    "a recipient as text": (accept(RemoveRecipient("joe@x.test")), "no address"),  # type: ignore[arg-type]
    "refused by 250": (accept(RefuseRecipient(JOE, OK)), "no refusal"),
    "no reason": (accept(Quarantine(" ")), "needs a reason"),
    "no reason at all": (accept(Quarantine(None)), "needs a reason"),  # type: ignore[arg-type]
    "discarded without": (discard(None), "no text"),  # type: ignore[arg-type]
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_CHANGES)
def test_changes_that_cannot_be_made_are_451_and_named(name: str) -> None:
    answer, error = BAD_CHANGES[name]
    kit = Kit(hook.message(lambda session, message: answer))
    verdict = kit.chain.decide_now("message", SESSION, make_message("A: b\n\nc\n"))
    assert isinstance(verdict, Defer)
    assert str(verdict.reply).startswith("451 4.3.0 ")
    assert error in kit.failures[0]


@pytest.mark.parametrize(
    ("agent", "hop_text", "error"),
    [
        pytest.param("esmtp", "x.test", "no delivery agent", id="no-such-agent"),
        pytest.param(None, "x.test", "no delivery agent", id="no-agent"),
        pytest.param("smtp", "", "no mail host", id="no-hop"),
        pytest.param("smtp", None, "texts", id="hop-is-nothing"),
        pytest.param("smtp", 25, "texts", id="hop-is-a-number"),
        pytest.param("smtp", "[x.test:25", "no mail host", id="open-bracket"),
        pytest.param("smtp", "x.test:99999", "ports end", id="port"),
        pytest.param("smtp", "x.test tls=maybe", "write one of", id="option"),
        pytest.param("smtp", "x.test\r\nRCPT", "no option", id="line-end"),
        pytest.param("lmtp", "x y", "no option", id="lmtp"),
    ],
)
async def test_routes_that_lead_nowhere_are_451_and_named(
    agent: Any, hop_text: Any, error: str
) -> None:
    kit = Kit(hook.route(lambda session, subject: Route(agent, hop_text)))
    chosen = await kit.chain.choose(SESSION, RouteSubject(JOE, USUAL))
    assert isinstance(chosen, Defer)
    assert error in kit.failures[0]


@pytest.mark.parametrize(
    ("said", "agent", "expected"),
    [
        ("X.Test.", "smtp", "x.test"),
        ("[x.test]:587 tls=verified login=relay", "smtp",
            "[x.test]:587;tls=verified;login=relay"),
        ("/run/lmtp.sock", "lmtp", "/run/lmtp.sock"),
        ("", "mailbox", "local"),
        ("whatever", "discard", "local"),
    ],
)  # fmt: skip
async def test_a_route_has_one_form_and_names_its_hook(
    said: str, agent: str, expected: str
) -> None:
    @hook.route
    def by_site(session: object, subject: object) -> Route:
        return Route(agent, said)

    chosen = await Kit(by_site).chain.choose(SESSION, RouteSubject(JOE, USUAL))
    assert chosen == Route(agent, expected, "hook by_site")
