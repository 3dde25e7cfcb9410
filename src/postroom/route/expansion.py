"""What came of expanding an alias: recipients, problems, and lines for people. Pure."""

import msgspec

from postroom.mail.address import Address
from postroom.mail.redirection import Redirection, report_on
from postroom.mail.reported import ReportKind
from postroom.mail.route import Route
from postroom.route.routing import LocalUser, Relay, Unroutable


class Child(msgspec.Struct, frozen=True):
    """A recipient that the alias stands for.

    ``owner`` is the sender its copy is to have; None: the sender stays.
    """

    address: Address
    routing: LocalUser | Relay | Unroutable
    owner: Address | None = None

    @property
    def route(self) -> Route | None:
        """Where its mail goes; None: refused for a while, to be routed again."""
        return self.routing.to_route()


class Problem(msgspec.Struct, frozen=True):
    """A target that gets nothing; ``text`` and ``status`` are for the report.

    ``target`` is as it stands in the alias, ``alias`` the name it stands under.
    """

    target: str
    alias: str
    status: str
    text: str
    owner: Address | None = None


class Expansion(msgspec.Struct, frozen=True):
    """One chunk of what an alias stands for.

    ``cursor`` is where the next chunk begins; None: this was the last. ``owner`` is
    the owner of the alias itself, if it has one. ``trace`` are lines for
    people, on the way.
    """

    children: tuple[Child, ...]
    owner: Address | None
    problems: tuple[Problem, ...]
    trace: tuple[str, ...]
    cursor: int | None

    @property
    def told(self) -> tuple[str, ...]:
        """What ``sendmail -v`` prints: the trace, then the problems it leaves out."""
        traced = set(self.trace)
        problems = (f"{one.target}... {one.text}" for one in self.problems)
        return (*self.trace, *(line for line in problems if line not in traced))

    def by_owner(self) -> dict[Address | None, tuple[Child, ...]]:
        """Return the children by the sender their copies are to have."""
        parted: dict[Address | None, list[Child]] = {}
        for child in self.children:
            parted.setdefault(child.owner, []).append(child)
        return {owner: tuple(children) for owner, children in parted.items()}


class Course:
    """What an alias turns out to be as its chunks come (RFC 3461 §5.2.7).

    Args:
        cursor: where the expansion begins; over 0 it goes on after a crash, and what
            came before is not known: then it is taken for an alias of several.

    Attributes:
        of_members: what it is for the members whose copies keep their sender.
    """

    def __init__(self, cursor: int) -> None:
        self.of_members = Redirection.ALIASES
        self._is_first = not cursor
        self._has_own = bool(cursor)
        self._has_owned = False
        self._owner: Address | None = None

    def take(self, found: Expansion) -> None:
        """Take the next chunk."""
        own = sum(child.owner is None for child in found.children)
        targets = len(found.children) + len(found.problems)
        is_all = self._is_first and found.cursor is None
        alone = is_all and own == targets == 1
        self.of_members = Redirection.ALIAS if alone else Redirection.ALIASES
        self._is_first = False
        self._has_own |= own > 0
        self._has_owned |= own < len(found.children)
        self._owner = found.owner

    @property
    def to_report(self) -> ReportKind | None:
        """How to report success after the last chunk; None: not here."""
        if not (self._has_own or self._has_owned):
            return None  # it led to nobody
        if self._owner is not None or not self._has_own:
            return report_on(Redirection.LIST)
        return report_on(self.of_members)
