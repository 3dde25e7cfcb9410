"""How many reports may leave for one address or domain: a bound on storms.

A forged sender of a thousand bad messages would get a thousand reports. Reports are
counted against two rates (see ``limits.gcra``), over all workers. What is over a rate
is held back for good: it is counted, logged, and nothing else of the mail is touched.
The first one over a rate still goes, and says that more are held back; the next one
that goes afterwards says how many were (of those that this worker held back).
"""

from typing import NamedTuple

from postroom.limits.gcra import Rate
from postroom.limits.shared import SharedCounters
from postroom.mail.address import Address
from postroom.mail.now import Now
from postroom.policy.settings import parse_rate
from postroom.services.report_settings import ReportSettings

_REMEMBERED_MAX = 10_000
"""Addresses and domains whose held back reports are counted for telling."""


class Allowed(NamedTuple):
    """The report may go; ``note`` is what is to be said in it, or empty."""

    note: str = ""


class HeldBack(NamedTuple):
    """The report must not go; the reason is for the log."""

    reason: str


class _Limit(NamedTuple):
    key: str
    whom: str
    rate: Rate
    text: str


class Ration:
    """Counts reports.

    Args:
        settings: the rates in force.
        counters: those of all workers.
    """

    def __init__(self, settings: ReportSettings, counters: SharedCounters) -> None:
        self._counters = counters
        self._tells = settings.over_rate == "tell"
        self._sender = settings.sender_rate
        self._domain = settings.domain_rate
        self._rates = {
            text: parse_rate(text)
            for text in (settings.sender_rate, settings.domain_rate)
        }
        self._held: dict[str, int] = {}

    def ask(self, to: Address, now: Now, *, is_ours: bool) -> Allowed | HeldBack:
        """Count one report to an address; ``is_ours`` says that it stays here."""
        limits = self._limits(to, is_ours=is_ours)
        for limit in limits:
            if self._counters.hit(limit.key, limit.rate, now.mono_us):
                return self._over(limit, now)
        held = sum(self._held.pop(limit.key, 0) for limit in limits)
        if not held or not self._tells:
            return Allowed()
        many = "report was" if held == 1 else "reports were"
        return Allowed(
            f"Before this one {held} {many} held back, because there were too many."
        )

    def _limits(self, to: Address, *, is_ours: bool) -> list[_Limit]:
        whom, domain = str(to).lower(), to.domain_key
        found = []
        if (rate := self._rates[self._sender]) is not None:
            found.append(_Limit(f"report/{whom}", whom, rate, self._sender))
        if (rate := self._rates[self._domain]) is not None and not is_ours:
            key = f"report-domain/{domain}"
            found.append(_Limit(key, domain, rate, self._domain))
        return found

    def _over(self, limit: _Limit, now: Now) -> Allowed | HeldBack:
        once = Rate(1, limit.rate.period, 1)
        last = f"last-{limit.key}"
        if self._tells and not self._counters.hit(last, once, now.mono_us):
            return Allowed(
                f"There have been too many reports to {limit.whom} (over {limit.text})."
                " For a while further ones are held back and will not come later;"
                " the log of this mail system has what they would have said."
            )
        if limit.key in self._held or len(self._held) < _REMEMBERED_MAX:
            self._held[limit.key] = self._held.get(limit.key, 0) + 1
        return HeldBack(f"over {limit.text} to {limit.whom}")
