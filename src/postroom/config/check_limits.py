"""What ``postroom check`` says of limits: those that defeat themselves, or real mail.

No limit decides who may relay, so none is unsafe in that way; but a bound that nothing
reaches protects nobody, and one that is too narrow turns real mail away.
"""

from ipaddress import ip_address

from postroom.config.findings import Findings, warning
from postroom.config.settings import Config
from postroom.dns.lists import DnsList
from postroom.dns.nameserver import Nameserver
from postroom.mail.units import Duration, Size
from postroom.policy.session import parse_network

# RFC 5321 §4.5.3.2: how long clients have to wait, and how much servers have to take.
_CLIENT_WAITS = Duration.from_text("5m")
_SERVER_WAITS = Duration.from_text("5m")
_RECIPIENTS_LEAST = 100
_FEW = ("client", "ipv6_64", "ipv6_48", "ipv4_24")
_PAUSE_USUAL = Duration.from_text("30s")
_RATE_USUAL = 10_000
_EXPIRE_LEAST = Duration.from_text("1d")
_CONTENT_LEAST = Duration.from_text("10m")
_SERVERS_LEAST = Duration.from_text("1m")

# Resolvers of everybody, to which the best known lists give no answer.
_PUBLIC = frozenset(
    (
        *("1.1.1.1", "1.0.0.1", "8.8.8.8", "8.8.4.4", "9.9.9.9", "149.112.112.112"),
        *("208.67.222.222", "208.67.220.220", "2606:4700:4700::1111"),
        *("2606:4700:4700::1001", "2001:4860:4860::8888", "2001:4860:4860::8844"),
        "2620:fe::fe",
    )
)


def limit_findings(config: Config) -> Findings:
    """Return what is self-defeating, or narrower than the standards, in all limits."""
    yield from _session_findings(config)
    yield from _memory_findings(config)
    yield from _time_findings(config)
    yield from _patience_findings(config)
    yield from _recipient_findings(config)
    yield from _exempt_findings(config)
    yield from _list_findings(config)
    yield from _hello_findings(config)


def _session_findings(config: Config) -> Findings:
    receive = config.receive
    limits = [f"sessions_per_{name}_max" for name in _FEW]
    useless = [one for one in limits if getattr(receive, one) >= receive.sessions_max]
    if useless:
        yield warning(
            f"receive.{useless[0]}: is no less than sessions_max "
            f"({receive.sessions_max}), so one client can take all sessions"
            + (f"; likewise {', '.join(useless[1:])}" if useless[1:] else "")
        )
    if 0 < receive.sessions_per_ipv6_48_max < receive.sessions_per_ipv6_64_max:
        yield warning(
            "receive.sessions_per_ipv6_48_max: is less than sessions_per_ipv6_64_max, "
            "though a /48 holds 65,536 of them: that limit is never reached"
        )


def _memory_findings(config: Config) -> Findings:
    """Where slow senders can take all the memory for messages on their way in."""
    receive, each = config.receive, config.spool.body_memory_octets_max
    memory, least = receive.transaction_memory_max, Size(receive.sessions_max * each)
    if memory < least:
        yield warning(
            f"receive.transaction_memory_max: {memory.to_text()} is room for "
            f"{memory // each} messages on their way in, fewer than sessions_max: so "
            "many slow senders make all others wait: set it to "
            f"{least.to_text()} at least"
        )


def _time_findings(config: Config) -> Findings:
    receive = config.receive
    if receive.command_timeout < _SERVER_WAITS:
        yield warning(
            f"receive.command_timeout: {receive.command_timeout.to_text()} is less "
            "than the 5 minutes of RFC 5321 §4.5.3.2.7: slow senders are cut off"
        )
    if receive.data_timeout < _SERVERS_LEAST:
        yield warning(
            f"receive.data_timeout: {receive.data_timeout.to_text()} is short: RFC "
            "5321 §4.5.3.2.5 lets senders take 3 minutes for a piece"
        )
    if receive.greet_pause >= _CLIENT_WAITS:
        yield warning(
            f"receive.greet_pause: {receive.greet_pause.to_text()}: clients wait 5 "
            "minutes for the greeting (RFC 5321 §4.5.3.2.1): no mail will come"
        )
    elif receive.greet_pause > _PAUSE_USUAL:
        yield warning(
            f"receive.greet_pause: {receive.greet_pause.to_text()}: many senders wait "
            'no longer than half a minute: "5s" keeps out as many that send junk'
        )
    if 0 < receive.session_timeout < receive.command_timeout:
        yield warning(
            f"receive.session_timeout: {receive.session_timeout.to_text()} is less "
            "than command_timeout, which is then never reached, and too little for "
            "large messages"
        )
    if receive.data_rate_min > _RATE_USUAL:
        yield warning(
            f"receive.data_rate_min: {receive.data_rate_min} octets a second is more "
            "than slow lines have: their mail never arrives"
        )


def _patience_findings(config: Config) -> Findings:
    """Where we give up sooner than the standards have us."""
    for name in ("expire", "bounce_expire"):
        after = getattr(config.schedule.retry, name)
        if after < _EXPIRE_LEAST:
            yield warning(
                f"schedule.retry.{name}: mail is returned after {after.to_text()}: "
                "RFC 5321 §4.5.4.1 has it tried for 4 to 5 days, as hosts may be down "
                "over a weekend"
            )
    if config.outbound.content_timeout < _CONTENT_LEAST:
        yield warning(
            f"outbound.content_timeout: {config.outbound.content_timeout.to_text()} is "
            "less than the 10 minutes of RFC 5321 §4.5.3.2.6: what a slow host has "
            "taken is sent to it again"
        )


def _recipient_findings(config: Config) -> Findings:
    receive = config.receive
    if config.smtp.recipients_max < _RECIPIENTS_LEAST:
        yield warning(
            f"smtp.recipients_max: {config.smtp.recipients_max} is less than the 100 "
            "that a server must take (RFC 5321 §4.5.3.1.8)"
        )
    if receive.bad_recipient_delay_max >= _CLIENT_WAITS:
        yield warning(
            "receive.bad_recipient_delay_max: clients wait 5 minutes for an answer "
            "(RFC 5321 §4.5.3.2.3): they would give up and try again"
        )
    if 0 < receive.bad_recipients_max <= receive.bad_recipients_free:
        yield warning(
            "receive.bad_recipients_free: is no less than bad_recipients_max: answers "
            "are never slowed down"
        )


def _exempt_findings(config: Config) -> Findings:
    exempt = (
        ("receive.exempt_networks", config.receive.exempt_networks),
        ("policy.rate_free_networks", config.policy.rate_free_networks),
        ("policy.clients.exempt_networks", config.policy.clients.exempt_networks),
    )
    for name, networks in exempt:
        for text in networks:
            if parse_network(text).prefixlen == 0:
                yield warning(f'{name}: "{text}" is everybody: nobody is limited')


def _list_findings(config: Config) -> Findings:
    settings = config.policy.dns_lists
    lists = [DnsList.from_text(text) for text in settings.zones]
    highest = sum(one.weight for one in lists if one.weight > 0)
    for name in ("reject_at", "defer_at"):
        bound = getattr(settings, name)
        if bound > highest:
            yield warning(
                f"policy.dns_lists.{name}: {bound} is never reached: a client that is "
                f"on all lists has the score {highest}"
            )
    if 0 < settings.reject_at <= settings.defer_at:
        yield warning(
            "policy.dns_lists.defer_at: is no less than reject_at: nobody is deferred"
        )
    servers = {Nameserver.from_text(text).ip for text in config.dns.nameservers}
    public = sorted(servers & _PUBLIC, key=lambda ip: (ip_address(ip).version, ip))
    if lists and public:
        yield warning(
            f"policy.dns_lists: many lists give resolvers of everybody such as "
            f"{public[0]} no answers: run a resolver of your own (dns.nameservers)"
        )


def _hello_findings(config: Config) -> Findings:
    hello = config.policy.hello
    for name in ("unqualified", "unresolvable"):
        if getattr(hello, name) == "reject":
            yield warning(
                f'policy.hello.{name}: "reject" turns real mail away: many senders '
                'are ill configured. See with "log" whom it would be'
            )
    if config.policy.reverse.unverified == "reject":
        yield warning(
            'policy.reverse.unverified: "reject" turns real mail away: see with "log" '
            'whom it would be, or use "defer"'
        )
