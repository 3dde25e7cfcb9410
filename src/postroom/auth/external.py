"""EXTERNAL (RFC 4422 appendix A): who the client's certificate says it is. Pure.

The certificate has been verified by TLS before. Which of its names counts is the
site's choice; a name only counts if it means one of our users.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, assert_never

import msgspec

from postroom.auth.sasl import (
    Exchange,
    Failed,
    FindUser,
    Known,
    ask,
    authorized,
    failed,
    first_of,
    to_name,
)

Mapped = Literal["email", "cn", "table"]
"""What of a certificate names the user."""
_NAMES_MAX = 20


class Certificate(msgspec.Struct, frozen=True):
    """What of a client's certificate can name a user.

    ``emails`` are its rfc822Name subject alternative names (RFC 5280 §4.2.1.6),
    ``common_names`` the CN of its subject, ``fingerprint`` its SHA-256 in small
    hexadecimal digits.
    """

    emails: tuple[str, ...] = ()
    common_names: tuple[str, ...] = ()
    fingerprint: str = ""


def external(initial: bytes | None, names: Sequence[str]) -> Exchange:
    """EXTERNAL: the client says whom it acts as, or nothing."""
    message = yield from first_of(initial)
    acts_as = to_name(message) if message else ""
    if acts_as is None:
        return Failed("a name that is none", "malformed")
    if not names:
        return Failed("the certificate names nobody")
    verdict = yield from ask(FindUser(tuple(names)))
    if not isinstance(verdict, Known):
        return failed(verdict, names[0])
    return (yield from authorized(verdict.user, acts_as))


def names_in(
    certificate: Certificate | None, mapped: Mapped, table: Mapping[str, str]
) -> tuple[str, ...]:
    """Return the names of users in a verified certificate, the likeliest first.

    Args:
        certificate: the client's, None if it has shown none that is good.
        mapped: what of it counts.
        table: users by fingerprint, for ``table``.
    """
    if certificate is None:
        return ()
    match mapped:
        case "email":
            found = certificate.emails
        case "cn":
            found = certificate.common_names
        case "table":
            user = table.get(certificate.fingerprint, "")
            found = (user,) if user else ()
        case _:
            assert_never(mapped)
    names = (to_name(name.encode("utf-8", "replace")) for name in found[:_NAMES_MAX])
    return tuple(name for name in names if name)


def read_certificate(peer: Mapping[str, object], fingerprint: str) -> Certificate:
    """Read what ``SSLObject.getpeercert`` gives of a verified certificate."""
    emails = tuple(
        value for kind, value in _pairs(peer.get("subjectAltName")) if kind == "email"
    )
    subject = peer.get("subject")
    parts = subject if isinstance(subject, tuple) else ()
    common = tuple(
        value for part in parts for kind, value in _pairs(part) if kind == "commonName"
    )
    return Certificate(emails, common, fingerprint)


def _pairs(found: object) -> list[tuple[str, str]]:
    if not isinstance(found, tuple):
        return []
    return [(str(one[0]), str(one[1])) for one in found if len(one) == 2]
