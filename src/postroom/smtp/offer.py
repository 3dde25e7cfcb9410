"""What a server's hello offers: by its settings, and by how far the session is.

Keywords keep their order, whatever is on or off.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache

import msgspec

from postroom.mail.now import SECOND_US
from postroom.mail.reply import Reply
from postroom.smtp.dialogue import Verb
from postroom.smtp.settings import ServerSettings
from postroom.smtp.xclient import ATTRIBUTES


class Standing(msgspec.Struct, frozen=True):
    """How far a session is, and what its client may do.

    ``tls`` and ``authenticated`` are not offered again (RFC 3207 §4.2, RFC 4954 §4).
    ``mechanisms`` are those that work just now; None: all of the settings.
    ``release_until_us`` is until when a message may be held (RFC 4865), 0 where that
    is not offered; ``is_proxy`` lets the client use XCLIENT.
    """

    lmtp: bool = False
    tls: bool = False
    authenticated: bool = False
    mechanisms: tuple[str, ...] | None = None
    release_until_us: int = 0
    is_proxy: bool = False


@lru_cache(maxsize=64)
def hello_reply(
    settings: ServerSettings,
    hostname: str,
    verb: Verb = Verb.EHLO,
    standing: Standing = Standing(),  # noqa: B008 - frozen
) -> Reply:
    """Return the answer to HELO, EHLO or LHLO (RFC 5321 §4.1.1.1)."""
    if verb is Verb.HELO:
        return Reply(250, "", (hostname,))
    hidden = frozenset(settings.hidden_keywords)
    offered = _offered(settings, standing)
    lines = (line for line in offered if line.partition(" ")[0] not in hidden)
    return Reply(250, "", (hostname, *lines))


def _offered(settings: ServerSettings, standing: Standing) -> Iterator[str]:
    yield "PIPELINING"
    yield "8BITMIME"
    size = int(settings.message_octets_max)
    yield f"SIZE {size}" if size else "SIZE"  # RFC 1870 §4
    yield "ENHANCEDSTATUSCODES"
    if settings.dsn:
        yield "DSN"  # RFC 3461 §2: no parameters
    if settings.smtputf8:
        yield "SMTPUTF8"
    if settings.chunking:
        yield "CHUNKING"
        if settings.binarymime:  # RFC 3030 §3: only beside CHUNKING
            yield "BINARYMIME"
    if settings.deliverby:
        least_s = -(-int(settings.deliverby_min) // SECOND_US)
        yield f"DELIVERBY {least_s}" if least_s else "DELIVERBY"
    if standing.release_until_us:
        interval_s = int(settings.future_release_max) // SECOND_US
        until = moment_text(standing.release_until_us)
        yield f"FUTURERELEASE {interval_s} {until}"  # RFC 4865 §3
    if settings.mt_priority:
        yield f"MT-PRIORITY {settings.mt_priority_policy}".rstrip()
    if settings.requiretls and standing.tls:  # RFC 8689 §2
        yield "REQUIRETLS"
    if settings.limits:
        yield f"LIMITS {_limits(settings)}"
    if settings.prdr and not standing.lmtp:  # LMTP answers for each in any case
        yield "PRDR"
    yield from _commands(settings, standing)


def _commands(settings: ServerSettings, standing: Standing) -> Iterator[str]:
    if settings.etrn:
        yield "ETRN"
    if settings.vrfy:
        yield "VRFY"
    if settings.expn:
        yield "EXPN"
    if settings.verb:
        yield "VERB"
    if settings.starttls and not standing.tls:
        yield "STARTTLS"
    mechanisms = standing.mechanisms
    if mechanisms is None:
        mechanisms = settings.auth_mechanisms
    if mechanisms and not standing.authenticated:
        yield f"AUTH {' '.join(mechanisms)}"
    if standing.is_proxy:
        yield f"XCLIENT {ATTRIBUTES}"
    yield "HELP"


def _limits(settings: ServerSettings) -> str:
    # RFC 9422 §4: what one transaction, and one session, may hold
    limits = f"RCPTMAX={settings.recipients_max}"
    return (
        f"MAILMAX={settings.messages_max} {limits}" if settings.messages_max else limits
    )


def moment_text(utc_us: int) -> str:
    """Write a moment as RFC 4865 §3 does: ``2026-11-22T22:30:00Z``."""
    at = datetime.fromtimestamp(utc_us // SECOND_US, UTC)
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
