"""What ``postroom check`` says of limits that defeat themselves, or real mail."""

import pytest

from postroom.config.check_limits import limit_findings
from postroom.config.load import parse
from postroom.config.problems import ConfigError

SAID = {
    "one client can take all": (
        "[receive]\nsessions_max = 200\nsessions_per_client_max = 200",
        "receive.sessions_per_client_max: is no less than sessions_max (200), so one "
        "client can take all sessions; likewise sessions_per_ipv6_48_max",
    ),
    "a /48 smaller than a /64": (
        "[receive]\nsessions_per_ipv6_48_max = 50",
        "receive.sessions_per_ipv6_48_max: is less than",
    ),
    "impatient with commands": (
        '[receive]\ncommand_timeout = "1m"',
        "receive.command_timeout: 1m is less than the 5 minutes of RFC 5321",
    ),
    "impatient with content": (
        '[receive]\ndata_timeout = "30s"',
        "receive.data_timeout: 30s is short",
    ),
    "nobody waits so long for a greeting": (
        '[receive]\ngreet_pause = "5m"',
        "receive.greet_pause: 5m: clients wait 5 minutes",
    ),
    "few wait so long for a greeting": (
        '[receive]\ngreet_pause = "1m"',
        "receive.greet_pause: 1m: many senders wait",
    ),
    "no time for a session": (
        '[receive]\nsession_timeout = "1m"',
        "receive.session_timeout: 1m is less than command_timeout",
    ),
    "too fast for some": (
        "[receive]\ndata_rate_min = 100000",
        "receive.data_rate_min: 100000 octets a second",
    ),
    "mail that is soon returned": (
        '[schedule.retry]\nexpire = "6h"',
        "schedule.retry.expire: mail is returned after 6h: RFC 5321 §4.5.4.1",
    ),
    "reports that are soon given up": (
        '[schedule.retry]\nbounce_expire = "6h"',
        "schedule.retry.bounce_expire: mail is returned after 6h",
    ),
    "duplicates for want of patience": (
        '[outbound]\ncontent_timeout = "2m"',
        "outbound.content_timeout: 2m is less than the 10 minutes of RFC 5321",
    ),
    "slow senders take all memory": (
        "[receive]\nsessions_max = 2000",
        "receive.transaction_memory_max: 128MiB is room for 1024 messages on their way",
    ),
    "or all that there is little of": (
        '[receive]\ntransaction_memory_max = "64MiB"',
        "receive.transaction_memory_max: 64MiB is room for 512 messages on their way",
    ),
    "too few recipients": (
        "[smtp]\nrecipients_max = 10",
        "smtp.recipients_max: 10 is less than the 100",
    ),
    "too slow an answer": (
        '[receive]\nbad_recipient_delay_max = "5m"',
        "receive.bad_recipient_delay_max: clients wait 5 minutes",
    ),
    "never slowed down": (
        "[receive]\nbad_recipients_max = 5",
        "receive.bad_recipients_free: is no less than bad_recipients_max",
    ),
    "everybody is exempt": (
        '[receive]\nexempt_networks = ["0.0.0.0/0"]',
        'receive.exempt_networks: "0.0.0.0/0" is everybody',
    ),
    "no rate for anybody": (
        '[policy]\nrate_free_networks = ["::/0"]',
        'policy.rate_free_networks: "::/0" is everybody',
    ),
    "nobody is looked up": (
        '[policy.clients]\nexempt_networks = ["0.0.0.0/0"]',
        'policy.clients.exempt_networks: "0.0.0.0/0" is everybody',
    ),
    "no score is so high": (
        '[policy.dns_lists]\nzones = ["a.test*3", "w.test*-9"]\nreject_at = 4',
        "policy.dns_lists.reject_at: 4 is never reached",
    ),
    "a bound without lists": (
        "[policy.dns_lists]\ndefer_at = 1",
        "policy.dns_lists.defer_at: 1 is never reached",
    ),
    "nobody is deferred": (
        '[policy.dns_lists]\nzones = ["a.test*3"]\nreject_at = 2\ndefer_at = 3',
        "policy.dns_lists.defer_at: is no less than reject_at",
    ),
    "a resolver of everybody": (
        '[policy.dns_lists]\nzones = ["zen.spamhaus.org"]\nreject_at = 1\n'
        '[dns]\nnameservers = ["127.0.0.1", "8.8.8.8:53"]',
        "policy.dns_lists: many lists give resolvers of everybody such as 8.8.8.8",
    ),
    "unqualified hellos": (
        '[policy.hello]\nunqualified = "reject"',
        'policy.hello.unqualified: "reject" turns real mail away',
    ),
    "unresolvable hellos": (
        '[policy.hello]\nunresolvable = "reject"',
        'policy.hello.unresolvable: "reject" turns real mail away',
    ),
    "names that do not lead back": (
        '[policy.reverse]\nunverified = "reject"',
        'policy.reverse.unverified: "reject" turns real mail away',
    ),
}

HEAD = 'hostname = "mx.gonzo.test"\n'


@pytest.mark.parametrize("name", SAID)
def test_said(name: str) -> None:
    text, start = SAID[name]
    found = list(limit_findings(parse(HEAD + text, "p.toml")))
    assert [one.kind for one in found] == ["warning"]
    assert found[0].text.startswith(start), found[0].text


def test_the_defaults_are_sound() -> None:
    assert not list(limit_findings(parse(HEAD, "p.toml")))


def test_a_full_set_of_sensible_limits_is_sound() -> None:
    text = """
    [receive]
    greet_pause = "5s"
    exempt_networks = ["192.0.2.0/24"]
    [policy]
    connection_rate = "60/1m"
    [policy.dns_lists]
    zones = ["zen.spamhaus.org=127.0.0.[2..11]*3", "list.dnswl.org*-3"]
    reject_at = 3
    defer_at = 2
    [policy.reverse]
    look_up = true
    missing = "defer"
    [policy.hello]
    own_name = "reject"
    own_address = "reject"
    """
    assert not list(limit_findings(parse(HEAD + text, "p.toml")))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[policy.hello]\nown_name = "refuse"', "policy.hello.own_name"),
        ('[policy.hello]\nown_nam = "log"', "own_nam"),
        ('[policy.dns_lists]\nzones = ["x"]', '"x" is no DNS list'),
        ('[policy.dns_lists]\nreject_at = "5"', "policy.dns_lists.reject_at"),
        ('[receive]\npipelining_ahead = "no"', "receive.pipelining_ahead"),
        ('[receive]\nexempt_networks = ["x"]', "exempt_networks|write"),
    ],
)
def test_unknown_values_are_explained(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse(HEAD + text, "p.toml")
