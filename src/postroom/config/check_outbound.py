"""Checks how mail leaves: trust stores, certificates, logins, and what they risk."""

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from postroom.agents.logins import Logins, LoginsError
from postroom.agents.terms import Terms, TermsBook
from postroom.config.check_files import unsafe_file, worker
from postroom.config.findings import Findings, problem, warning
from postroom.config.settings import Config
from postroom.dns.hop_options import read_hop
from postroom.mail.route import Route
from postroom.net.tls_client import (
    TlsDemand,
    TlsFilesError,
    has_system_trust,
    make_context,
)
from postroom.route.routing import Relay
from postroom.route.ways import check_way, read_way
from postroom.tables.text import text_table

ROUTES_MAX = 10_000
"""Routes whose options are looked at."""


class _Said(NamedTuple):
    """Terms, and the setting or route that says them."""

    where: str
    terms: Terms


def outbound_findings(config: Config) -> Findings:
    """Say what is wrong or unsafe in how mail is handed to other hosts."""
    said = list(_all_terms(config))
    yield from _logins_findings(config, said)
    seen: set[TlsDemand] = set()
    for where, terms in said:
        yield from _risks(where, terms)
        demand = TlsDemand(
            terms.tls == "verified",
            terms.ca_file,
            terms.certificate,
            terms.certificate_key,
        )
        if demand not in seen and terms.tls != "off":
            seen.add(demand)
            yield from _files_findings(where, demand)


def _all_terms(config: Config) -> Iterator[_Said]:
    book = TermsBook(config.outbound)
    yield _Said("outbound", book.usual)
    for number, entry in enumerate(config.outbound.destination):
        where = f"outbound.destination[{number}]"
        yield _Said(where, book.of_entry(entry))
    if config.route.smart_host:
        with suppress(ValueError):  # of which the routes' check tells
            hop = read_hop(config.route.smart_host)
            yield _Said("route.smart_host", book.of_hop(hop)[0])
    seen: set[Terms] = set()
    for where, route in _routes(config):
        terms, _ = book.of_hop(route.hop)
        if ";" in route.hop and terms not in seen:  # others are as said above
            seen.add(terms)
            yield _Said(where, terms)


def _routes(config: Config) -> Iterator[tuple[str, Route]]:
    if not config.route.routes:
        return
    table = text_table(config.route.routes, config.tables, check_way)
    table.reload()
    version = table.version
    entries = list(version.entries.items()) if version else []
    for key, value in entries[:ROUTES_MAX]:
        way = read_way(key.lstrip(".*") or "any.invalid", value, "")
        if isinstance(way, Relay) and way.route.agent in ("smtp", "lmtp"):
            yield f"route.routes: {key}", way.route


def _risks(where: str, terms: Terms) -> Findings:
    if not terms.login:
        return
    if terms.auth_in_clear and terms.tls != "verified":
        yield warning(
            f"{where}: auth_in_clear sends the password of login {terms.login} "
            'readable over the network: write tls = "verified" and take it out'
        )
    elif terms.tls != "verified":
        yield warning(
            f"{where}: login {terms.login} is used with tls = "
            f'"{terms.tls}": whoever stands in between can get the password: write '
            'tls = "verified"'
        )


def _files_findings(where: str, demand: TlsDemand) -> Findings:
    if demand.verify and not demand.ca_file and not has_system_trust():
        yield warning(
            f'{where}: tls is "verified", but this system trusts nobody: install '
            "ca-certificates or set ca_file"
        )
    try:
        make_context(demand)
    except TlsFilesError as error:
        yield problem(f"{where}: {error}")
        return
    if demand.ca_file:
        yield from unsafe_file(demand.ca_file)
    key = demand.key or demand.certificate
    if key and os.stat(key).st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        yield warning(
            f"{where}: {key} holds a private key and others may read or change it: "
            f"chmod 600 {key}"
        )


def _logins_findings(config: Config, said: list[_Said]) -> Findings:
    path = config.outbound.logins_file
    wanted = [one for one in said if one.terms.login]
    if not path:
        for where, terms in wanted:
            yield problem(
                f"{where}: login {terms.login} is named, but no outbound.logins_file"
            )
        return
    who = worker(config)
    owner = os.geteuid() if who is None else who[0]
    logins = Logins(path, owners=frozenset({0, owner}))
    try:
        names = logins.names()
        if who is not None and os.stat(path).st_uid != owner:
            yield problem(
                f"outbound.logins_file: {path} cannot be read by "
                f"{config.process.user}: chown {config.process.user} {path}"
            )
    except LoginsError as error:
        yield problem(f"outbound.logins_file: {error}")
        return
    for where, terms in wanted:
        if terms.login not in names:
            yield problem(f"{where}: {path} has no login {terms.login}")
            continue
        try:
            logins.find(terms.login)
        except LoginsError as error:
            yield problem(f"{where}: {error}")
