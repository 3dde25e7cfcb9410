"""``postroom check`` of the listeners: what cannot work there, and what is unsafe."""

import os
import re
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

from postroom.config.findings import Finding, Findings, problem, warning
from postroom.config.settings import Config, Listen
from postroom.policy.session import parse_network

_UNPRIVILEGED_PORTS = "/proc/sys/net/ipv4/ip_unprivileged_port_start"
_OWN_RIGHTS = "/proc/self/status"
_CAP_NET_BIND_SERVICE = 10

_SMTP_PORT, _SUBMISSIONS_PORT = 25, 465
_WIDEST_V4, _WIDEST_V6 = 8, 16
"""Networks larger than any that one site has (as 10.0.0.0/8)."""


def listen_findings(config: Config) -> Findings:
    """Check every ``[[listen]]``."""
    if not config.listen:
        yield warning(
            "listen: nothing listens; only the sendmail command takes mail: add "
            '[[listen]] with address = "0.0.0.0:25" and service = "smtp"'
        )
    lowest = 0 if _may_bind_low() else _lowest_port()
    seen: set[tuple[str, int]] = set()
    for one in config.listen:
        if (one.ip, one.port) in seen:
            yield problem(f"listen: {one.address} is there twice")
        elif one.port in {port for ip, port in seen if _is_all(ip, one.ip)}:
            yield problem(
                f"listen: {one.address}: another [[listen]] has all addresses at port "
                f"{one.port}: take one of them out"
            )
        seen.add((one.ip, one.port))
        if one.port < lowest and os.geteuid() != 0:
            yield warning(
                f"listen: {one.address} needs root: ports below {lowest} are reserved "
                "(or give the program CAP_NET_BIND_SERVICE)"
            )
        yield from _use_findings(one)
        is_clear = config.tls_of(one) != "implicit"
        if one.service == "pop3" and is_clear and not ip_address(one.ip).is_loopback:
            yield _pop3_finding(config, one.address)
    yield from _believed_findings(config)


def _believed_findings(config: Config) -> Iterator[Finding]:
    """Warn where strangers may say who they are, and are believed."""
    believed = [("smtp.xclient_networks", config.smtp.xclient_networks)]
    if any(one.proxy for one in config.listen):
        believed.append(("proxy.networks", config.proxy.networks))
    for name, networks in believed:
        for network in map(parse_network, networks):
            widest = _WIDEST_V4 if network.version == 4 else _WIDEST_V6
            if network.prefixlen < widest:
                yield warning(
                    f'{name}: "{network}" is more than any one network: strangers may '
                    "say that they are anybody, such as one who may relay: name your "
                    "proxies alone"
                )


def _is_all(one: str, other: str) -> bool:
    """Whether one of two addresses of a kind stands for all of that kind."""
    first, second = ip_address(one), ip_address(other)
    is_all = first.is_unspecified or second.is_unspecified
    return is_all and first.version == second.version


def _pop3_finding(config: Config, address: str) -> Finding:
    if config.pop3.plaintext == "always":
        return warning(
            f"pop3.plaintext: passwords cross the network readable at {address}: use "
            '"loopback" unless the network is trusted'
        )
    return warning(
        f'pop3.plaintext: is "{config.pop3.plaintext}", so nobody from another machine '
        f"can log in at {address} without TLS"
    )


def _use_findings(listen: Listen) -> Iterator[Finding]:
    """Say where a port is not used as the rest of the world uses it."""
    where, port = listen.address, listen.port
    if port == _SMTP_PORT and listen.service == "lmtp":
        yield problem(  # RFC 2033 §5
            f"listen: {where}: LMTP must not be served on port 25, where others expect "
            "SMTP: take another port, such as 24"
        )
    ip = ip_address(listen.ip)
    if listen.service == "lmtp" and (ip.is_unspecified or ip.is_global):
        yield warning(
            f"listen: {where}: LMTP clients are not asked who they are, and nothing "
            "slows them down: listen on this machine, or in a network of your own"
        )
    if port == _SMTP_PORT and listen.service == "submission":
        yield warning(
            f"listen: {where}: other hosts cannot deliver mail to a submission "
            'service: on port 25 write service = "smtp"'
        )
    if port == _SMTP_PORT and listen.service == "smtp":
        yield from _public_findings(listen)
    if port == _SUBMISSIONS_PORT and listen.tls not in ("implicit", "auto"):
        yield warning(  # RFC 8314 §3.3
            f"listen: {where}: on port 465 clients begin with TLS: write "
            'tls = "implicit"'
        )
    if listen.service == "submission":
        yield from _submission_findings(listen)


def _public_findings(listen: Listen) -> Iterator[Finding]:
    where = listen.address
    if listen.login == "required":
        yield warning(
            f"listen: {where}: other hosts do not log in, so they cannot deliver mail "
            'here: write login = "off", and take a submission service for users'
        )
    if listen.tls == "required":
        yield warning(  # RFC 3207 §4
            f"listen: {where}: other hosts that have no TLS cannot deliver mail here: "
            'a public server offers it (tls = "starttls") and insists on nothing'
        )
    if listen.tls == "implicit":
        yield warning(
            f"listen: {where}: on port 25 other hosts begin without TLS: write "
            'tls = "starttls"'
        )


def _submission_findings(listen: Listen) -> Iterator[Finding]:
    where = listen.address
    if listen.login == "off":
        yield warning(
            f"listen: {where}: users are not asked who they are: anybody in "
            "policy.relay_networks may send in any name"
        )


def _may_bind_low() -> bool:
    """Whether this process was given the right, as the server may be."""
    try:
        found = re.search(r"^CapEff:\s*(\w+)$", Path(_OWN_RIGHTS).read_text(), re.M)
    except OSError:
        return False
    return found is not None and bool(int(found[1], 16) >> _CAP_NET_BIND_SERVICE & 1)


def _lowest_port() -> int:
    """Return the lowest port that anyone may listen on."""
    try:
        return int(Path(_UNPRIVILEGED_PORTS).read_text())
    except (OSError, ValueError):
        return 1024
