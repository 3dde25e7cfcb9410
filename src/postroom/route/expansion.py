"""What came of expanding an alias: recipients, problems, and lines for people. Pure."""

import msgspec

from postroom.mail.address import Address
from postroom.mail.route import Route
from postroom.route.routing import LocalUser, Relay


class Child(msgspec.Struct, frozen=True):
    """A recipient that the alias stands for.

    ``owner`` is the sender its copy is to have; None: the sender stays.
    """

    address: Address
    routing: LocalUser | Relay
    owner: Address | None = None

    @property
    def route(self) -> Route:
        """Where its mail goes."""
        return self.routing.route


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
    the owner of the alias itself, if it has one. ``trace`` are the lines that
    ``sendmail -v`` prints.
    """

    children: tuple[Child, ...]
    owner: Address | None
    problems: tuple[Problem, ...]
    trace: tuple[str, ...]
    cursor: int | None

    def by_owner(self) -> dict[Address | None, tuple[Child, ...]]:
        """Return the children by the sender their copies are to have."""
        parted: dict[Address | None, list[Child]] = {}
        for child in self.children:
            parted.setdefault(child.owner, []).append(child)
        return {owner: tuple(children) for owner, children in parted.items()}
