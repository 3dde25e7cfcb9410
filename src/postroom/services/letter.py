"""One letter that a local program hands in: read, understood, completed and kept.

Every recipient that cannot be had is named to the caller at once, and the exit code
says so; the letter goes to the others. What is handed in is read to its end even if
nobody can have it, so that the writing program is not cut off. The caller is told that
all went well only after the letter is durable.
"""

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

from postroom.mail.address import Address
from postroom.mail.address_list import AddressList, parse_address_list
from postroom.mail.completion import Author, complete_header, header_recipients
from postroom.mail.envelope import Envelope, Origin, Recipient
from postroom.mail.headers import split_message
from postroom.mail.ids import QueueId
from postroom.mail.local_text import LocalText
from postroom.mail.now import Now
from postroom.mail.trace import date_text
from postroom.services.narration import Narration
from postroom.services.people import Person
from postroom.services.settings import SubmissionSettings
from postroom.services.submission import (
    EX_DATAERR,
    EX_OK,
    EX_TEMPFAIL,
    Invocation,
    UsageError,
    exit_code_of,
    parse_mailbox,
    parse_sender,
)
from postroom.services.submitter import Draft, Refused, Submitted, Submitter

# The name of a field, perhaps blanks, a colon: as ``mail.headers`` reads whole ones.
_FIELD_BEGINS = re.compile(rb"[!-9;-~]+[ \t]*:")


class Hand(Protocol):
    """Where a letter comes from, and where to say what happened to it."""

    async def read(self) -> bytes:
        """Return the next piece of input, ``b""`` at its end."""

    def out(self, *lines: str) -> None:
        """Show some lines."""

    async def drain(self) -> None:
        """Wait until most was shown."""

    async def gone(self) -> None:
        """Return when nobody watches any more."""


class Desk(NamedTuple):
    """What is needed to take letters."""

    settings: SubmissionSettings
    domain: str
    submitter: Submitter
    clock: Callable[[], Now]
    zone_offset_s: Callable[[int], int]


def own_address(desk: Desk, person: Person) -> Address:
    """Return the address that a user of this machine sends from."""
    account = desk.settings.users.get(person.login, person.login)
    if "@" in account:
        return parse_sender(account, desk.domain)
    return Address(account, desk.domain)


class Letter:
    """One call of ``sendmail`` that hands in a letter.

    Args:
        desk: where it is handed in.
        person: who does.
        invocation: how the program was called.
        hand: the other end.
        may_come_again: the whole call will be repeated if the exit code is 75, so
            nobody is sent the letter as long as some recipient has to wait.
    """

    def __init__(
        self,
        desk: Desk,
        person: Person,
        invocation: Invocation,
        hand: Hand,
        *,
        may_come_again: bool = False,
    ) -> None:
        self._desk = desk
        self._person = person
        self._invocation = invocation
        self._hand = hand
        self._may_come_again = may_come_again
        self._text = LocalText(dot_ends=invocation.dot_ends)
        self._at_end = False
        self._exit_code = EX_OK
        self._narration = Narration()
        self._shown: dict[str, str] = {}

    async def submit(self) -> int:
        """Take the letter; returns the exit code.

        Raises:
            UsageError: the call makes no sense; nothing was kept.
            StreamError: the caller has gone before the end; nothing was kept.
        """
        invocation = self._invocation
        author = self._author()
        named: dict[Address, str] = {}
        if not invocation.from_header:  # with -t only the header counts
            named = self._listed(parse_address_list(", ".join(invocation.recipients)))
            if not named:  # no argument, an empty one, or an empty group
                raise UsageError("Recipient names must be specified")
        header, rest = await self._read_header()
        if invocation.from_header:
            named = self._listed(header_recipients(header))
            if not named:
                await self._read_out()
                raise UsageError("No recipient addresses found in header")
        draft = await self._desk.submitter.begin(self._envelope(author, named))
        if isinstance(draft, Refused):
            await self._read_out()
            self._refused(author.address.to_text() or "<>", draft)
            return self._exit_code
        try:
            submitted = await self._fill(draft, named, author, (header, rest))
        finally:
            await draft.abandon()
        if submitted is not None and self._invocation.verbose:
            await self._tell(submitted)
        return self._exit_code

    # Who

    def _author(self) -> Author:
        desk, person, invocation = self._desk, self._person, self._invocation
        own = own_address(desk, person)
        address, warning = own, ""
        if invocation.sender is not None:
            address = parse_sender(invocation.sender, desk.domain)
            if address != own and person.login not in desk.settings.trusted_users:
                shown = address.to_text() or "<>"
                warning = (
                    f"{desk.domain}: {person.login} set sender to {shown} using -f"
                )
        name = person.full_name if address == own else ""
        return Author(address, invocation.full_name, desk.domain, warning, name)

    def _listed(self, found: AddressList) -> dict[Address, str]:
        """Return the addresses, each once, with the text they were given as."""
        if found.problem:
            raise UsageError(f"Cannot read the recipients: {found.problem}")
        named: dict[Address, str] = {}
        for mailbox in found.mailboxes:
            address = parse_mailbox(mailbox, self._desk.domain)
            named.setdefault(address, mailbox.text)
        return named

    def _envelope(self, author: Author, named: Iterable[Address]) -> Envelope:
        invocation = self._invocation
        is_ascii = author.address.is_ascii and all(a.is_ascii for a in named)
        return Envelope(
            sender=author.address,
            origin=Origin(
                protocol="local", login=self._person.login, listener="submit"
            ),
            body=invocation.body,
            smtputf8=invocation.smtputf8 or not is_ascii,
            ret=invocation.ret,
            envid=invocation.envid,
            arrival_us=self._desk.clock().utc_us,
        )

    # What

    async def _read_header(self) -> tuple[bytes, bytes]:
        """Return the header block and what was already read of the body."""
        most = self._desk.settings.header_octets_max
        read, searched = bytearray(), 0
        while read.find(b"\r\n\r\n", searched) < 0 and len(read) <= most:
            searched = max(0, len(read) - 3)
            piece = await self._read()
            if not piece:
                break
            read += piece
        content = bytes(read)
        if content.startswith(b"From "):  # the line that mailbox files have in front
            content = content[content.find(b"\r\n") + 2 :]
        header, rest, _ = split_message(content)
        if len(header) > most or (len(content) > most and _goes_on(header, rest)):
            await self._read_out()
            raise UsageError(f"Header is longer than {most} octets", EX_DATAERR)
        return header, rest

    async def _read(self) -> bytes:
        """Return the next piece of canonical text, ``b""`` only at the end."""
        while not self._at_end:
            data = await self._hand.read()
            if data:
                text = self._text.feed(data)
                self._at_end = self._text.ended
            else:
                text, self._at_end = self._text.finish(), True
            if text:
                return text
        return b""

    async def _read_out(self) -> None:
        while await self._read():
            pass

    # Where to

    async def _fill(
        self,
        draft: Draft,
        named: dict[Address, str],
        author: Author,
        content: tuple[bytes, bytes],
    ) -> Submitted | None:
        header, rest = content
        taken = 0
        self._shown = {address.to_text(): shown for address, shown in named.items()}
        for address, shown in named.items():
            recipient = Recipient(address, self._invocation.notify)
            refused = await draft.add_recipient(recipient)
            if refused is None:
                taken += 1
            else:
                # By SMTP a refusal repeats the address; here it stands in front.
                text = refused.text.removeprefix(f"<{address.to_text()}>... ")
                self._refused(shown, Refused(refused.status, text))
                if self._may_come_again and refused.status.startswith("4"):
                    self._exit_code = EX_TEMPFAIL
                    return None
        if not taken:
            await self._read_out()
            return None
        queue_id = await draft.open()
        whole = self._completed(header, author, queue_id)
        await draft.add(whole + b"\r\n" + rest)
        while piece := await self._read():
            await draft.add(piece)
        wants_told = self._invocation.verbose and not self._invocation.queue_only
        result = await draft.finish(self._say if wants_told else None)
        if isinstance(result, Refused):
            self._refused("", result)
            self._exit_code = exit_code_of(result.status)  # it concerns them all
            return None
        return result

    async def _tell(self, submitted: Submitted) -> None:
        if submitted.finished is None:
            self._hand.out(f"{submitted.queue_id}... queued")
        else:
            await self._narration.tell(self._hand, submitted.finished)

    def _say(self, line: str) -> None:
        """Narrate a line, naming recipients as the caller did, local ones bare."""
        address, dots, rest = line.partition("... ")
        own = f"@{self._desk.domain}"
        shown = self._shown.get(address, address.removesuffix(own))
        self._narration.say(f"{shown}{dots}{rest}")

    def _completed(self, header: bytes, author: Author, queue_id: QueueId) -> bytes:
        now = self._desk.clock()
        stamp = now.utc().strftime("%Y%m%d%H%M")
        return complete_header(
            header,
            author,
            date=date_text(now.utc_us, self._desk.zone_offset_s(now.utc_us)),
            message_id=f"<{stamp}.{queue_id}@{self._desk.domain}>",
        )

    def _refused(self, shown: str, refused: Refused) -> None:
        self._exit_code = self._exit_code or exit_code_of(refused.status)
        if not self._invocation.quiet:
            text = refused.text
            self._hand.out(f"{shown}... {text}" if shown else text)


def _goes_on(header: bytes, rest: bytes) -> bool:
    """Whether a header, cut off somewhere, goes on in what is behind its last field."""
    if not rest or b"\r\n" in rest:
        return not rest  # a whole line that is no field has ended it
    return bool(_FIELD_BEGINS.match(rest) or (header and rest[:1] in b" \t"))
