"""What is asked of a worker beside mail: by ``sendmail`` and by the control socket."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import overload

import msgspec

from postroom.admin.client import RequestRefused, WorkerGone, ask, find_workers
from postroom.admin.control import Caller, ControlError, Handler
from postroom.admin.listing import MailqForm, mailq_lines
from postroom.admin.queue import Hands, queue_handlers
from postroom.admin.requests import HopNow, Ordered
from postroom.admin.whole import WholeQueue
from postroom.agents.terms import TermsBook
from postroom.app.assembly import Built
from postroom.dns.exchangers import find_exchangers
from postroom.dns.mx import Exchangers
from postroom.mail.address import Address, AddressError
from postroom.mail.envelope import Origin
from postroom.net.clock import read_now, zone_offset_s
from postroom.observe.events import AnyEvent
from postroom.observe.metrics import Metrics
from postroom.observe.traces import Found, Search, Traces
from postroom.policy.chain import Chain
from postroom.policy.hooks import Phase
from postroom.route.drive import drive
from postroom.route.explain import Prospect, explain
from postroom.route.routing import (
    LocalAlias,
    LocalUser,
    Relay,
    RoutingFailed,
    Unroutable,
)
from postroom.services.answer import Answer
from postroom.services.farewell import Undertaker
from postroom.services.line import Line
from postroom.services.queue_run import QueueSelection
from postroom.services.receive import ReceiveService
from postroom.services.reception import Conversation
from postroom.services.submission import (
    EX_DATAERR,
    EX_NOHOST,
    EX_NOUSER,
    EX_OK,
    EX_TEMPFAIL,
)
from postroom.services.submitter import Errands
from postroom.spool.lock import shards_in
from postroom.spool.orders import Farewell
from postroom.spool.selection import QueueFilter
from postroom.spool.spool import Hold, Order, Release, Retry, Spool

_EXIT_CODES = {
    Prospect.FINE: EX_OK,
    Prospect.CANNOT_SAY: EX_TEMPFAIL,
    Prospect.NO_HOST: EX_NOHOST,
    Prospect.UNKNOWN: EX_NOUSER,
}


class Office:
    """Answers for one worker. ``built`` gives the generation in force.

    Args:
        worker: this worker's number.
        run_directory: where the control sockets of all workers are.
        built: returns the generation in force.
        lines: the shards this worker holds, looked at anew for each request.
        receive: runs SMTP sessions, for ``sendmail -bs``.
        metrics: what was counted.
    """

    def __init__(
        self,
        worker: int,
        run_directory: str,
        built: Callable[[], Built],
        lines: Sequence[Line],
        receive: ReceiveService,
        metrics: Metrics,
    ) -> None:
        self._worker = worker
        self._run_directory = run_directory
        self._built = built
        self._lines = lines
        self._receive = receive
        self._metrics = metrics

    def errands(self) -> Errands:
        """What the submission service hands on."""
        return Errands(
            mailq=self.mailq,
            newaliases=self.newaliases,
            run_queue=self.run_queue,
            verify=self.verify,
            converse=self.converse,
        )

    def handlers(self, emit: Callable[[AnyEvent], None]) -> Mapping[str, Handler]:
        """What the control socket answers."""
        shards = _Shards(self._lines)
        hands = Hands(
            clock=read_now,
            emit=emit,
            wake=self._wake,
            farewell=self._farewell,
            hop_now=self._hop_now,
            shards_there=self._shards_there,
            own_uid=os.geteuid(),
        )
        return {
            **queue_handlers(shards, hands),
            "aliases.reload": self._reload_aliases,
            "explain": self._explain,
            "history.find": self._find,
            "status": self._status,
        }

    def _shards_there(self) -> Sequence[int]:
        return shards_in(self._built().config.spool.directory)

    async def mailq(
        self, verbose: bool, user: str, selection: QueueSelection
    ) -> AsyncIterator[str]:
        """Yield the queue of all workers as ``mailq`` prints it."""
        config = self._built().config
        trusted = user in config.submission.trusted_users
        form = MailqForm(
            verbose=verbose,
            user=None if trusted else user,
            spool_directory=config.spool.directory,
            zone_offset_s=zone_offset_s,
            wanted=_wanted(selection),
        )
        # What no worker holds is left out: it would have to be read on this loop.
        async with WholeQueue(self._run_directory, None, read_now) as queue:
            async for line in mailq_lines(queue, form):
                yield line
            for problem in dict.fromkeys(queue.problems):
                yield f"mailq: not all could be listed: {problem}"

    async def newaliases(self) -> Answer:
        """Read the aliases anew, here and in all other workers."""
        aliases = self._built().aliases
        if aliases is None:
            return Answer(("no aliases file is configured (setting route.aliases)",))
        problems = await asyncio.to_thread(aliases.reload)
        lines = [problem.to_text() for problem in problems]
        if any(problem.refused for problem in problems):
            left = "the old aliases stay in force"
            if aliases.fault:
                left = "there are no aliases before them: recipients get 451 till then"
            return Answer((*lines, left), EX_DATAERR)
        left_out = await self._reload_elsewhere()
        lines += [f"{why}: it takes the file a little later" for why in left_out]
        lines.append(aliases.stats_line())
        return Answer(tuple(lines), EX_TEMPFAIL if left_out else EX_OK)

    async def _reload_elsewhere(self) -> list[str]:
        """Have the other workers read the aliases; returns who could not and why."""
        others = find_workers(self._run_directory)
        others.pop(self._worker, None)
        asked = [ask(path, "aliases.reload", {}, bool) for path in others.values()]
        left_out = []
        for answer in await asyncio.gather(*asked, return_exceptions=True):
            match answer:
                case WorkerGone():
                    pass  # the next one reads them when it starts
                case RequestRefused():
                    left_out.append(str(answer))
                case BaseException():
                    raise answer
        return left_out

    async def _reload_aliases(
        self, caller: Caller, arguments: msgspec.Raw
    ) -> AsyncIterator[bool]:
        """Read the aliases anew; whether they were taken."""
        aliases = self._built().aliases
        problems = await asyncio.to_thread(aliases.reload) if aliases else []
        yield not any(problem.refused for problem in problems)

    async def run_queue(self, selection: QueueSelection, user: str) -> Answer:
        """Have waiting messages of all workers tried now, quarantined or let go."""
        if selection.note:
            return Answer((selection.note,))
        order, done = _order(selection)
        if order is None:
            return Answer((done,))
        ordered = Ordered(order, _wanted(selection), user, quarantine=True)
        messages = 0
        async with WholeQueue(self._run_directory, None, read_now) as queue:
            async for page in queue.carry_out(ordered):
                messages += len(page.queue_ids)
            problems = tuple(queue.problems)
        plural = "" if messages == 1 else "s"
        lines = (f"{messages} message{plural} {done}", *problems)
        return Answer(lines, EX_TEMPFAIL if problems else EX_OK)

    async def flush(self, wanted: QueueFilter) -> int:
        """Have what is chosen tried now, in all workers; returns how many messages."""
        messages = 0
        ordered = Ordered(Retry(), wanted, "ETRN")
        async with WholeQueue(self._run_directory, None, read_now) as queue:
            async for page in queue.carry_out(ordered):
                messages += len(page.queue_ids)
        return messages

    async def verify(self, address: Address, verbose: bool) -> Answer:
        """Say where mail for an address would go, as ``sendmail -bv`` does."""
        generation = self._built().generation
        routing = await drive(generation.router.classify(address), generation.facts)
        shown = address.to_text()
        match routing:
            case LocalUser() | Relay():
                return Answer((_deliverable(address, routing),))
            case LocalAlias():
                return await self._verify_alias(address, verbose)
            case RoutingFailed(reason):
                return Answer((f"{shown}... {reason}",), EX_TEMPFAIL)
            case Unroutable(reason) if routing.is_temporary:
                return Answer((f"{shown}... {reason}",), EX_TEMPFAIL)
            case _:
                return Answer((f"{shown}... {routing.reason}",), EX_NOUSER)

    async def converse(self, conversation: Conversation, origin: Origin) -> None:
        """Run an SMTP session for ``sendmail -bs``."""
        await self._receive.converse(conversation, origin)

    async def _verify_alias(self, address: Address, verbose: bool) -> Answer:
        generation = self._built().generation
        walk = generation.router.walk(address)
        lines: list[str] = []
        exit_code = EX_OK
        while True:
            expansion = await drive(walk.chunk(), generation.facts)
            if isinstance(expansion, RoutingFailed):
                return Answer((f"{address}... {expansion.reason}",), EX_TEMPFAIL)
            problems = [f"{one.target}... {one.text}" for one in expansion.problems]
            lines += expansion.told if verbose else problems
            if problems:
                exit_code = EX_NOUSER
            for child in expansion.children:  # not again: it may be its own alias
                lines.append(_deliverable(child.address, child.routing))
                if child.route is None and exit_code == EX_OK:
                    exit_code = EX_TEMPFAIL
            if expansion.cursor is None:
                return Answer(tuple(lines), exit_code)

    async def _explain(
        self, caller: Caller, arguments: msgspec.Raw
    ) -> AsyncIterator[Answer]:
        try:
            asked = msgspec.json.decode(arguments, type=dict[str, str])
            address = Address.from_text(asked.get("address", ""))
        except (AddressError, msgspec.MsgspecError) as error:
            raise ControlError(f"no address: {error}") from error
        yield await explain_address(self._built(), address)

    async def _status(
        self, caller: Caller, arguments: msgspec.Raw
    ) -> AsyncIterator[dict[str, int]]:
        yield {
            **self._metrics.counts,
            "worker": self._worker,
            "generation": self._built().generation.number,
            "active": sum(line.dispatcher.active for line in self._lines),
        }

    async def _find(
        self, caller: Caller, arguments: msgspec.Raw
    ) -> AsyncIterator[Found]:
        try:
            search = msgspec.json.decode(arguments, type=Search)
        except msgspec.MsgspecError as error:
            raise ControlError(f"malformed search: {error}") from error
        traces = Traces(self._built().config.history_directory)
        yield await asyncio.to_thread(traces.find, search)

    def _wake(self, hops: Sequence[str] | None) -> None:
        for line in self._lines:
            line.dispatcher.retry_now(hops)

    def _farewell(self, shard: int, reason: str, by: str) -> Farewell:
        for line in self._lines:
            if line.shop.spool.shard == shard:
                return Undertaker(line.shop, line.reporter, reason, by).report
        raise ControlError(f"shard {shard} is not here any more")

    def _hop_now(self, hop: str) -> HopNow:
        now = read_now()
        scheduler = self._lines[0].scheduler
        rests_us = max(scheduler.resting_until_us(hop) - now.mono_us, 0)
        return HopNow(hop, rests_us, scheduler.window(hop))


def _wanted(selection: QueueSelection) -> QueueFilter:
    states = ("quarantined",) * selection.quarantined + ("shunted",) * selection.shunted
    return QueueFilter(
        id_parts=selection.id_parts,
        senders=selection.senders,
        recipients=selection.recipients,
        errors=selection.reasons,
        states=states,
    )


def _order(selection: QueueSelection) -> tuple[Order | None, str]:
    """Return what is to be done, and what to say of it then, or instead."""
    match selection:
        case QueueSelection(quarantine=None, quarantined=True):
            return None, "what is quarantined is not tried: -qQ -Q lets it go"
        case QueueSelection(quarantine=None):
            return Retry(), "will be tried now"
        case QueueSelection(quarantine="", quarantined=True):
            return Release(), "released"
        case QueueSelection(quarantine=""):
            return None, "-Q without a reason lets go what -qQ chooses"
        case QueueSelection(quarantine=reason):
            return Hold(reason or ""), "quarantined"
    return None, ""


def _deliverable(address: Address, routing: LocalUser | Relay | Unroutable) -> str:
    shown = address.to_text()
    match routing:
        case LocalUser(user):
            return f"{shown}... deliverable: mailer local, user {user}"
        case Relay(route=route):
            mailer = "esmtp" if route.agent == "smtp" else route.agent
            how = f"mailer {mailer}, host {route.hop}, user {shown}"
            return f"{shown}... deliverable: {how}"
        case Unroutable(reason):  # for a while; what is so for ever is a problem
            return f"{shown}... {reason}"


async def explain_address(built: Built, address: Address) -> Answer:
    """Tell where mail for an address would go, and why.

    The exit code is that of ``sendmail -bv``: 67 for an unknown user, 68 for a host
    that cannot be, 75 if a table or the DNS cannot tell now; for an alias the worst of
    what it leads to.
    """
    config = built.config

    async def find_hosts(hop: str) -> Exchangers:
        return await find_exchangers(
            built.resolver,
            hop,
            built.own,
            seed=0,
            order=config.outbound.addresses,
            port=config.outbound.port,
        )

    generation = built.generation
    router, facts = generation.router, generation.facts
    book = TermsBook(config.outbound)

    def tell_terms(hop: str, host: str) -> str:
        terms, by_host = book.of_hop(hop)
        return (book.of_host(hop, host) if host and by_host else terms).told()

    told = await explain(router, facts, address, find_hosts, tell_terms)
    lines = (*told.lines, *_of_policy(generation.chain))
    return Answer(lines, _EXIT_CODES[told.prospect])


def _of_policy(chain: Chain) -> Iterator[str]:
    """Yield what the site's hooks have a say in; what they say is known then only."""
    says: tuple[tuple[Phase, str], ...] = (
        ("rcpt", "may refuse it"),
        ("route", "may choose another way"),
    )
    for phase, what in says:
        names = [one.name for one in chain.hooks(phase) if not one.guard]
        if names:
            yield f"policy: {what}: {', '.join(names)} ({phase})"


class _Shards(Sequence[Spool]):
    """The spools of lines that come and go."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self._lines = lines

    def __len__(self) -> int:
        return len(self._lines)

    @overload
    def __getitem__(self, index: int) -> Spool: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Spool]: ...
    def __getitem__(self, index: int | slice) -> Spool | Sequence[Spool]:
        if isinstance(index, slice):
            return [line.shop.spool for line in self._lines[index]]
        return self._lines[index].shop.spool
