"""Tests a policy module in milliseconds: make a client, ask, look at the verdict.

::

    from postroom.testing.policy import PolicyTest

    def test_spam_traps():
        policy = PolicyTest("policy.py")
        assert policy.rcpt("trap@whizzer.test") == "550 5.7.1 no thanks"
        assert policy.rcpt("joe@whizzer.test") == "accept"

No server, no socket, no clock. The built-in guards are asked too, as in production,
unless ``guards=False``. A hook that fails raises ``HookTrouble`` with what it did,
instead of hiding behind the 451 that a client would see.
"""

import asyncio
import os
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import msgspec

from postroom.mail.address import NULL_SENDER, Address
from postroom.mail.envelope import Envelope, Origin, Recipient
from postroom.mail.headers import edited_header, split_message
from postroom.mail.ids import QueueId
from postroom.mail.message import Add, MemoryBody, Message, Prepend, Remove, Replace
from postroom.mail.now import Now
from postroom.mail.outcome import Outcome
from postroom.mail.route import LOCAL_HOP, Route
from postroom.mail.verdict import (
    Accept,
    Change,
    Defer,
    Discard,
    Quarantine,
    Reject,
    ReplaceBody,
    Verdict,
)
from postroom.observe.events import AnyEvent, HookFailed
from postroom.policy.builtin import Guards
from postroom.policy.chain import Chain
from postroom.policy.hooks import MARK, Hook, HookError, Phase
from postroom.policy.loader import load_site
from postroom.policy.session import (
    Auth,
    Connect,
    Hello,
    Mail,
    MessageSubject,
    OutcomeSubject,
    Rcpt,
    RouteSubject,
    Routing,
    Session,
    Subject,
)
from postroom.policy.settings import PolicySettings

NOW = Now(utc_us=1_790_000_000_000_000, mono_us=0)
"""The moment at which every test happens."""

T = TypeVar("T")


class HookTrouble(AssertionError):
    """A hook raised, was too slow, or returned nonsense."""


class Said(msgspec.Struct, frozen=True, eq=False):
    """A verdict that compares with the text a person would write.

    ``"accept"``, ``"discard"``, or the reply: ``"550 5.7.1 no thanks"``, of which any
    beginning will do. ``subject`` is the message that was asked about, if it was one.
    """

    verdict: Verdict
    subject: MessageSubject | None = None

    @property
    def changes(self) -> tuple[Change, ...]:
        """What the message phase changes."""
        return self.verdict.changes if isinstance(self.verdict, Accept) else ()

    @property
    def content(self) -> bytes:
        """The message as it would leave: with the changes, without our trace field."""
        assert self.subject is not None, "only the message phase has a content"
        message, body = self.subject.message, self.subject.message.body
        edits = []
        for change in self.changes:
            if isinstance(change, ReplaceBody):
                body = MemoryBody(change.body)
            elif isinstance(change, Prepend | Add | Replace | Remove):
                edits.append(change)
        assert isinstance(body, MemoryBody)
        header = edited_header(Message(message.header, body, tuple(edits)))
        is_parted = message.has_separator or body is not message.body
        return header + b"\r\n" * is_parted + body.data

    @property
    def held(self) -> str:
        """The reason of a quarantine; empty if the message is delivered."""
        held = [one.reason for one in self.changes if isinstance(one, Quarantine)]
        return held[-1] if held else ""

    @property
    def rule(self) -> str:
        """The name of the hook that refused; empty if none did."""
        refused = isinstance(self.verdict, Reject | Defer)
        return self.verdict.rule if refused else ""  # type: ignore[union-attr]

    def __str__(self) -> str:
        match self.verdict:
            case Accept():
                return "accept"
            case Discard():
                return "discard"
            case Reject(reply=reply) | Defer(reply=reply):
                return str(reply)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str):
            return bool(other) and str(self).startswith(other)
        if isinstance(other, Said):
            return self.verdict == other.verdict
        return NotImplemented

    def __hash__(self) -> int:
        return hash(str(self))


class PolicyTest:
    """One policy module and one client of it.

    Args:
        site: the path of the module (text or ``Path``), or functions marked with
            ``@hook``.
        settings: the ``[policy]`` section.
        guards: ask the built-in hooks as well.
        message_octets_max: the largest message.
        client: what is known of the client, as ``make_session`` takes it:
            ``client_ip``, ``helo``, ``login``, ``tls``, ...

    Raises:
        SiteError: the module cannot be loaded.
        HookError: one of the functions is no hook.
    """

    _generation = 0

    def __init__(
        self,
        site: str | os.PathLike[str] | Sequence[Any],
        settings: PolicySettings | None = None,
        *,
        guards: bool = True,
        message_octets_max: int = 50 << 20,
        **client: Any,
    ) -> None:
        settings = settings or PolicySettings()
        hooks: list[Hook] = []
        if guards:
            hooks += Guards(settings, message_octets_max).hooks()
        if isinstance(site, str | os.PathLike):
            PolicyTest._generation += 1
            hooks += load_site(os.fspath(site), -PolicyTest._generation).hooks
        else:
            hooks += (one for function in site for one in _marked(function))
        self.events: list[AnyEvent] = []
        self.session = make_session(**client)
        self.chain = Chain(hooks, settings, self.events.append, lambda: NOW)

    def as_client(self, **client: Any) -> "PolicyTest":
        """Return the same policy, met by another client."""
        other = object.__new__(PolicyTest)
        other.chain, other.events = self.chain, self.events
        other.session = make_session(**client)
        return other

    def connect(self) -> Said:
        """Ask what is said to the client's connection."""
        origin = self.session.origin
        return self.ask("connect", Connect(origin.client_ip, origin.listener))

    def hello(self, domain: str, verb: str = "EHLO") -> Said:
        """Ask what is said to EHLO."""
        return self.ask("hello", Hello(verb, domain))

    def auth(self, user: str, mechanism: str = "PLAIN") -> Said:
        """Ask what is said to a login with the right password."""
        return self.ask("auth", Auth(user, mechanism))

    def mail(
        self,
        sender: str,
        size_octets: int = 0,
        *,
        body: str = "7BIT",
        params: tuple[tuple[str, str], ...] = (),
    ) -> Said:
        """Ask what is said to MAIL; the empty text is the null sender."""
        address = Address.from_text(sender)
        return self.ask("mail", Mail(address, size_octets, body, params))

    def rcpt(
        self,
        recipient: str,
        routing: Routing = "local",
        *,
        sender: str = "sender@elsewhere.test",
        recipients_so_far: int = 0,
    ) -> Said:
        """Ask what is said to RCPT, given what the router says of the recipient."""
        address, sent_by = Address.from_text(recipient), Address.from_text(sender)
        return self.ask("rcpt", Rcpt(address, routing, "", recipients_so_far, sent_by))

    def message(
        self,
        text: str | bytes,
        *,
        sender: str = "sender@elsewhere.test",
        recipients: Sequence[str] = ("joe@whizzer.test",),
    ) -> Said:
        """Ask what is said to a whole message; any line ends will do."""
        subject = make_message(text, sender, recipients, self.session.origin)
        return Said(self.ask("message", subject).verdict, subject)

    def route(
        self,
        recipient: str,
        hop: str = LOCAL_HOP,
        agent: str = "",
        *,
        sender: str = "sender@elsewhere.test",
    ) -> Route:
        """Ask where a recipient goes; ``hop`` is what the router would choose."""
        agent = agent or ("mailbox" if hop == LOCAL_HOP else "smtp")
        route = Route(agent, hop, "router")
        address, sent_by = Address.from_text(recipient), Address.from_text(sender)
        subject = RouteSubject(address, route, sent_by)
        chosen = self._run(self.chain.choose(self.session, subject))
        assert isinstance(chosen, Route), f"refused: {Said(chosen)}"
        return chosen

    def outcome(
        self,
        recipient: str,
        outcome: Outcome,
        queue_id: str = "000TESTTEST",
        *,
        sender: str = "sender@elsewhere.test",
        **more: Any,
    ) -> None:
        """Tell the observers what became of a recipient.

        ``more`` are further fields of ``OutcomeSubject``, such as ``agent`` or
        ``tries``.
        """
        address, sent_by = Address.from_text(recipient), Address.from_text(sender)
        subject = OutcomeSubject(QueueId(queue_id), address, outcome, sent_by, **more)
        self._run(self.chain.observe(self.session, subject))

    def ask(self, phase: Phase, subject: Subject) -> Said:
        """Ask all hooks of a phase about any subject."""
        return Said(self._run(self.chain.decide(phase, self.session, subject)))

    def _run(self, asking: Coroutine[Any, Any, T]) -> T:
        """Run to the end; a hook's failure is the test's failure."""
        del self.events[:]
        result = _finished(asking)
        for event in self.events:
            if isinstance(event, HookFailed):
                raise HookTrouble(f"{event.hook} ({event.phase}): {event.error}")
        return result


def _marked(function: Any) -> Sequence[Hook]:
    marked: Sequence[Hook] | None = getattr(function, MARK, None)
    if marked is None:
        raise HookError(f"{function!r} is no hook: mark it with @hook.rcpt or another")
    return marked


def _finished(asking: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine, from an ordinary test or from an ``async def`` one."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(asking)
    with ThreadPoolExecutor(1) as beside:
        return beside.submit(asyncio.run, asking).result()


def make_session(
    client_ip: str = "192.0.2.1",
    *,
    client_name: str = "",
    helo: str = "client.example",
    login: str = "",
    tls: bool = False,
    listener: str = "smtp",
    opened_us: int = NOW.utc_us,
    **more: Any,
) -> Session:
    """Make a client's session; ``more`` are further fields, such as ``score``."""
    origin = Origin("ESMTP", client_ip, 40_000, client_name, helo, login, listener)
    return Session(origin, tls, opened_us, **more)


def make_message(
    text: str | bytes,
    sender: str = "",
    recipients: Sequence[str] = ("joe@whizzer.test",),
    origin: Origin | None = None,
) -> MessageSubject:
    """Make the subject of the message phase; any line ends will do."""
    data = text.encode() if isinstance(text, str) else text
    data = data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    header, body, has_separator = split_message(data)  # as the server does
    message = Message(header, MemoryBody(body), (), has_separator)
    envelope = Envelope(
        sender=Address.from_text(sender) if sender else NULL_SENDER,
        recipients=tuple(Recipient(Address.from_text(one)) for one in recipients),
        origin=origin or make_session().origin,
        arrival_us=NOW.utc_us,
    )
    return MessageSubject(envelope, message, message.size)
