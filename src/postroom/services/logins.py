"""What SMTP sessions log in with: accounts, settings, and what failures cost."""

import os
import secrets
from ipaddress import ip_address
from typing import NamedTuple

from postroom.auth.backend import Accounts
from postroom.auth.external import Certificate, names_in
from postroom.auth.mechanisms import Circumstances, Mechanism, offered
from postroom.auth.oauth import Hints
from postroom.auth.penalties import Penalties
from postroom.auth.settings import AuthSettings

_NONCE_OCTETS = 18


class Channel(NamedTuple):
    """What of a connection matters to a login.

    Attributes:
        is_tls: whether it is encrypted.
        client_ip: the client's address.
        bindings: its channel bindings by type (RFC 5929, RFC 9266).
        certificate: the client's, verified.
    """

    is_tls: bool
    client_ip: str
    bindings: dict[str, bytes]
    certificate: Certificate | None = None


class Logins(NamedTuple):
    """One worker's."""

    accounts: Accounts
    settings: AuthSettings
    penalties: Penalties
    hostname: str

    def offered(
        self, wanted: tuple[str, ...], channel: Channel
    ) -> tuple[Mechanism, ...]:
        """Return which of the wanted mechanisms work on a connection just now."""
        return offered(
            wanted,
            self.accounts.abilities,
            secrecy=self.keeps_secrets(channel),
            binds=bool(channel.bindings),
            named=bool(self._names(channel)),
        )

    def keeps_secrets(self, channel: Channel) -> bool:
        """Whether passwords may be sent on a connection."""
        if channel.is_tls or self.settings.plaintext == "always":
            return True
        return self.settings.plaintext == "loopback" and _is_here(channel.client_ip)

    def circumstances(self, channel: Channel) -> Circumstances:
        """Make what a new exchange begins with; nonce and challenge are new."""
        tokens = self.settings.tokens
        nonce = secrets.token_urlsafe(_NONCE_OCTETS)
        # RFC 2195 §2: the form of a Message-Id
        challenge = f"<{secrets.randbits(64)}.{os.getpid()}@{self.hostname}>"
        return Circumstances(
            nonce=nonce,
            challenge=challenge.encode("ascii", "replace"),
            bindings=channel.bindings,
            names=self._names(channel),
            hints=Hints(tokens.scope, tokens.openid_configuration),
        )

    def _names(self, channel: Channel) -> tuple[str, ...]:
        settings = self.settings
        return names_in(
            channel.certificate, settings.certificate_user, settings.certificate_table
        )


def _is_here(client_ip: str) -> bool:
    return not client_ip or ip_address(client_ip).is_loopback
