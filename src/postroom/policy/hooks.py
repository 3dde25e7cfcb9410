"""How a policy module declares hooks, and the words in which they answer.

::

    from postroom import hook, reject

    @hook.rcpt
    def no_spam_traps(session, rcpt):
        if rcpt.address in TRAPS:
            return reject("5.7.1", "no thanks")

A decorator marks the function and hands it back unchanged, so that it can be called in
a test. What cannot work (three parameters, a time-out on a plain function) raises
``HookError`` while the module is loaded.
"""

import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from enum import Enum
from typing import Any, Literal, NoReturn, TypeVar, overload
from unicodedata import combining, normalize

import msgspec

from postroom.mail.reply import Reply
from postroom.mail.units import Duration
from postroom.mail.verdict import Accept, Change, Defer, Discard, Reject

Phase = Literal[
    "connect", "hello", "auth", "mail", "rcpt", "message", "route", "outcome"
]
"""The moments at which policy is asked. ``route`` chooses, ``outcome`` observes."""

PHASES: tuple[Phase, ...] = (
    "connect",
    "hello",
    "auth",
    "mail",
    "rcpt",
    "message",
    "route",
    "outcome",
)

_ALL_PHASES = ", ".join(PHASES)

MARK = "__postroom_hooks__"
"""The attribute that a decorated function carries: a tuple of hooks."""

REPLY_LINE_OCTETS_MAX = 480
"""RFC 5321 §4.5.3.1.5 allows 512 with code, status and CRLF."""

_STATUS = re.compile(r"[45]\.\d{1,3}\.\d{1,3}")  # RFC 3463 §2

# RFC 5321 §4.2.2, §4.2.3: the reply code that usually goes with a status.
_CODE_OF_STATUS = {
    "5.1.7": 553,
    "5.1.8": 553,
    "5.2.2": 552,
    "5.3.4": 552,
    "5.4.6": 554,
    "5.5.0": 554,
    "5.6.0": 554,
    "4.2.2": 452,
    "4.3.1": 452,
    "4.5.3": 452,
    "4.7.1": 450,
    "4.2.1": 450,
}

Function = Callable[..., Any]
"""``(session, subject) -> Verdict | None``, or the same as ``async def``."""

F = TypeVar("F", bound=Function)


class HookError(ValueError):
    """A function cannot be a hook as declared; the message says why."""


class Kind(Enum):
    """How a hook is run."""

    PLAIN = "plain"
    """On the loop; must not wait; its time is measured."""
    ASYNC = "async"
    """As a coroutine with a time-out."""
    BLOCKING = "blocking"
    """In a thread of a bounded pool, with a time-out."""


class Hook(msgspec.Struct, frozen=True):
    """One declared hook. ``timeout`` is ``None`` where the setting decides.

    ``name`` is what logs call it; ``guard`` marks the built-in ones.
    """

    phase: Phase
    name: str
    function: Function
    kind: Kind = Kind.PLAIN
    timeout: Duration | None = None
    guard: bool = False


_declared: ContextVar[list[Hook] | None] = ContextVar("declared", default=None)


@contextmanager
def declarations() -> Iterator[list[Hook]]:
    """Gather every hook that is declared while the context lasts."""
    token = _declared.set([])
    try:
        found = _declared.get()
        assert found is not None
        yield found
    finally:
        _declared.reset(token)


class PhaseDecorator:
    """``@hook.rcpt`` or ``@hook.rcpt(blocking=True, timeout="5s")``."""

    def __init__(self, phase: Phase) -> None:
        self._phase = phase

    @overload
    def __call__(self, function: F) -> F: ...

    @overload
    def __call__(
        self, *, blocking: bool = False, timeout: str | Duration | None = None
    ) -> Callable[[F], F]: ...

    def __call__(
        self,
        function: F | None = None,
        *,
        blocking: bool = False,
        timeout: str | Duration | None = None,
    ) -> F | Callable[[F], F]:
        """Mark a function as a hook of this phase.

        Args:
            function: ``(session, subject) -> verdict or None``.
            blocking: run it in a thread, because it waits (files, databases).
            timeout: longest run of an ``async def`` or blocking hook, as ``"5s"``.

        Raises:
            HookError: the function cannot be a hook.
        """

        def mark(function: F) -> F:
            found = _declare(self._phase, function, blocking, timeout)
            already = getattr(function, MARK, ())
            try:
                setattr(function, MARK, (*already, found))
            except AttributeError:
                raise HookError(
                    f"{found.name}: a method cannot be marked; mark a function that "
                    "calls it"
                ) from None
            if (declared := _declared.get()) is not None:
                declared.append(found)
            return function

        return mark if function is None else mark(function)


class _Hooks:
    """The decorators, one per phase."""

    connect = PhaseDecorator("connect")
    hello = PhaseDecorator("hello")
    auth = PhaseDecorator("auth")
    mail = PhaseDecorator("mail")
    rcpt = PhaseDecorator("rcpt")
    message = PhaseDecorator("message")
    route = PhaseDecorator("route")
    outcome = PhaseDecorator("outcome")

    def __call__(self, *given: object, **named: object) -> NoReturn:
        """Refuse ``@hook`` without a phase.

        Raises:
            HookError: always.
        """
        raise HookError(f"name the phase: @hook.rcpt, or another of {_ALL_PHASES}")

    def __getattr__(self, name: str) -> PhaseDecorator:
        if name.startswith("__"):
            raise AttributeError(name)
        raise HookError(f'there is no phase "{name}": use one of {_ALL_PHASES}')


hook = _Hooks()
"""``@hook.connect``, ``.hello``, ``.auth``, ``.mail``, ``.rcpt``, ``.message``,
``.route``, ``.outcome``."""


def accept(*changes: Change) -> Accept:
    """No objection, and the site's later hooks of this phase are not asked.

    With changes (``message`` phase only) the later hooks are asked too, and the
    changes of all are gathered.
    """
    return Accept(changes)


def reject(status: str, text: str, code: int | None = None) -> Reject:
    """Refuse for good.

    Args:
        status: enhanced code of class 5, such as ``"5.7.1"`` (RFC 3463).
        text: what the client is told; several lines are allowed. Letters beyond
            ASCII lose their accents or become ``?``: few clients may be told them.
        code: the three digits, if not those that usually go with the status.

    Raises:
        ValueError: status or code is not of class 5, or the text is empty.
    """
    return Reject(_reply("5", status, text, code, 550))


def defer(status: str, text: str, code: int | None = None) -> Defer:
    """Refuse for now; the client tries again later. As ``reject``, but class 4.

    Raises:
        ValueError: status or code is not of class 4, or the text is empty.
    """
    return Defer(_reply("4", status, text, code, 451))


def discard(reason: str) -> Discard:
    """Say yes and throw away; the reason is logged. For ``mail``, ``rcpt``,
    ``message`` and ``route``.
    """  # noqa: D205
    return Discard(reason)


def _reply(digit: str, status: str, text: str, code: int | None, usual: int) -> Reply:
    if not _STATUS.fullmatch(status) or status[0] != digit:
        raise ValueError(
            f'"{status}" is no enhanced code of class {digit}: write "{digit}.7.1"'
        )
    if code is None:
        code = _CODE_OF_STATUS.get(status, usual)
    if not (isinstance(code, int) and int(digit) * 100 <= code < int(digit) * 100 + 60):
        raise ValueError(f"{code!r} is no reply code of class {digit}")
    lines: list[str] = []
    for line in _in_ascii(text).splitlines():
        lines += textwrap.wrap(line, REPLY_LINE_OCTETS_MAX // 4) or [""]
    if not any(lines):
        raise ValueError("the text for the client is empty")
    return Reply.of(code, status, *lines)


def _in_ascii(text: str) -> str:
    """Return a text as any client may be told it (RFC 5321 §4.2, RFC 6531 §3.7.4.1)."""
    if text.isascii():
        return text
    # Line ends of Unicode part lines as the others do.
    plain = normalize("NFKD", "\n".join(text.splitlines()))
    bare = "".join(char for char in plain if not combining(char))
    return bare.encode("ascii", "replace").decode()


def _declare(
    phase: Phase, function: Function, blocking: bool, timeout: str | Duration | None
) -> Hook:
    name = _name_of(function)
    _check_parameters(name, function)
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise HookError(f"{name}: a hook returns its verdict, it does not yield")
    is_async = inspect.iscoroutinefunction(function)
    if is_async and blocking:
        raise HookError(f"{name}: an async hook cannot be blocking=True")
    kind = Kind.ASYNC if is_async else Kind.BLOCKING if blocking else Kind.PLAIN
    if timeout is not None and kind is Kind.PLAIN:
        raise HookError(
            f"{name}: a plain hook cannot be stopped, so it has no timeout; "
            "make it async def or blocking=True"
        )
    return Hook(phase, name, function, kind, _limit(name, timeout))


def _name_of(function: Function) -> str:
    """Return what logs call a function, a ``partial`` of one, or an object."""
    inner = getattr(function, "func", function)
    name: str = getattr(inner, "__name__", type(inner).__name__)
    return name


def _limit(name: str, timeout: object) -> Duration | None:
    try:
        limit = Duration.from_text(timeout) if isinstance(timeout, str) else timeout
    except ValueError as error:
        raise HookError(f"{name}: {error}") from None
    if limit is None:
        return None
    if not isinstance(limit, Duration) or limit < 1:
        raise HookError(f'{name}: write the timeout as "5s" or "500ms"')
    return limit


def _check_parameters(name: str, function: Function) -> None:
    try:
        inspect.signature(function).bind(object(), object())
    except TypeError:
        raise HookError(
            f"{name}: a hook takes two parameters, (session, subject)"
        ) from None
