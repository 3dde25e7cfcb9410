r"""Expands an alias into the recipients it stands for, in chunks. Pure.

Aliases are followed depth first, in the order of the file. A name that leads back to
itself means the user of that name, as in ``joe: joe, archive``; if there is no such
user the loop is reported. Recipients that come twice are named once. ``\name`` is the
user, with no further alias. What cannot be delivered to is a ``Problem``, never lost;
what is refused for a while is a recipient without a route, asked for again later.

A list with an ``owner-`` alias has its errors sent there: its members carry that
owner, which is to be the sender of their copies.

A cursor says how many targets were done with, and what they were: if the aliases have
changed in between so that it no longer fits, the expansion starts from the beginning,
since a second copy is better than none.
"""

from typing import Protocol
from zlib import crc32

import msgspec

from postroom.mail.address import Address, AddressError
from postroom.mail.route import LOCAL_HOP, Route
from postroom.route.drive import Asking
from postroom.route.expansion import Child, Expansion, Problem
from postroom.route.questions import (
    ALIASES,
    Failed,
    Found,
    Lookup,
    NotFound,
    ReadInclude,
)
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
from postroom.tables.targets import DEV_NULL, INCLUDE

OWNER = "owner-"
TRACE_TEXT_MAX = 1000
_POSITION_BITS = 32
_CRC_BITS = 30

Taken = RoutingFailed | None
"""What taking one target comes to: done with, or a look-up that failed."""


class Classifier(Protocol):
    """What the walk needs of the router."""

    @property
    def settings(self) -> RouteSettings:
        """The settings in force."""

    @property
    def hostname(self) -> str:
        """Our own name, to which bare targets belong."""

    def classify(self, address: Address) -> Asking[Routing]:
        """Say what a recipient is."""

    def classify_user(self, address: Address) -> Asking[Routing]:
        """Say what a recipient is without regard to aliases."""


class _Frame(msgspec.Struct):
    """One alias or list that is being followed; ``index`` is the next target."""

    name: str
    targets: tuple[str, ...]
    owner: Address | None
    index: int = 0


class _Chunk(msgspec.Struct):
    children: list[Child]
    problems: list[Problem]
    trace: list[str]

    def is_full(self, limit: int) -> bool:
        return len(self.children) + len(self.problems) >= limit


class Walk:
    """The way through one alias and all it leads to; kept between chunks.

    Args:
        router: says what each target is.
        address: the recipient that is an alias.
        cursor: where to go on; 0 begins.
    """

    def __init__(self, router: Classifier, address: Address, cursor: int = 0) -> None:
        self._router = router
        self._address = address
        self._skip = cursor & (1 << _POSITION_BITS) - 1
        self._skip_crc = cursor >> _POSITION_BITS
        self._begin()

    def _begin(self) -> None:
        self._stack: list[_Frame] = []
        self._started = False
        self._owner: Address | None = None
        self._followed: set[str] = set()
        self._named: set[tuple[str, str]] = set()
        self._position = 0
        self._crc = 0

    def chunk(self, limit: int = 1000) -> Asking[Expansion | RoutingFailed]:
        """Find the next recipients, at most ``limit``.

        ``RoutingFailed`` means that a look-up failed: try again later, with this
        walk or a new one at the last cursor.
        """
        chunk = _Chunk([], [], [])
        while not self._started or self._stack:
            if chunk.is_full(limit):
                return self._expansion(chunk, self._cursor())
            failed = yield from self._step(chunk)
            if failed and (chunk.children or chunk.problems):
                return self._expansion(chunk, self._cursor())
            if failed:
                return failed
            if self._skip and self._position == self._skip:
                self._resume(chunk)
        if self._skip:  # the list has become shorter
            self._restart()
            return (yield from self.chunk(limit))
        return self._expansion(chunk, None)

    def _expansion(self, chunk: _Chunk, cursor: int | None) -> Expansion:
        return Expansion(
            tuple(chunk.children),
            self._owner,
            tuple(chunk.problems),
            tuple(chunk.trace),
            cursor,
        )

    def _cursor(self) -> int:
        crc = self._crc & (1 << _CRC_BITS) - 1
        return crc << _POSITION_BITS | self._position

    def _resume(self, chunk: _Chunk) -> None:
        """All that was done before is behind; check that it is what was done."""
        chunk.trace.clear()
        if self._cursor() >> _POSITION_BITS == self._skip_crc:
            self._skip = 0
        else:
            self._restart()

    def _restart(self) -> None:
        self._skip = 0
        self._begin()

    def _step(self, chunk: _Chunk) -> Asking[Taken]:
        """Take one target: follow it, or name it."""
        if not self._started:
            failed = yield from self._take(self._name(), None, chunk)
            self._started = failed is None
            return failed
        frame = self._stack[-1]
        if frame.index >= len(frame.targets):
            self._stack.pop()
            return None
        failed = yield from self._take(frame.targets[frame.index], frame, chunk)
        if failed is None:
            frame.index += 1
        return failed

    def _take(self, target: str, frame: _Frame | None, chunk: _Chunk) -> Asking[Taken]:
        at = _Place(target, frame, chunk)
        if frame is not None and target == DEV_NULL:
            return self._take_end(at, *self._thrown_away(at))
        if frame is not None and target.startswith(("|", "/")):
            what = "programs" if target[0] == "|" else "files"
            return self._problem(at, "5.3.3", f"mail to {what} is not supported")
        if target.startswith(INCLUDE):
            return (yield from self._take_include(at))
        try:
            address = self._read(target.removeprefix("\\"))
        except AddressError as error:
            return self._problem(at, "5.1.3", str(error))
        if target.startswith("\\"):
            routing = yield from self._router.classify_user(address)
        else:
            routing = yield from self._router.classify(address)
        if isinstance(routing, LocalAlias):
            return (yield from self._take_alias(at, address, routing))
        return self._take_end(at, address, routing)

    def _take_alias(
        self, at: "_Place", address: Address, alias: LocalAlias
    ) -> Asking[Taken]:
        if any(frame.name == alias.name for frame in self._stack):
            routing = yield from self._router.classify_user(address)
            if isinstance(routing, LocalUser | RoutingFailed):
                return self._take_end(at, address, routing)
            return self._problem(at, "5.4.6", "aliasing/forwarding loop broken")
        if alias.name in self._followed:
            return self._duplicate(at)
        owner = at.owner
        if not alias.name.startswith(OWNER):
            # a list may be "list+detail", or have the delimiter in its name
            for name in dict.fromkeys((alias.name, self._base(alias.name))):
                answer = yield Lookup(ALIASES, OWNER + name)
                if isinstance(answer, Failed):
                    return RoutingFailed(answer.reason)
                if isinstance(answer, Found):
                    owner = Address(OWNER + name, self._router.hostname)
                    break
        return self._follow(at, _Frame(alias.name, alias.targets, owner))

    def _take_include(self, at: "_Place") -> Asking[Taken]:
        if not self._router.settings.includes:
            return self._problem(
                at, "5.2.4", f"{INCLUDE} is not allowed here (setting includes)"
            )
        if at.target in self._followed:
            return self._duplicate(at)
        answer = yield ReadInclude(at.target.removeprefix(INCLUDE))
        match answer:
            case Failed(reason):
                return RoutingFailed(reason)
            case NotFound(reason):
                return self._problem(at, "5.2.4", f"list cannot be used: {reason}")
            case Found(targets):
                return self._follow(at, _Frame(at.target, targets, at.owner))

    def _follow(self, at: "_Place", frame: _Frame) -> Taken:
        depth_max = self._router.settings.alias_depth_max
        depth = len(self._stack) + 1
        if depth > depth_max:
            text = (
                f"aliasing/forwarding loop broken ({depth} aliases deep; "
                f"{depth_max} max)"
            )
            return self._problem(at, "5.4.6", text)
        if at.frame is None:
            self._owner = frame.owner
        self._followed.add(frame.name)
        self._stack.append(frame)
        at.chunk.trace.append(f"{at.target}... aliased to {_listed(frame.targets)}")
        return None

    def _take_end(self, at: "_Place", address: Address, routing: Routing) -> Taken:
        match routing:
            case RoutingFailed():
                return routing
            case Unroutable() if routing.is_temporary:
                if at.frame is None:
                    return RoutingFailed(routing.reason)
                key = f"{address.local}@", address.domain_key
            case Unknown() | Unroutable():
                at.chunk.trace.append(f"{at.target}... {routing.reason}")
                return self._problem(at, routing.status, routing.reason)
            case LocalUser():
                key = routing.user, routing.detail
            case Relay():
                key = f"{address.local}@", address.domain_key
            case LocalAlias():
                return self._problem(at, "5.4.6", "aliasing/forwarding loop broken")
        if key in self._named:
            return self._duplicate(at)
        self._named.add(key)
        if self._count(at):
            at.chunk.children.append(Child(address, routing, at.owner))
        return None

    def _problem(self, at: "_Place", status: str, text: str) -> Taken:
        if self._count(at):
            problem = Problem(at.target, at.alias, status, text, at.owner)
            at.chunk.problems.append(problem)
        return None

    def _duplicate(self, at: "_Place") -> Taken:
        self._count(at)
        at.chunk.trace.append(f"{at.target}... duplicate suppressed")
        return None

    def _count(self, at: "_Place") -> bool:
        """Count a target as done with; False if it was already, before the cursor."""
        self._position += 1
        self._crc = crc32(at.target.encode("utf-8", "replace"), self._crc)
        return not self._skip

    def _thrown_away(self, at: "_Place") -> tuple[Address, Routing]:
        """Return the recipient that ``/dev/null`` is."""
        route = Route("discard", LOCAL_HOP, f"alias {at.alias}")
        return Address(DEV_NULL, self._router.hostname), Relay(route, ours=True)

    def _read(self, text: str) -> Address:
        address = Address.from_text(text)
        if address.domain:
            return address
        return Address(address.local, self._router.hostname)

    def _name(self) -> str:
        """The alias as its owner would write it: without our own domain."""
        if self._address.domain_key in ("", self._router.hostname):
            return Address(self._address.local, "").to_text()
        return self._address.to_text()

    def _base(self, name: str) -> str:
        delimiter = self._router.settings.recipient_delimiter
        return name.partition(delimiter)[0] if delimiter else name


class _Place(msgspec.Struct, frozen=True):
    """A target and where it stands."""

    target: str
    frame: _Frame | None
    chunk: _Chunk

    @property
    def owner(self) -> Address | None:
        return self.frame.owner if self.frame else None

    @property
    def alias(self) -> str:
        return self.frame.name if self.frame else ""


def _listed(targets: tuple[str, ...]) -> str:
    shown = ", ".join(f'"{t}"' if t[0] == "|" else t for t in targets[:100])
    if len(shown) > TRACE_TEXT_MAX or len(targets) > 100:
        return f"{shown[:TRACE_TEXT_MAX]}... ({len(targets)} in all)"
    return shown
