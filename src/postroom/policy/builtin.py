"""The guards: relay control, unknown recipients, sizes, hops, rates, sender domains.

They are hooks like any other, only always asked and asked first; a site's ``accept()``
does not switch them off. Each refusal is one line here, with its code.
"""

from collections.abc import Callable
from typing import Protocol

from postroom.dns.names import to_ascii
from postroom.limits.clients import client_of
from postroom.limits.gcra import Rate
from postroom.limits.shared import SharedCounters
from postroom.mail.address import Address
from postroom.mail.now import Now
from postroom.mail.reply import Reply
from postroom.mail.trace import hop_count
from postroom.mail.verdict import Defer, Reject
from postroom.policy.hooks import Hook, Phase
from postroom.policy.session import (
    Connect,
    Mail,
    MessageSubject,
    Rcpt,
    Session,
    in_networks,
)
from postroom.policy.settings import (
    PolicySettings,
    parse_rate,
    relay_domain_names,
)

Guard = Reject | Defer | None

_FURTHER = frozenset("%!@")
"""What parts a local part that names a host of its own."""


class Limiter(Protocol):
    """Counts events per key for the whole system."""

    def allow(self, key: str, rate: Rate) -> bool:
        """Count one more event of ``key``; ``False`` if that is over the rate."""


class SharedLimiter:
    """Rates over all workers, kept in the shared counters.

    Args:
        counters: this worker's view of them.
        clock: reads the time.
    """

    def __init__(self, counters: SharedCounters, clock: Callable[[], Now]) -> None:
        self._counters = counters
        self._clock = clock

    def allow(self, key: str, rate: Rate) -> bool:
        """Count one more event of ``key``; ``False`` if that is over the rate."""
        return not self.admit(key, 1, rate)

    def admit(self, key: str, events: int, rate: Rate) -> int:
        """Count events of ``key``, all of them or none.

        Args:
            key: what is limited, such as ``login-recipients/joe``; keys of different
                rates must differ.
            events: how many at once; more than the burst are never allowed.
            rate: the limit in force.

        Returns:
            0 if they are allowed, else in how many microseconds they would be.
        """
        return self._counters.hit(key, rate, self._clock().mono_us, events)


class Guards:
    """The built-in hooks of one generation.

    Args:
        settings: the ``[policy]`` section.
        message_octets_max: the largest message that is accepted; 0 for no limit.
        limiter: keeps the rates; ``None`` leaves rates unlimited.
    """

    def __init__(
        self,
        settings: PolicySettings,
        message_octets_max: int,
        limiter: Limiter | None = None,
    ) -> None:
        self._settings = settings
        self._size_max = message_octets_max
        self._limiter = limiter
        self._relay_networks = settings.relay_networks
        self._relay_domains = relay_domain_names(settings.relay_domains)
        self._rates = {
            "connection": parse_rate(settings.connection_rate),
            "message": parse_rate(settings.message_rate),
            "recipient": parse_rate(settings.recipient_rate),
        }

    def hooks(self) -> tuple[Hook, ...]:
        """Return those that the settings call for, in the order they are asked."""
        guards: list[tuple[Phase, str, Callable[..., Guard]]] = [
            ("mail", "sizes", self.declared_size),
            ("rcpt", "recipients", self.recipient),
            ("message", "hops", self.hops),
            ("message", "sizes", self.message_size),
        ]
        if self._settings.inspects:
            guards.insert(0, ("rcpt", "client", self.client))
        if self._settings.sender_domain_real:
            guards.append(("mail", "sender_domain", self.sender_domain))
        for what, phase, function in (
            ("connection", "connect", self.connection_rate),
            ("message", "mail", self.message_rate),
            ("recipient", "rcpt", self.recipient_rate),
        ):
            if self._rates[what] is not None:
                guards.append((phase, f"{what}_rate", function))  # type: ignore[arg-type]
        return tuple(
            Hook(phase, name, function, guard=True) for phase, name, function in guards
        )

    def client(self, session: Session, rcpt: Rcpt) -> Guard:
        """What was found out about the client; postmaster can always be reached."""
        objection = session.objection
        if objection is None or self.may_relay(session):
            return None
        exempt = self._settings.clients.exempt_recipients
        if rcpt.routing == "local" and rcpt.address.local.lower() in exempt:
            return None  # RFC 5321 §4.5.1
        return objection

    def recipient(self, session: Session, rcpt: Rcpt) -> Guard:
        """Relay control and unknown recipients, by what the router said."""
        match rcpt.routing:
            case "local":
                return None
            case "relay":
                if self.may_relay(session) or self._is_for_all(rcpt.address):
                    return None
                return _reject(550, "5.7.1", f"<{rcpt.address}>... Relaying denied")
            case "unknown" | "failed":
                return _refused(rcpt)

    def may_relay(self, session: Session) -> bool:
        """Whether a client may send to domains that are not ours."""
        origin = session.origin
        if not origin.client_ip:
            return True  # a local submission: the caller is a user of this machine
        if origin.login and self._settings.relay_logins:
            return True
        networks = self._relay_networks
        return bool(networks) and in_networks(origin.client_ip, networks)

    def _is_for_all(self, address: Address) -> bool:
        """Whether anybody may send there (``relay_domains``)."""
        if not self._relay_domains:
            return False
        if not _FURTHER.isdisjoint(address.local):
            return False  # a way to elsewhere, for the next host to follow
        name = to_ascii(address.domain_key) or ""
        while name:
            if name in self._relay_domains:
                return True
            _, dot, name = name.lstrip(".").partition(".")
            name = dot + name
        return False

    def sender_domain(self, session: Session, mail: Mail) -> Guard:
        """A sender from outside has a domain that mail could go back to."""
        domain = mail.address.domain
        if domain:
            # RFC 3696 §2: a top-level domain is not all digits.
            name, _, top = domain.rstrip(".").rpartition(".")
            if domain[0] == "[" or (name and not top.isdecimal()):
                return None
        elif not mail.address.local:
            return None  # RFC 5321 §4.5.5: the null sender
        if self.may_relay(session):
            return None
        text = f"<{mail.address}>... Real domain name required for sender address"
        return _reject(553, "5.5.4", text)

    def declared_size(self, session: Session, mail: Mail) -> Guard:
        """What MAIL declares with SIZE fits (RFC 1870 §6.1)."""
        return self._size(mail.size_octets)

    def message_size(self, session: Session, subject: MessageSubject) -> Guard:
        """What was received fits (RFC 1870 §6.3)."""
        return self._size(subject.size_octets)

    def hops(self, session: Session, subject: MessageSubject) -> Guard:
        """The message is not going in circles (RFC 5321 §6.3)."""
        hops, hops_max = hop_count(subject.message.header), self._settings.hops_max
        if hops <= hops_max:
            return None
        return _reject(554, "5.4.6", f"Too many hops {hops} ({hops_max} max)")

    def connection_rate(self, session: Session, connect: Connect) -> Guard:
        """Connections per time."""
        if self._in_rate("connection", session):
            return None
        return _defer(421, "4.7.0", "Too many connections from your address, try later")

    def message_rate(self, session: Session, mail: Mail) -> Guard:
        """Messages per time."""
        if self._in_rate("message", session):
            return None
        return _defer(450, "4.7.1", "Too many messages from your address, try later")

    def recipient_rate(self, session: Session, rcpt: Rcpt) -> Guard:
        """Recipients per time."""
        if self._in_rate("recipient", session):
            return None
        return _defer(450, "4.7.1", "Too many recipients from your address, try later")

    def _size(self, octets: int) -> Guard:
        if octets <= self._size_max or not self._size_max:
            return None
        text = f"Message is larger than {self._size_max} octets"
        return _reject(552, "5.3.4", text)

    def _in_rate(self, what: str, session: Session) -> bool:
        rate, ip = self._rates[what], session.origin.client_ip
        if rate is None or self._limiter is None or not ip:
            return True
        if in_networks(ip, self._settings.rate_free_networks):
            return True
        return self._limiter.allow(f"{what}/{client_of(ip)}", rate)


def _refused(rcpt: Rcpt) -> Guard:
    """Refuse as the router would, else in sendmail's words."""
    reply = rcpt.reply
    if reply is None and rcpt.routing == "unknown":
        reply = Reply.of(550, "5.1.1", "User unknown")
    elif reply is None:
        reply = Reply.of(451, "4.4.3", "Cannot be routed now, try again later")
    text = f"<{rcpt.address}>... {reply.text}"
    make = _defer if reply.is_transient else _reject
    return make(reply.code, reply.status, text)


def _reject(code: int, status: str, text: str) -> Reject:
    return Reject(Reply.of(code, status, text))


def _defer(code: int, status: str, text: str) -> Defer:
    return Defer(Reply.of(code, status, text))
