"""What one message demands of its connections: REQUIRETLS, or that TLS may fail.

RFC 8689. The header is looked at only where it can change anything: where mail would
otherwise wait for TLS.
"""

from collections.abc import Sequence
from enum import Enum

import msgspec

from postroom.agents.smtp_words import Peer
from postroom.agents.terms import Terms
from postroom.agents.way import Place
from postroom.mail.headers import edited_header, find_all
from postroom.mail.outcome import Attempt, Failed, Outcome
from postroom.net.clock import read_mono_us

TROUBLED_MAX = 10_000
"""Addresses that are remembered for their broken TLS."""
_UNMET = frozenset({"5.7.10", "5.7.30"})


class Protection(Enum):
    """Which terms a message goes on; the values part the names of connections."""

    USUAL = ""
    DEMANDED = ";requiretls"
    OPTIONAL = ";tls-optional"

    def applied(self, terms: Terms) -> Terms:
        """Return the terms as this message needs them."""
        match self:
            case Protection.DEMANDED:  # RFC 8689 §4.2.1
                return msgspec.structs.replace(terms, tls="verified", requiretls=True)
            case Protection.OPTIONAL if (
                terms.is_strict
                and terms.heed_tls_required
                and not terms.login  # a message must not give our password away
            ):
                return msgspec.structs.replace(terms, tls="opportunistic")
            case _:
                return terms


def protection_of(attempt: Attempt, place: Place) -> Protection:
    """Say what a message demands at a place (RFC 8689 §4.1: the parameter wins)."""
    if attempt.envelope.requiretls:
        return Protection.USUAL if place.is_here else Protection.DEMANDED
    if place.is_strict and _says_no(attempt):
        return Protection.OPTIONAL
    return Protection.USUAL


def _says_no(attempt: Attempt) -> bool:
    # RFC 8689 §3: more than one such field is a mistake, and then none counts
    found = find_all(edited_header(attempt.message), "TLS-Required")
    return len(found) == 1 and found[0].lower() == b"no"


def may_go_without(attempt: Attempt, outcomes: Sequence[Outcome]) -> bool:
    """Whether a bounce failed only for want of REQUIRETLS (RFC 8689 §5)."""
    return attempt.envelope.sender.is_null and all(
        isinstance(one, Failed) and not one.code and one.status in _UNMET
        for one in outcomes
    )


class Troubled:
    """The addresses whose TLS has failed a moment ago.

    Args:
        kept_us: how long they are remembered.
    """

    def __init__(self, kept_us: int) -> None:
        self._kept_us = kept_us
        self._until_us: dict[tuple[str, int], int] = {}

    def note(self, peer: Peer) -> None:
        """Remember one."""
        if len(self._until_us) >= TROUBLED_MAX:
            del self._until_us[next(iter(self._until_us))]
        self._until_us[peer.ip, peer.port] = read_mono_us() + self._kept_us

    def is_known(self, peer: Peer) -> bool:
        """Whether one is remembered."""
        return self._until_us.get((peer.ip, peer.port), 0) > read_mono_us()
