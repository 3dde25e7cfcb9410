"""Builds a generation: everything that a configuration says, made ready and joined.

What cannot be built raises ``ValueError`` with a sentence for a person; nothing of it
stays behind, and the generation in force goes on.
"""

import asyncio
import weakref
from collections.abc import Callable
from concurrent.futures import Executor
from operator import attrgetter
from typing import NamedTuple

import msgspec

from postroom.agents.agent import Agent
from postroom.agents.discard import DiscardAgent
from postroom.agents.lmtp import lmtp_agent
from postroom.agents.mailbox import MailboxAgent
from postroom.agents.smtp import Links, SmtpAgent
from postroom.auth.users import Users
from postroom.config.settings import SMTP_SERVICES, Config, Listen
from postroom.dns.own import OwnNames
from postroom.dns.resolver import Resolver
from postroom.limits.shared import SharedCounters
from postroom.mail.address import Address
from postroom.mail.now import Now
from postroom.mailbox.name import MailboxName
from postroom.mailbox.store import Store
from postroom.net.addresses import own_addresses
from postroom.net.keys import NO_KEYS, Keys, ServerTls
from postroom.observe.events import AnyEvent
from postroom.policy.builtin import Guards, SharedLimiter
from postroom.policy.chain import Chain
from postroom.policy.inspection import Inspector
from postroom.policy.loader import Site, SiteError, load_site
from postroom.route.drive import Waiting, answer_now
from postroom.route.facts import RouteFacts, Sources
from postroom.route.questions import ALIASES, ROUTES, SENDERS
from postroom.route.router import Router
from postroom.route.routing import LocalUser
from postroom.route.ways import check_way
from postroom.services.entrance import Entrance
from postroom.services.face import Face, Kind, Login, Tls
from postroom.services.generation import Generation, Tenancy
from postroom.services.user_rules import user_rules
from postroom.tables.aliases import Targets, alias_file
from postroom.tables.include import Includes
from postroom.tables.table import TableFile
from postroom.tables.text import text_table

_UNSPECIFIED = frozenset({"0.0.0.0", "::"})  # noqa: S104 - nothing is bound here
_UNCHANGEABLE = (
    "hostname",
    "spool",
    "schedule",
    "deliver",
    "mailbox",
    "auth",
    "users_file",
    "history",
    "receive.transaction_memory_max",
    "pop3.loss_timeout",
)


class Ground(NamedTuple):
    """What generations are built on and share."""

    store: Store
    pool: Executor
    users: Users
    counters: SharedCounters
    emit: Callable[[AnyEvent], None]
    clock: Callable[[], Now]
    window: Callable[[str], int]
    bind: Callable[[str, str], None]


class Built(NamedTuple):
    """A generation with what it holds open."""

    config: Config
    generation: Generation
    resolver: Resolver
    own: OwnNames
    aliases: TableFile[Targets] | None
    routes: TableFile[str] | None
    senders: TableFile[str] | None
    site: Site | None

    @property
    def tables(self) -> "tuple[TableFile[Targets] | TableFile[str] | None, ...]":
        """All files that are read anew when they change."""
        return self.aliases, self.routes, self.senders

    async def aclose(self) -> None:
        """Let go of what only this generation used, once it is out of force."""
        for agent in self.generation.agents.values():
            await agent.aclose()
        await self.resolver.aclose()
        self.generation.chain.close()
        if self.site is not None:
            self.site.forget()


async def retire(built: Built) -> None:
    """Close a generation that is out of force, once nobody works with it any more.

    Nobody else may keep ``built`` itself. When cancelled it closes at once.
    """
    loop, vacant = asyncio.get_running_loop(), asyncio.Event()
    if built.generation.tenancy is None:
        vacant.set()
    else:
        # Whoever works with it holds it, and thereby this; no count can go wrong.
        weakref.finalize(built.generation.tenancy, _tell, loop, vacant).atexit = False
    kept = built._replace(generation=built.generation._replace(tenancy=None))
    del built
    try:
        await vacant.wait()
    finally:
        await kept.aclose()


def _tell(loop: asyncio.AbstractEventLoop, vacant: asyncio.Event) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(vacant.set)


def build(
    number: int,
    config: Config,
    ground: Ground,
    before: Built | None,
    keys: Keys = NO_KEYS,
) -> Built:
    """Build a generation. Reads files, so it is to be called in a thread.

    Args:
        number: the generation's number, not used before in this process.
        config: the configuration.
        ground: what all generations share.
        before: the generation in force, whose tables go on if their files are the
            same: a table whose new version has an error keeps its old one.
        keys: the certificates and keys that the configuration names.

    Raises:
        ValueError: the configuration cannot be put in force; the message says why.
    """
    own = _own(config)
    resolver = Resolver(config.dns, ground.clock)
    aliases, routes, senders = _tables(config, ground, before)
    router = Router(config.route, config.hostname, own)
    tables = {ALIASES: aliases, ROUTES: routes, SENDERS: senders}
    sources = Sources(
        tables={name: table for name, table in tables.items() if table is not None},
        user_exists=ground.users.exists,
        resolver=resolver,
        read_include=Includes(config.tables).read if config.route.includes else None,
    )
    facts = RouteFacts(sources)
    site = _site(config, number)
    guards = Guards(
        config.policy,
        config.smtp.message_octets_max,
        SharedLimiter(ground.counters, ground.clock),
    )
    hooks = (*guards.hooks(), *(site.hooks if site else ()))
    generation = Generation(
        number=number,
        hostname=config.hostname,
        server=config.smtp,
        receive=config.receive,
        chain=Chain(hooks, config.policy, ground.emit, ground.clock),
        router=router,
        facts=facts,
        agents=_agents(config, ground, router, facts, resolver, own),
        tenancy=Tenancy(),
        faces={
            listen.label: _face(config, listen)
            for listen in config.listen
            if listen.service in SMTP_SERVICES
        },
        user_rules=user_rules(config.submission),
        inspector=_inspector(config, ground, resolver, own),
        entrances={
            listen.label: Entrance(
                listen.service,
                is_encrypted=config.tls_of(listen) == "implicit",
                proxy=config.proxy if listen.proxy else None,
            )
            for listen in config.listen
        },
        tls=_tls(config, before, keys),
    )
    return Built(config, generation, resolver, own, aliases, routes, senders, site)


def _tables(
    config: Config, ground: Ground, before: Built | None
) -> tuple[TableFile[Targets] | None, TableFile[str] | None, TableFile[str] | None]:
    """Return aliases, routes and senders as their files are now."""
    aliases = _aliases(config, before)
    routes = _routes(config, before)
    senders = _senders(config, before)
    for table in (aliases, routes, senders):
        for problem in table.reload() if table else ():
            ground.emit(problem.to_event(ground.clock().utc_us))
    return aliases, routes, senders


def _inspector(
    config: Config, ground: Ground, resolver: Resolver, own: OwnNames
) -> Inspector | None:
    """Return who finds out about clients; None if nothing is asked about them."""
    if not config.policy.inspects:
        return None
    return Inspector(config.policy, resolver, own, ground.emit, ground.clock)


def _agents(
    config: Config,
    ground: Ground,
    router: Router,
    facts: RouteFacts,
    resolver: Resolver,
    own: OwnNames,
) -> dict[str, Agent]:
    def which(address: Address) -> MailboxName:
        """Say whose mailbox an address is: the user's, without the detail."""
        routing = answer_now(router.classify_user(address), facts)
        user = address.local
        if isinstance(routing, LocalUser):
            user = routing.user
        elif isinstance(routing, Waiting):
            routing.close()
        domain = address.domain_key
        if domain in ("", "localhost") or domain.startswith("["):
            # By these names we are ourselves: as who logs in without a domain.
            domain = config.mailbox.default_domain or config.hostname
        return MailboxName(user.lower(), domain)

    mailboxes = MailboxAgent(
        ground.store,
        config.mailbox,
        ground.pool,
        started_us=ground.clock().utc_us,
        which=which,
        hostname=config.hostname,
    )
    return {
        "mailbox": mailboxes,
        "discard": DiscardAgent(),
        "smtp": SmtpAgent(
            config.outbound, resolver, config.hostname, own, _links(config, ground)
        ),
        "lmtp": lmtp_agent(
            config.outbound, resolver, config.hostname, _links(config, ground)
        ),
    }


def _face(config: Config, listen: Listen) -> Face:
    kind = Kind(listen.service)
    tls = Tls(config.tls_of(listen))
    if listen.login == "auto":
        login = Login.REQUIRED if kind is Kind.SUBMISSION else Login.OFF
    else:
        login = Login(listen.login)
    mechanisms = () if login is Login.OFF else config.auth.mechanisms
    server = msgspec.structs.replace(
        config.smtp,
        starttls=tls in (Tls.STARTTLS, Tls.REQUIRED),
        auth_mechanisms=mechanisms,
    )
    return Face(server, kind, tls, login)


def _tls(config: Config, before: Built | None, keys: Keys) -> ServerTls | None:
    if not config.tls.is_available:
        return None
    kept = before.generation.tls if before else None
    if kept and kept.settings == config.tls and kept.keys == keys:
        return kept  # with the tickets by which clients resume their sessions
    return ServerTls(config.tls, keys)


def _links(config: Config, ground: Ground) -> Links:
    return Links(
        window=ground.window,
        bind=ground.bind,
        counters=ground.counters,
        client=config.client,
        seed=ground.clock().utc_us,
        emit=ground.emit,
    )


def _own(config: Config) -> OwnNames:
    """Return who we are: our names, and the addresses that we take mail on.

    Who connects to the unspecified address reaches this machine, so a domain that
    names it for its mail names us.
    """
    smtp = [listen for listen in config.listen if listen.service in SMTP_SERVICES]
    addresses = {listen.ip for listen in smtp}
    everywhere = not _UNSPECIFIED.isdisjoint(addresses)
    if everywhere:
        addresses |= own_addresses()
    ports = {listen.port for listen in smtp}
    return OwnNames.of(
        [config.hostname, *config.route.own_hosts],
        addresses | _UNSPECIFIED,
        ports,
        everywhere=everywhere,
    )


def _aliases(config: Config, before: Built | None) -> TableFile[Targets] | None:
    path = config.route.aliases
    kept = before.aliases if before else None
    if before and kept and (kept.path, before.config.tables) == (path, config.tables):
        return kept
    includes = config.route.includes
    return alias_file(path, config.tables, includes=includes) if path else None


def _routes(config: Config, before: Built | None) -> TableFile[str] | None:
    path = config.route.routes
    kept = before.routes if before else None
    if before and kept and (kept.path, before.config.tables) == (path, config.tables):
        return kept
    return text_table(path, config.tables, check_way) if path else None


def _senders(config: Config, before: Built | None) -> TableFile[str] | None:
    path = config.submission.senders
    kept = before.senders if before else None
    if before and kept and (kept.path, before.config.tables) == (path, config.tables):
        return kept
    return text_table(path, config.tables) if path else None


def _site(config: Config, number: int) -> Site | None:
    if not config.policy.module:
        return None
    try:
        return load_site(config.policy.module, number)
    except SiteError as error:
        raise ValueError(str(error)) from error


def unchangeable(before: Config, after: Config) -> list[str]:
    """Name the settings that differ and that only a restart can change."""
    return [
        part
        for part in _UNCHANGEABLE
        if attrgetter(part)(before) != attrgetter(part)(after)
    ]
