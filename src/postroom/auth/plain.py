"""PLAIN (RFC 4616) and LOGIN: mechanisms that send the password itself. Pure.

Both are offered only where TLS hides what is sent, unless the site says otherwise.
LOGIN has no RFC (draft-murchison-sasl-login); old clients know nothing else.
"""

from postroom.auth.sasl import (
    CheckPassword,
    Exchange,
    Failed,
    Known,
    ask,
    authorized,
    failed,
    first_of,
    say,
    to_name,
)
from postroom.auth.settings import PASSWORD_OCTETS_MAX

# Some clients look at the octets of the prompts.
_USERNAME, _PASSWORD = b"Username:", b"Password:"


def plain(initial: bytes | None) -> Exchange:
    """PLAIN: message = [authzid] NUL authcid NUL passwd (RFC 4616 §2)."""
    message = yield from first_of(initial)
    parts = message.split(b"\0")
    if len(parts) != 3:
        return Failed("not three parts", "malformed")
    acts_as = to_name(parts[0]) if parts[0] else ""
    login = to_name(parts[1])
    if acts_as is None or login is None:
        return Failed("a name that is none", "malformed")
    return (yield from _check(login, parts[2], acts_as))


def login(initial: bytes | None) -> Exchange:
    """LOGIN: a name, then a password; the name may be an initial response."""
    given = initial if initial is not None else (yield from say(_USERNAME))
    password = yield from say(_PASSWORD)
    name = to_name(given)
    if name is None:
        return Failed("a name that is none", "malformed")
    return (yield from _check(name, password, ""))


def _check(name: str, password: bytes, acts_as: str) -> Exchange:
    # RFC 4616 §2: a password has one octet at least, and no NUL.
    if not 0 < len(password) <= PASSWORD_OCTETS_MAX or b"\0" in password:
        return Failed("a password that is none", "malformed", name)
    verdict = yield from ask(CheckPassword(name, password))
    if not isinstance(verdict, Known):
        return failed(verdict, name)
    return (yield from authorized(verdict.user, acts_as))
