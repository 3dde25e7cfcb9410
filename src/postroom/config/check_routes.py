"""Checks aliases and routes: their files, who postmaster is, and where aliases lead."""

import os
import pwd
from collections.abc import Awaitable, Iterator
from contextlib import suppress

from postroom.auth.file import UsersError, read_users
from postroom.config.check_files import unsafe_file
from postroom.config.findings import Findings, problem, warning
from postroom.config.settings import Config
from postroom.dns.own import OwnNames
from postroom.mail.address import Address
from postroom.route.drive import Facts, Waiting, answer_now
from postroom.route.expansion import Expansion
from postroom.route.facts import RouteFacts, Sources
from postroom.route.questions import (
    ALIASES,
    ROUTES,
    Answer,
    Found,
    NotFound,
    Question,
    ReadInclude,
)
from postroom.route.router import Router
from postroom.route.ways import check_way
from postroom.tables.aliases import Targets, alias_file
from postroom.tables.include import Included, Unreadable, Unusable, read_include
from postroom.tables.table import TableFile
from postroom.tables.text import text_table

ALIASES_FOLLOWED_MAX = 10_000
FINDINGS_MAX = 20

AnyFile = TableFile[Targets] | TableFile[str]


def route_findings(config: Config) -> Findings:
    """Read the tables as the server would and follow what they say."""
    try:
        names = [config.hostname, *config.route.own_hosts]
        own = OwnNames.of(names, (one.ip for one in config.listen))
        router = Router(config.route, config.hostname, own)
    except ValueError as error:
        yield problem(f"route: {error}")
        return
    tables = _tables(config)
    for name, table in tables.items():
        yield from unsafe_file(table.path)
        for found in table.reload():
            make = problem if found.refused else warning
            yield make(f"route.{name}: {found.to_text()}")
    try:
        users = frozenset(read_users(config.users_file))
    except UsersError:
        users = frozenset()
    known = RouteFacts(Sources(tables=tables, user_exists=users.__contains__))
    facts = _Facts(known, config)
    nowhere = answer_now(router.postmaster_problem(), facts)
    if isinstance(nowhere, str) and nowhere:
        yield problem(f"route: {nowhere}")
    elif isinstance(nowhere, Waiting):
        nowhere.close()
    yield from _dead_ends(config, router, facts, tables)


class _Facts:
    """Answers at once, for lists in files, too: a check may wait for the disk."""

    def __init__(self, facts: Facts, config: Config) -> None:
        self._facts = facts
        self._settings = config.tables
        self._owners = {0, os.geteuid()}
        with suppress(KeyError):
            self._owners.add(pwd.getpwnam(config.process.user).pw_uid)

    def get(self, question: Question) -> Answer | Awaitable[Answer]:
        if isinstance(question, ReadInclude):
            return self._list(question.path)
        return self._facts.get(question)

    def _list(self, path: str) -> Answer:
        match read_include(path, self._settings, self._owners):
            case Included(targets):
                return Found(targets)
            case Unusable(reason) | Unreadable(reason):
                return NotFound(reason)


def _tables(config: Config) -> dict[str, AnyFile]:
    found: dict[str, AnyFile] = {}
    if config.route.aliases:
        includes = config.route.includes
        found[ALIASES] = alias_file(
            config.route.aliases, config.tables, includes=includes
        )
    if config.route.routes:
        found[ROUTES] = text_table(config.route.routes, config.tables, check_way)
    return found


def _dead_ends(
    config: Config, router: Router, facts: Facts, tables: dict[str, AnyFile]
) -> Findings:
    """Follow every alias, and say which lead to nobody or in circles."""
    said: set[str] = set()
    for text in _expansion_problems(config, router, facts, tables):
        if text in said:
            continue
        if len(said) == FINDINGS_MAX:
            yield warning("route.aliases: and more; mend these first")
            return
        said.add(text)
        yield warning(f"route.aliases: {text}")


def _expansion_problems(
    config: Config, router: Router, facts: Facts, tables: dict[str, AnyFile]
) -> Iterator[str]:
    names = list(tables[ALIASES].version.entries) if ALIASES in tables else []
    for name in names[:ALIASES_FOLLOWED_MAX]:
        asking = router.walk(Address(name, config.hostname)).chunk()
        expansion = answer_now(asking, facts)
        if isinstance(expansion, Waiting):
            expansion.close()
        elif isinstance(expansion, Expansion):
            for found in expansion.problems:
                yield f"{found.alias}: {found.target}: {found.text}"
