"""Who is let in: how many sessions at a time, in all and from one place.

The counts are those of all workers. Which of them are kept is decided once for each
set of settings; a connection then costs one count for each that is in force. Whoever
is refused holds nothing.
"""

from typing import NamedTuple

from postroom.limits.clients import block_of, is_ipv6
from postroom.mail.reply import Reply
from postroom.policy.session import in_networks
from postroom.services.reception import Counters
from postroom.services.settings import ReceiveSettings

_FULL = Reply.of(421, "4.3.2", "too many sessions, try again later")
_TOO_MANY = Reply.of(421, "4.7.0", "too many sessions from your address")
_TOO_MANY_NEAR = Reply.of(421, "4.7.0", "too many sessions from your network")


class TurnedAway(NamedTuple):
    """The client is not let in; ``limit`` names the setting."""

    reply: Reply
    limit: str


class Admitted(NamedTuple):
    """The client is in; ``keys`` are to be given to ``leave``."""

    keys: tuple[str, ...]


class _Bound(NamedTuple):
    limit: str
    sessions_max: int
    prefix: int
    reply: Reply


class Admission:
    """Counts sessions against one set of settings.

    Args:
        settings: the ``[receive]`` section.
        has_users: whether a listener for users is there, for whom places are kept.
    """

    def __init__(self, settings: ReceiveSettings, *, has_users: bool = False) -> None:
        self.settings = settings
        kept = min(settings.sessions_for_users, settings.sessions_max // 2)
        self._for_others = settings.sessions_max - (kept if has_users else 0)
        v4 = _bounds(settings, (32, "client"), (24, "ipv4_24"))
        v6 = _bounds(settings, (128, "client"), (64, "ipv6_64"), (48, "ipv6_48"))
        self._bounds = {False: v4, True: v6}

    def enter(
        self, counters: Counters, ip: str, *, is_user: bool = False
    ) -> Admitted | TurnedAway:
        """Take a place for a client; ``is_user``: it came to a listener for users."""
        s = self.settings
        if not counters.add("smtp", 1, s.sessions_max if is_user else self._for_others):
            return TurnedAway(_FULL, "sessions_max")
        if s.exempt_networks and in_networks(ip, s.exempt_networks):
            return Admitted(("smtp",))
        keys = ["smtp"]
        for bound in self._bounds[is_ipv6(ip)]:
            key = f"smtp:{_place(ip, bound.prefix)}"
            if not counters.add(key, 1, bound.sessions_max):
                self.leave(counters, Admitted(tuple(keys)))
                return TurnedAway(bound.reply, bound.limit)
            keys.append(key)
        return Admitted(tuple(keys))

    def leave(self, counters: Counters, place: Admitted) -> None:
        """Give a place back."""
        for key in place.keys:
            counters.release(key, 1)


def _bounds(settings: ReceiveSettings, *wanted: tuple[int, str]) -> tuple[_Bound, ...]:
    found = []
    for prefix, what in wanted:
        limit = f"sessions_per_{what}_max"
        sessions_max: int = getattr(settings, limit)
        if sessions_max:
            reply = _TOO_MANY if what == "client" else _TOO_MANY_NEAR
            found.append(_Bound(limit, sessions_max, prefix, reply))
    return tuple(found)


def _place(ip: str, prefix: int) -> str:
    if prefix in (32, 128):
        return ip  # as the stream writes it: one spelling for each address
    return block_of(ip, ipv4_prefix=prefix, ipv6_prefix=prefix)
