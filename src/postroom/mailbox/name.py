"""Which mailbox is meant, and where it lies. A name is checked before it is a path.

A user's name comes from a stranger's RCPT or login, so it may hold anything; what
could leave the mail directory or confuse a person never becomes part of a path.
"""

import re

import msgspec

NAME_OCTETS_MAX = 200
# A component is neither hidden nor "." or "..", and has no control characters.
_COMPONENT = re.compile(r"[^./\x00-\x1f\x7f-\x9f][^/\x00-\x1f\x7f-\x9f]*")
_FIELD = re.compile(r"\{(user|domain)\}")


class MailboxNameError(ValueError):
    """The name cannot be a mailbox; the text says why."""


class MailboxName(msgspec.Struct, frozen=True, gc=False):
    """A user, and a domain where the path template asks for one."""

    user: str
    domain: str = ""

    @classmethod
    def of_login(cls, login: str, default_domain: str = "") -> "MailboxName":
        """Return the mailbox of who logged in as ``joe`` or ``joe@whizzer.test``."""
        user, at, domain = login.rpartition("@")
        if not at:
            return cls(login, default_domain)
        return cls(user, domain.lower().rstrip("."))

    def __str__(self) -> str:
        return f"{self.user}@{self.domain}" if self.domain else self.user


class Place(msgspec.Struct, frozen=True, gc=False):
    """A path in two parts: what the operator vouches for, and what names made."""

    root: str
    parts: tuple[str, ...]

    @property
    def path(self) -> str:
        """The whole path."""
        return "/".join((self.root.rstrip("/"), *self.parts))


def place_of(template: str, name: MailboxName) -> Place:
    """Find where a mailbox lies.

    Raises:
        MailboxNameError: the name is no safe path component.
    """
    values = {"user": name.user, "domain": name.domain}
    cut = template.rfind("/", 0, template.index("{"))
    root = template[: max(cut, 1)] if cut >= 0 else "."
    below = template[cut + 1 :]
    parts = tuple(
        _checked(_FIELD.sub(lambda field: values[field[1]], part))
        for part in below.split("/")
    )
    return Place(root, parts)


def _checked(part: str) -> str:
    if not _COMPONENT.fullmatch(part):
        raise MailboxNameError(f"no mailbox can be called {part!r}")
    try:
        octets = len(part.encode())
    except UnicodeEncodeError:
        raise MailboxNameError(f"no mailbox can be called {part!r}") from None
    if octets > NAME_OCTETS_MAX:
        raise MailboxNameError(f"mailbox name is over {NAME_OCTETS_MAX} octets")
    return part
