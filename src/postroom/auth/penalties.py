"""What failed logins cost: counted over all workers, by address and by user.

An address (for IPv6 its /64, which one customer has) that fails too often is not
served any more for a while: guesses are not even checked. A user in whose name too
many fail is slow for everybody, and locked out for nobody: who only wants to keep
somebody out could fail on purpose.
"""

from collections.abc import Callable, Collection
from typing import Protocol

from postroom.auth.settings import AuthSettings
from postroom.limits.clients import client_of
from postroom.limits.gcra import Rate
from postroom.mail.units import Duration


class Rates(Protocol):
    """Rates that all workers share (``limits.shared``)."""

    def hit(self, key: str, rate: Rate, mono_us: int, events: int = 1) -> int:
        """Count events against a rate: 0 if allowed, else microseconds to wait."""


class Penalties:
    """Counts failures and says what they cost.

    Args:
        settings: how many are too many, and for how long.
        rates: those of all workers.
        domains: gives our own domains, in lower case: a user is the same in all.
    """

    def __init__(
        self,
        settings: AuthSettings,
        rates: Rates,
        domains: Callable[[], Collection[str]] = tuple,
    ) -> None:
        self._settings = settings
        self._rates = rates
        self._domains = domains

    def is_barred(self, client_ip: str, mono_us: int) -> bool:
        """Whether an address has failed so often that it is not heard now."""
        count = self._settings.failures_per_client
        return self._is_spent(_client_key(client_ip), count, mono_us)

    def failed(self, client_ip: str, login: str, mono_us: int) -> Duration:
        """Count a failure; returns how long its answer waits."""
        settings = self._settings
        client = self._rate(settings.failures_per_client)
        self._rates.hit(_client_key(client_ip), client, mono_us)
        is_over = bool(login) and self.failed_as(login, mono_us)
        return settings.failure_delay_max if is_over else settings.failure_delay

    def failed_as(self, login: str, mono_us: int) -> bool:
        """Count a failure in a user's name only; returns whether it is one too many.

        For services that count addresses by settings of their own.
        """
        rate = self._rate(self._settings.failures_per_user)
        return self._rates.hit(self._user_key(login), rate, mono_us) > 0

    def delay_of(self, user: str, mono_us: int) -> Duration:
        """Return how long the answer to a good login waits: usually not at all."""
        settings = self._settings
        if self._is_spent(self._user_key(user), settings.failures_per_user, mono_us):
            return settings.failure_delay_max
        return Duration(0)

    def _is_spent(self, key: str, count: int, mono_us: int) -> bool:
        # No event, with one place less: whether the next one would be too many.
        rate = Rate(count, self._settings.failures_period, count - 1)
        return self._rates.hit(key, rate, mono_us, 0) > 0

    def _rate(self, count: int) -> Rate:
        return Rate(count, self._settings.failures_period, count)

    def _user_key(self, login: str) -> str:
        # One user, one count: "joe@" any of our domains is joe, as at the login.
        name = login.lower()
        local, at, domain = name.rpartition("@")
        return f"login-user:{local if at and domain in self._domains() else name}"


def _client_key(client_ip: str) -> str:
    return f"login-client:{client_of(client_ip)}"
