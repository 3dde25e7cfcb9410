"""Reading the configuration: strict, and clear about all that is wrong."""

from pathlib import Path
from typing import get_type_hints

import msgspec
import pytest

from postroom.config.load import default_path, load, parse
from postroom.config.problems import ConfigError, line_of
from postroom.config.render import MASK, to_toml
from postroom.config.settings import Config, Listen, split_address
from postroom.mail.units import Duration, Size

HOST = 'hostname = "mx.whizzer.test"\n'


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text, "/etc/p.toml")
    return str(caught.value).splitlines()


def test_an_empty_file_is_the_defaults_and_the_systems_name() -> None:
    config = parse("", "/etc/postroom/postroom.toml")
    assert config.hostname
    assert msgspec.structs.replace(config, hostname="") == Config()


def test_values_with_units() -> None:
    config = parse(
        '[smtp]\nmessage_octets_max = "10MB"\n[schedule.retry]\nexpire = "1d12h"\n',
        "/x",
    )
    assert config.smtp.message_octets_max == Size(10_000_000)
    assert config.schedule.retry.expire == Duration.from_text("36h")


def test_listeners() -> None:
    config = parse(
        '[[listen]]\naddress = "127.0.0.1:2525"\n'
        '[[listen]]\naddress = "[::1]:110"\nservice = "pop3"\nname = "mail"\n',
        "/x",
    )
    first, second = config.listen
    assert (first.ip, first.port, first.service) == ("127.0.0.1", 2525, "smtp")
    assert first.label == "smtp 127.0.0.1:2525"
    assert (second.ip, second.port, second.label) == ("::1", 110, "mail")


def test_relative_paths_are_beside_the_file() -> None:
    config = parse(
        'users_file = "users"\n[policy]\nmodule = "policy.py"\n'
        '[mailbox]\npath = "mail/{user}"\n[log]\nto = "logs/mail.log"\n'
        '[spool]\ndirectory = "/var/spool/x"\n',
        "/srv/mail/postroom.toml",
    )
    assert config.users_file == "/srv/mail/users"
    assert config.policy.module == "/srv/mail/policy.py"
    assert config.mailbox.path == "/srv/mail/mail/{user}"
    assert config.log.to == "/srv/mail/logs/mail.log"
    assert config.spool.directory == "/var/spool/x"
    assert (config.route.aliases, parse("", "/srv/x").log.to) == ("", "stdout")


BAD = {
    "unknown at the top": ('host_name = "x"', "p.toml:1: host_name: there is no such"),
    "the nearest known key": ('host_name = "x"', 'did you mean "hostname"?'),
    "hyphens for underscores": ("users-file = 'x'", 'did you mean "users_file"?'),
    "unknown in a section": (
        HOST + "\n[smtp]\nrecipient_max = 3",
        "p.toml:4: smtp.recipient_max: there is no such setting; did you mean "
        '"recipients_max"?',
    ),
    "an unknown section": (
        "[smpt]\nx = 1",
        'p.toml:1: smpt: there is no such setting; did you mean "smtp"?',
    ),
    "nothing near": (
        "[[listen]]\nqqq = 1",
        "known here: address, login, name, proxy, service, tls",
    ),
    "deeper": (
        "[schedule.retry]\nexpires = '5d'",
        "schedule.retry.expires: there is no",
    ),
    "a dotted key": ("smtp.errors_max = 'x'", 'p.toml:1: smtp.errors_max: is "x"'),
    "a text for a number": (
        '[smtp]\nerrors_max = "3"',
        'is "3", but has to be a whole',
    ),
    "a truth for a number": ("[smtp]\nerrors_max = true", "is true, but has to be"),
    "a fraction for a number": ("[smtp]\nerrors_max = 1.5", "is 1.5, but has to be"),
    "a number for a text": ("hostname = 3", "is 3, but has to be a text in quotes"),
    "a date for a text": ("hostname = 2026-01-01", "is 2026-01-01, but has to be"),
    "a text for a list": ('[route]\nlocal_domains = "x"', "a list of this: a text"),
    "a number in a list": ("[route]\nlocal_domains = [1]", "is [1], but has to be"),
    "a list for a table": ("smtp = []", "is [], but has to be a table"),
    "a table for a text": ("hostname = {a = 1}", "is {a = 1}, but has to be a text"),
    "another word": ('[log]\nformat = "xml"', 'has to be one of "sendmail", "json"'),
    "a duration without unit": ("[dns]\ntimeout = 3", '3 has no unit: write "30s"'),
    "a duration in years": ('[dns]\ntimeout = "1y"', '"1y" is no duration: write'),
    "a size without unit": (
        "[smtp]\nmessage_octets_max = 5",
        '5 has no unit: write "64',
    ),
    "a size of words": ('[smtp]\nmessage_octets_max = "big"', '"big" is no size'),
    "a setting of a stage": (
        "[auth]\nscram_iterations = 1",
        "auth: scram_iterations is",
    ),
    "a network": ('[policy]\nrelay_networks = ["x"]', "policy: 'x' does not appear"),
    "a rate": (
        '[policy]\nmessage_rate = "5"',
        'policy: "5" is no rate: write "1000/1h"',
    ),
    "no address": ("[[listen]]\nservice = 'smtp'", 'listen[0]: "address" is missing'),
    "a host name": ("[[listen]]\naddress = 'x:25'", 'listen[0]: "x:25" has no IP'),
    "no port": (
        "[[listen]]\naddress = '127.0.0.1'",
        "has no IP address before the port",
    ),
    "port 0": (
        "[[listen]]\naddress = '127.0.0.1:0'",
        "has no port between 1 and 65535",
    ),
    "IPv6 without brackets": ("[[listen]]\naddress = '::1:25'", "is no address with a"),
    "less than nothing": (
        "[smtp]\nrecipients_max = -1",
        "is -1, but cannot be below 0",
    ),
    "a port too high": ("[outbound]\nport = 99999", "outbound: port is 99999, but"),
    "a name server's name": (
        '[dns]\nnameservers = ["ns"]',
        'dns: "ns" is no name server',
    ),
    "no tries": ("[dns]\ntries = 0", "dns: tries must be at least 1"),
    "no such agent": (
        '[route]\nlocal_agent = "pipe"',
        'has to be one of "mailbox", "discard"',
    ),
    "TLS for all at once": ("[smtp]\nstarttls = true", "each listener says it"),
    "mechanisms in the wrong place": (
        '[smtp]\nauth_mechanisms = ["PLAIN"]',
        "say mechanisms in [auth]",
    ),
    "a list nested too deeply": ("a = " + "[" * 100_000, "is nested too deeply"),
    "a number too large": ("[process]\nworkers = 9223372036854775807", "is too large"),
    "more workers than cores": ("[process]\nworkers = 513", "can be 512 at most"),
    "no time between signs of life": (
        '[process]\nheartbeat = "0s"',
        "process: heartbeat is more than 0",
    ),
    "signs of life too rare": (
        '[process]\nheartbeat = "6s"',
        "heartbeat_timeout at least twice as much",
    ),
    "no time to come up": ('[process]\nstart_timeout = "0s"', "is at least 1s"),
    "crashes without a pause": (
        '[process]\nrestart_wait_max = "0s"',
        "process: restart_wait_max is more than 0",
    ),
    "days to drain": ("[process]\ndrain_s_max = 86401", "but can be 86400 (a day)"),
    "a log nowhere": ('[log]\nto = ""', 'log: to is empty: write "stdout"'),
    "a log that is always full": ("[log]\nwaiting_max = 0", "log: waiting_max is at"),
    "a duration of ages": ('[dns]\ntimeout = "9999999w"', "nothing takes 100 years"),
    "a duration of many digits": (
        f'[dns]\ntimeout = "{"9" * 5000}w"',
        "nothing takes 100 years",
    ),
    "a size without a disk": (
        '[smtp]\nmessage_octets_max = "9999999TiB"',
        '"9999999TiB" is more than any disk has',
    ),
    "a size of many digits": (
        f'[smtp]\nmessage_octets_max = "{"9" * 5000}"',
        "is more than any disk has",
    ),
    "no time to answer": (
        '[outbound]\ncommand_timeout = "0s"',
        'p.toml:2: outbound.command_timeout: is "0s", but has to be more',
    ),
    "mail that is given up at once": (
        '[schedule.retry]\nexpire = "0s"',
        "schedule.retry.expire: is",
    ),
    "waits that grow shorter": (
        "[schedule.retry]\ngrowth_percent = 50",
        "is 50, but has to be at least 100",
    ),
    "waits that vary too much": (
        "[schedule.retry]\njitter_percent = 91",
        "is 91, but can be 90 at most",
    ),
    "lines shorter than the standard's": (
        '[smtp]\ncommand_line_octets_max = "511B"',
        'is "511B", but has to be at least "512B"',
    ),
    "a NUL in a path": ('users_file = "a\\u0000b"', "users_file: has a NUL in it"),
    "a NUL in a list": ('[route]\nlocal_domains = ["\\u0000"]', "has a NUL in it"),
    "a host name of two words": ('hostname = "a b"', 'is "a b", which is no name of'),
    "a host name of two lines": ('hostname = "a\\nb"', "which is no name of a host"),
    "a host name that is too long": (f'hostname = "{"x" * 64}"', "no name of a host"),
    "a listener's name twice": (
        '[[listen]]\naddress = "127.0.0.1:25"\nname = "in"\n'
        '[[listen]]\naddress = "127.0.0.1:465"\nname = "in"\nservice = "submission"',
        'two listeners are called "in"',
    ),
    "a listener called like another's address": (
        '[[listen]]\naddress = "127.0.0.1:25"\n'
        '[[listen]]\naddress = "127.0.0.1:26"\nname = "smtp 127.0.0.1:25"',
        'two listeners are called "smtp 127.0.0.1:25"',
    ),
    "a long value": ("hostname = [" + "1," * 99 + "]", "..., but has to be"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be(name: str) -> None:
    text, expected = BAD[name]
    (line,) = problems(text)
    assert expected in line
    assert line.startswith("/etc/p.toml:")


def test_all_problems_are_told_at_once_with_their_lines() -> None:
    text = (
        "x = 1\n[[listen]]\naddress = '127.0.0.1:25'\n[[listen]]\nport = 3\n"
        "[smtp]\nerrors_max = ''\n[dns]\ntries = ''\n"
    )
    assert [line.split(": ")[:2] for line in problems(text)] == [
        ["/etc/p.toml:1", "x"],
        ["/etc/p.toml:5", "listen[1].port"],
        ["/etc/p.toml:7", "smtp.errors_max"],
        ["/etc/p.toml:9", "dns.tries"],
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a = 1\nb = \n", "/etc/p.toml:2: is no TOML: Invalid value, at column 5"),
        ("a = [1,\n", "/etc/p.toml:1: is no TOML: "),
        ("[smtp\n", "/etc/p.toml:1: is no TOML: "),
        ("a = 1\na = 2\n", "is no TOML: Cannot overwrite a value"),
        ('a = "x\n', "/etc/p.toml:1: is no TOML: "),
    ],
)
def test_what_is_no_toml(text: str, expected: str) -> None:
    assert expected in problems(text)[0]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    file = tmp_path / "p.toml"
    for data, reason in (
        (None, "No such file or directory: write one"),
        (b"a = 1\nb = '\xff'\n", "p.toml:2: is not UTF-8"),
        (b"#" * ((1 << 20) + 1), "is larger than 1 MiB"),
    ):
        if data is not None:
            file.write_bytes(data)
        with pytest.raises(ConfigError, match=reason):
            load(str(file))
    file.write_text(HOST)
    assert load(str(file)).hostname == "mx.whizzer.test"


def test_where_commands_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POSTROOM_CONFIG", raising=False)
    assert default_path() == "/etc/postroom/postroom.toml"
    monkeypatch.setenv("POSTROOM_CONFIG", "/x.toml")
    assert default_path() == "/x.toml"


def test_a_line_that_cannot_be_found_is_zero() -> None:
    assert line_of("a = 1", ("b",)) == 0
    assert line_of("smtp = {a = 1}", ("smtp", "a")) == 1
    assert line_of("[a]\nx=1\n[b]\nx=2", ("b", "x")) == 4


def test_the_effective_whole_reads_back_the_same() -> None:
    text = (
        HOST
        + '[[listen]]\naddress = "127.0.0.1:25"\n[submission.users]\nroot = "betty"\n'
    )
    config = parse(text, "/etc/postroom/postroom.toml")
    assert parse(to_toml(config), "/elsewhere/x.toml") == config


def test_secrets_are_masked() -> None:
    class Remote(msgspec.Struct, frozen=True):
        user: str = "joe"
        password: str = "hush"
        token: str = ""

    assert to_toml(Remote()) == f'user = "joe"\npassword = "{MASK}"\ntoken = ""\n'
    assert "hush" in to_toml(Remote(), masked=False)


def test_addresses() -> None:
    assert split_address("0.0.0.0:25") == ("0.0.0.0", 25)
    assert split_address("[2001:DB8::1]:25") == ("2001:db8::1", 25)
    assert Listen(address="127.0.0.1:1").port == 1
    with pytest.raises(ValueError, match="no address"):
        split_address("[127.0.0.1]:25")


# What stays possible, and what it means, is told in the setting's description; or it
# only costs speed or comfort.
MAY_BE_0 = """
    process.drain_s_max process.bind_timeout process.workers smtp.message_octets_max
    smtp.errors_max smtp.chunk_octets_max smtp.deliverby_min smtp.future_release_max
    smtp.mt_priority_min smtp.mt_priority_max smtp.messages_max tls.session_tickets
    tls.expiry_warning receive.sessions_for_users receive.sessions_per_ipv6_64_max
    receive.sessions_per_ipv6_48_max receive.sessions_per_ipv4_24_max
    receive.greet_pause receive.idle_commands_max receive.session_timeout
    receive.data_rate_min receive.bad_recipients_free receive.bad_recipient_delay
    receive.bad_recipient_delay_max receive.bad_recipients_max policy.slow_after
    policy.dns_lists.reject_at policy.dns_lists.defer_at spool.body_memory_octets_max
    spool.reserve_octets spool.reserve_inodes spool.free_octets_max
    schedule.backoff_jitter_percent schedule.retry.warn_after
    schedule.retry.jitter_percent deliver.reports.returned_octets_max
    deliver.reports.gather outbound.tls_failure_kept outbound.connect_stagger
    outbound.connection_age_max outbound.idle_max outbound.found_kept
    outbound.slot_wait_max submission.drop_warn_after dns.cache_entries_max
    dns.cache_octets_max dns.ttl_max dns.negative_ttl_max dns.failure_ttl
    dns.udp_octets_max pop3.login_failure_delay pop3.login_failure_delay_max
    pop3.login_delay mailbox.lock_timeout mailbox.lock_stale mailbox.memory_octets_max
    auth.failure_delay auth.failure_delay_max auth.tokens.leeway auth.tokens.remember
    auth.tokens.remembered_max auth.threads auth.waiting_max auth.remember
    auth.remembered_max auth.refresh
"""
NOTHING = {int: "0", Duration: '"0s"', Size: '"0B"'}


def numbers(kind: type, path: str = "") -> list[tuple[str, str]]:
    """Return the settings that are numbers, and how each is set to nothing."""
    found = []
    for name, wanted in get_type_hints(kind).items():
        if isinstance(wanted, type) and issubclass(wanted, msgspec.Struct):
            found += numbers(wanted, f"{path}{name}.")
        elif wanted in NOTHING:
            found.append((f"{path}{name}", NOTHING[wanted]))
    return found


def test_no_setting_is_nothing_by_oversight() -> None:
    """A new one is refused with 0 (config/bounds.py), or is added above."""
    accepted = {"process.workers"}  # has a default of its own
    for path, nothing in numbers(Config):
        section, _, name = path.rpartition(".")
        try:
            parse(f"{HOST}[{section}]\n{name} = {nothing}\n", "/x")
        except ConfigError:
            continue
        accepted.add(path)
    assert accepted == set(MAY_BE_0.split())
