"""What can be said of a recipient when it is named: the answers of the router. Pure.

Each has a ``kind`` (``local``, ``relay``, ``unknown``, ``failed``: what policy is
told), a ``reason`` or rule for people, and ``to_route``.
"""

from typing import ClassVar, Literal

import msgspec

from postroom.mail.reply import Reply
from postroom.mail.route import Route

Kind = Literal["local", "relay", "unknown", "failed"]


class LocalUser(msgspec.Struct, frozen=True, gc=False):
    """A user of this system; ``detail`` is what stood after the delimiter."""

    user: str
    detail: str
    route: Route

    kind: ClassVar[Kind] = "local"
    reason: ClassVar[str] = ""

    @property
    def rule(self) -> str:
        """What decided."""
        return self.route.rule

    def to_route(self) -> Route | None:
        """Return where the mail goes."""
        return self.route

    def to_reply(self) -> Reply | None:
        """Return the refusal that is due: none."""
        return None


class LocalAlias(msgspec.Struct, frozen=True):
    """A name that stands for others; ``name`` is the key that matched."""

    name: str
    targets: tuple[str, ...]
    rule: str

    kind: ClassVar[Kind] = "local"
    reason: ClassVar[str] = ""

    def to_route(self) -> Route | None:
        """Return None: it is to be expanded after acceptance."""
        return None

    def to_reply(self) -> Reply | None:
        """Return the refusal that is due: none."""
        return None


class Relay(msgspec.Struct, frozen=True, gc=False):
    """Mail that another host or agent takes over.

    ``ours``: the site's routes hand this domain to an agent here (``lmtp:``,
    ``discard:``), so that no leave to relay is needed.
    """

    route: Route
    ours: bool = False

    reason: ClassVar[str] = ""

    @property
    def kind(self) -> Kind:
        """``relay``, or ``local`` for a domain that is ours."""
        return "local" if self.ours else "relay"

    @property
    def rule(self) -> str:
        """What decided."""
        return self.route.rule

    def to_route(self) -> Route | None:
        """Return where the mail goes."""
        return self.route

    def to_reply(self) -> Reply | None:
        """Return the refusal that is due: none."""
        return None


class Unknown(msgspec.Struct, frozen=True, gc=False):
    """There is no such local recipient."""

    reason: str = "User unknown"
    rule: str = "no alias and no user of that name"

    kind: ClassVar[Kind] = "unknown"
    status: ClassVar[str] = "5.1.1"

    def to_route(self) -> Route | None:
        """Return None."""
        return None

    def to_reply(self) -> Reply | None:
        """Return the refusal that is due."""
        return Reply(550, self.status, (self.reason,))


class Unroutable(msgspec.Struct, frozen=True, gc=False):
    """The routes refuse it, or its domain cannot exist."""

    reason: str
    rule: str
    status: str = "5.1.2"
    code: int = 550

    kind: ClassVar[Kind] = "unknown"

    @property
    def is_temporary(self) -> bool:
        """Whether it may be otherwise later."""
        return self.status.startswith("4")

    def to_route(self) -> Route | None:
        """Return None."""
        return None

    def to_reply(self) -> Reply | None:
        """Return the refusal that is due."""
        return Reply(self.code, self.status, (self.reason,))


class RoutingFailed(msgspec.Struct, frozen=True, gc=False):
    """Nobody can say now where it goes; the detail is for the log, not the client."""

    reason: str

    rule: ClassVar[str] = "a look-up failed"
    kind: ClassVar[Kind] = "failed"

    def to_route(self) -> Route | None:
        """Return None."""
        return None

    def to_reply(self) -> Reply | None:
        """Return the deferral that is due."""
        return Reply(451, "4.3.0", ("Recipient cannot be looked up now; try later",))


Routing = LocalUser | LocalAlias | Relay | Unknown | Unroutable | RoutingFailed
