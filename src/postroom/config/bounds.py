"""What settings have to be, where less (or more) would stop mail or turn it away.

A stage refuses what it cannot be built with; here stands what it could be, and would do
nothing, or harm: hosts that are given no time to answer, queues that hold no message.
Settings of which 0 means something (no limit, never) are not here.
"""

from operator import attrgetter

from postroom.config.settings import Config
from postroom.config.units import toml_value

LEAST: dict[str, int] = {
    "smtp.command_line_octets_max": 512,  # RFC 5321 §4.5.3.1.4
    "smtp.auth_line_octets_max": 512,
    "smtp.data_line_octets_max": 998,  # RFC 5321 §4.5.3.1.6
    "client.reply_line_octets_max": 512,  # RFC 5321 §4.5.3.1.5
    "schedule.retry.growth_percent": 100,
    **dict.fromkeys(
        (
            "smtp.recipients_max",
            "receive.command_timeout",
            "receive.data_timeout",
            "receive.transaction_memory_max",
            "receive.header_octets_max",
            "policy.async_timeout",
            "policy.blocking_timeout",
            "route.alias_depth_max",
            "spool.group_messages_max",
            "spool.group_octets_max",
            "spool.wal_octets_max",
            "spool.cache_octets",
            "spool.recipients_per_lease_max",
            "spool.claim_octets_max",
            "spool.crashes_max",
            "schedule.active_max",
            "schedule.probing_max",
            "schedule.hops_max",
            "schedule.window_start",
            "schedule.window_max",
            "schedule.messages_ahead",
            "schedule.local_window",
            "schedule.claim_max",
            "schedule.claims_max",
            "schedule.backoff_start",
            "schedule.backoff_max",
            "schedule.retry.expire",
            "schedule.retry.first_wait",
            "schedule.retry.longest_wait",
            "schedule.retry.bounce_expire",
            "schedule.retry.bounce_first_wait",
            "schedule.retry.bounce_longest_wait",
            "deliver.attempt_timeout",
            "outbound.tls_timeout",
            "outbound.auth_timeout",
            "outbound.hosts_tried_max",
            "outbound.connections_max",
            "outbound.recipients_max",
            "outbound.messages_per_connection_max",
            "outbound.connect_timeout",
            "outbound.greeting_timeout",
            "outbound.hello_timeout",
            "outbound.command_timeout",
            "outbound.block_timeout",
            "outbound.content_timeout",
            "outbound.quit_timeout",
            "client.reply_lines_max",
            "client.unread_octets_max",
            "submission.header_octets_max",
            "dns.timeout",
            "dns.queries_max",
            "tables.file_octets_max",
            "tables.entries_max",
            "tables.line_octets_max",
            "pop3.read_ahead_octets",
            "auth.tokens.answer_octets_max",
        ),
        1,
    ),
}
"""By their path in the file; times in microseconds, sizes in octets."""

MOST: dict[str, int] = {  # more, and some hosts would be tried without a pause
    "schedule.retry.jitter_percent": 90,
    "schedule.backoff_jitter_percent": 90,
}


def out_of_bounds(config: Config) -> list[tuple[str, str]]:
    """Return the settings that are not what they have to be, each with the reason."""
    found = []
    for path, most in MOST.items():
        value = attrgetter(path)(config)
        if value > most:
            found.append((path, f"is {value}, but can be {most} at most"))
    for path, least in LEAST.items():
        value = attrgetter(path)(config)
        if value < least:
            wanted = (
                "more" if least == 1 else f"at least {toml_value(type(value)(least))}"
            )
            found.append((path, f"is {toml_value(value)}, but has to be {wanted}"))
    return found
