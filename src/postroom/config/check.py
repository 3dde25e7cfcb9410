"""``postroom check``: everything that is wrong, unsafe or probably not meant.

Nothing is changed, started or asked of the network; files are read as whoever runs
the check.
"""

import grp
import os
import pwd

import msgspec

from postroom.config.check_files import (
    directory_findings,
    reading_findings,
    site_findings,
    unsafe_file,
    users_findings,
)
from postroom.config.check_limits import limit_findings
from postroom.config.check_listen import listen_findings
from postroom.config.check_logins import login_findings
from postroom.config.check_outbound import outbound_findings
from postroom.config.check_routes import route_findings
from postroom.config.check_tls import tls_findings
from postroom.config.findings import Finding, Findings, problem, warning
from postroom.config.load import load
from postroom.config.problems import ConfigError
from postroom.config.render import to_toml
from postroom.config.settings import Config
from postroom.mail.units import Size
from postroom.policy.session import parse_network

# Networks larger than these hold strangers.
_WIDEST_V4, _WIDEST_V6 = 8, 19


class CheckReport(msgspec.Struct, frozen=True):
    """What the check found; ``ok`` if there is no problem.

    ``effective_toml`` is the whole configuration with defaults, empty if the file
    cannot be read.
    """

    ok: bool
    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    effective_toml: str


def run_check(path: str) -> CheckReport:
    """Check a configuration file and all that it names."""
    try:
        config = load(path)
    except ConfigError as error:
        return CheckReport(False, tuple(str(error).splitlines()), (), "")
    found = [
        *unsafe_file(path),
        *_process_findings(config),
        *_name_findings(config),
        *listen_findings(config),
        *_relay_findings(config),
        *_mailbox_findings(config),
        *limit_findings(config),
        *_space_findings(config),
        *directory_findings(config),
        *reading_findings(config),
        *site_findings(config),
        *tls_findings(config),
        *users_findings(config),
        *login_findings(config),
        *route_findings(config),
        *outbound_findings(config),
    ]
    problems, warnings = (_texts(found, kind) for kind in ("problem", "warning"))
    return CheckReport(not problems, problems, warnings, to_toml(config))


def _texts(found: list[Finding], kind: str) -> tuple[str, ...]:
    """What several parts look at may be found twice, and is told once."""
    return tuple(dict.fromkeys(one.text for one in found if one.kind == kind))


def _process_findings(config: Config) -> Findings:
    yield from _group_findings(config)
    user = config.process.user
    if not user:
        if os.geteuid() == 0:
            yield problem(
                "process.user: started as root the server refuses to run without a "
                'user: make one ("adduser --system --group postroom") and name it'
            )
        return
    try:
        found = pwd.getpwnam(user)
    except KeyError:
        yield problem(
            f'process.user: there is no system user "{user}": make it '
            f'("adduser --system --group {user}") or name another'
        )
        return
    if found.pw_uid == 0:
        yield problem("process.user: mail is never handled as root: name another user")


def _group_findings(config: Config) -> Findings:
    group, operators = config.process.group, config.process.operator_group
    if group and not _is_group(group):
        yield problem(
            f'process.group: there is no group "{group}": make it ("addgroup --system '
            f'{group}") or name another'
        )
    if operators and not _is_group(operators):
        yield warning(
            f'process.operator_group: there is no group "{operators}", so only root '
            "and the server's user can look at the queue and change it"
        )
    elif operators and grp.getgrnam(operators).gr_gid not in _own_groups(config):
        user = config.process.user or "the user that starts the server"
        yield warning(
            f'process.operator_group: {user} is not in the group "{operators}", and '
            "cannot give it the control sockets: its members will be refused. Add it: "
            f"adduser USER {operators}"
        )


def _own_groups(config: Config) -> set[int]:
    """Return the groups of the workers; they have those of their user."""
    user, group = config.process.user, config.process.group
    own = {grp.getgrnam(group).gr_gid} if group and _is_group(group) else set()
    try:
        found = pwd.getpwnam(user) if user else None
    except KeyError:
        return own
    if found is None:
        return own | {os.getegid(), *os.getgroups()}
    return own | set(os.getgrouplist(found.pw_name, found.pw_gid))


def _is_group(name: str) -> bool:
    try:
        grp.getgrnam(name)
    except KeyError:
        return False
    return True


def _name_findings(config: Config) -> Findings:
    if "." not in config.hostname:
        yield warning(
            f'hostname: "{config.hostname}" is not fully qualified; other servers may '
            'refuse it: set hostname = "mail.example.org"'
        )


def _space_findings(config: Config) -> Findings:
    """A log is as large as it may be just when draining needs the last of the disk."""
    spool, workers = config.spool, config.process.workers
    if workers is None:
        workers = len(os.sched_getaffinity(0))
    workers = max(1, workers)
    logs_octets = Size(workers * spool.wal_octets_max)
    if spool.reserve_octets < logs_octets:
        yield warning(
            f"spool.reserve_octets: {spool.reserve_octets.to_text()} is less than the "
            f"logs of {workers} workers may take ({logs_octets.to_text()}): on a full "
            "disk the queue might not drain: set reserve_octets to at least that, or "
            "spool.wal_octets_max lower"
        )


def _relay_findings(config: Config) -> Findings:
    for text in config.policy.relay_networks:
        network = parse_network(text)
        if network.prefixlen == 0:
            yield warning(
                f'policy.relay_networks: "{text}" is everybody: this is an open relay, '
                "which spammers find within hours"
            )
        elif network.prefixlen < (_WIDEST_V4 if network.version == 4 else _WIDEST_V6):
            yield warning(
                f'policy.relay_networks: "{text}" is more than any one network: '
                "strangers may relay"
            )


def _mailbox_findings(config: Config) -> Findings:
    mailbox, domains = config.mailbox, config.route.local_domains
    if "{domain}" not in mailbox.path or mailbox.default_domain or not domains:
        return
    yield warning(
        "mailbox.default_domain: is empty, so who logs in without a domain finds the "
        f'mailbox in "{config.hostname}": set it, for example to "{domains[0]}"'
    )
