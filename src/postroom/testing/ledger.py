"""Keeps count of every message that was acknowledged, and finds out what became of it.

``Load`` hands in messages over SMTP, each with an id of its own, from several clients
at once, and writes down each 250. ``Ledger.audit`` then compares that with what lies in
mailboxes, was reported as failed, or still waits. Whatever kills a server in between:
a message that is acknowledged and is nowhere is ``missing``.
"""

import asyncio
import json
import re
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from postroom.testing.caller import stuffed
from postroom.testing.host import Host

FIELD = "X-Ledger"
DOMAIN = "ledger.example"
REPLY_S_MAX = 30.0
_PAUSE_S = 0.02

_ID = re.compile(rb"^X-Ledger: ([\w.-]+)\r?$", re.MULTILINE)
_LINES = re.compile(rb"^X-Ledger-Lines: (\d+)\r\n\r\n", re.MULTILINE)
_LINE = b"0123456789abcdef" * 4 + b"\r\n"
_FAILED = re.compile(
    rb"^(?:Final|X-Actual)-Recipient: rfc822; ?(\S+)\r?$", re.MULTILINE | re.I
)

Ask = Callable[[str | bytes], "asyncio.Future[int]"]


class Due(NamedTuple):
    """What was promised: this message to this recipient."""

    id: str
    recipient: str


class Audit(NamedTuple):
    """What became of what was promised.

    ``missing`` is acknowledged and nowhere; ``duplicates`` counts copies beyond the
    first; ``unasked`` were delivered without having been acknowledged, as happens
    when the connection broke before the reply.
    """

    missing: list[Due]
    delivered: int
    reported: int
    queued: int
    duplicates: int
    unasked: int


class Ledger:
    """What was acknowledged. One ledger may serve many clients.

    Args:
        prefix: only ids that begin so are looked at, for a host that has seen others.
        aliases: who gets what is sent to an address, where that is somebody else.

    Attributes:
        promised: what was acknowledged.
        elsewhere: contents that arrived where there are no mailboxes to look into,
            each for all its recipients.
        replies: how often a message ended in which reply.
        broken_off: how often it ended in none.
        in_doubt: how often that was after the whole content had been sent.
    """

    def __init__(
        self, prefix: str = "", aliases: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        self.prefix = prefix
        self._aliases = aliases or {}
        self.promised: list[Due] = []
        self.elsewhere: list[bytes] = []
        self.replies: Counter[int] = Counter()
        self.broken_off = 0
        self.in_doubt = 0

    def promise(self, message_id: str, recipients: Iterable[str]) -> None:
        """Write down a 250."""
        for recipient in recipients:
            self.promised += self._meant(Due(message_id, recipient))

    def audit(
        self,
        delivered: Iterable[tuple[str, bytes]] = (),
        queued: Iterable[Due] = (),
    ) -> Audit:
        """Compare.

        Args:
            delivered: each content that lies in a mailbox, with the recipient whose it
                is; failure reports among them count for the message they are about.
            queued: what still waits.
        """
        arrived: Counter[Due] = Counter()
        reported: set[Due] = set()
        for recipient, content in delivered:
            message_id = id_of(content)
            failed = _FAILED.findall(content)
            if failed:
                reported |= {Due(message_id, one.decode()) for one in failed}
            elif message_id and message_id.startswith(self.prefix):
                arrived[Due(message_id, recipient)] += 1
        waiting = {due for one in queued for due in self._meant(one)}
        promised = set(self.promised)
        by_id = self._by_id() if self.elsewhere else {}
        for content in self.elsewhere:
            arrived.update(by_id.get(id_of(content), ()))
        known = arrived.keys() | reported | waiting
        return Audit(
            missing=sorted(promised - known),
            delivered=len(promised & arrived.keys()),
            reported=len(promised & reported),
            queued=len(promised & waiting),
            duplicates=sum(count - 1 for count in arrived.values()),
            unasked=len(arrived.keys() - promised),
        )

    def _meant(self, due: Due) -> list[Due]:
        recipients = self._aliases.get(due.recipient, [due.recipient])
        return [Due(due.id, recipient) for recipient in recipients]

    def _by_id(self) -> dict[str, set[Due]]:
        found: dict[str, set[Due]] = {}
        for due in self.promised:
            found.setdefault(due.id, set()).add(due)
        return found


def id_of(content: bytes) -> str:
    """Return the id of a message, or of the one that a report is about; or ``""``."""
    found = _ID.search(content)
    return found[1].decode() if found else ""


def letter(message_id: str, size_octets: int = 0) -> bytes:
    """Return a message with this id and about this size."""
    head = (
        f"From: <client@{DOMAIN}>\r\nMessage-Id: <{message_id}@{DOMAIN}>\r\n"
        f"Subject: {message_id}\r\n{FIELD}: {message_id}\r\n"
    )
    lines = max(1, (size_octets - len(head)) // len(_LINE))
    return f"{head}{FIELD}-Lines: {lines}\r\n\r\n".encode() + _LINE * lines


def is_whole(content: bytes) -> bool:
    """Whether all of a ``letter`` is there, whatever fields were put in front."""
    found = _LINES.search(content)
    return found is not None and content[found.end() :] == _LINE * int(found[1])


class Load:
    """Clients that hand in messages and survive what the server does to them.

    Args:
        ledger: where acknowledgements are written down.
        ip: the server.
        port: its port.
        sender: the envelope's sender.
    """

    def __init__(
        self, ledger: Ledger, ip: str, port: int, sender: str = "client@ledger.example"
    ) -> None:
        self._ledger = ledger
        self._ip, self._port = ip, port
        self._sender = sender

    async def send(
        self,
        ids: Sequence[str],
        recipients: Sequence[str],
        *,
        clients: int = 4,
        size_octets: int = 0,
    ) -> None:
        """Hand in one message per id until each was answered 250 once.

        A message whose connection broke is tried again under another id, since
        nobody can know whether it was taken.
        """
        waiting = list(reversed(ids))
        work = (
            self._client(waiting, recipients, size_octets)
            for _ in range(min(clients, len(ids)))
        )
        await asyncio.gather(*work)

    async def _client(
        self, waiting: list[str], recipients: Sequence[str], size_octets: int
    ) -> None:
        broken = 0
        while waiting:
            message_id = waiting.pop()
            try:
                await self._session(message_id, waiting, recipients, size_octets)
            except (OSError, asyncio.IncompleteReadError, _Refused) as error:
                broken += 1
                if isinstance(error, _Refused):
                    self._ledger.replies[error.code] += 1
                else:
                    self._ledger.broken_off += 1
                await asyncio.sleep(_PAUSE_S)

    async def _session(
        self,
        message_id: str,
        waiting: list[str],
        recipients: Sequence[str],
        size_octets: int,
    ) -> None:
        """Send messages until there are no more; what was in hand is put back."""
        reader = writer = None
        try:
            async with asyncio.timeout(REPLY_S_MAX):
                reader, writer = await asyncio.open_connection(self._ip, self._port)
                await _expect(reader, 220)
                writer.write(b"EHLO client.example\r\n")
                await _expect(reader, 250)
            while message_id:
                async with asyncio.timeout(REPLY_S_MAX):
                    content = letter(message_id, size_octets)
                    await self._message(reader, writer, recipients, content)
                self._ledger.promise(message_id, recipients)
                self._ledger.replies[250] += 1
                message_id = waiting.pop() if waiting else ""
            writer.write(b"QUIT\r\n")
        finally:
            if message_id:
                waiting.append(_next_try(message_id))
            if writer is not None:
                writer.close()

    async def _message(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        recipients: Sequence[str],
        content: bytes,
    ) -> None:
        commands = [
            f"MAIL FROM:<{self._sender}>",
            *(f"RCPT TO:<{recipient}>" for recipient in recipients),
            "DATA",
        ]
        writer.write("".join(f"{one}\r\n" for one in commands).encode())
        for _ in range(len(commands) - 1):
            await _expect(reader, 250)
        await _expect(reader, 354)
        try:
            writer.write(stuffed(content))
            await writer.drain()
            await _expect(reader, 250)
        except (OSError, asyncio.IncompleteReadError):
            self._ledger.in_doubt += 1
            raise


class _Refused(Exception):
    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


async def _expect(reader: asyncio.StreamReader, code: int) -> None:
    while True:
        line = await reader.readuntil(b"\r\n")
        if line[3:4] != b"-":
            break
    if int(line[:3]) != code:
        raise _Refused(int(line[:3]), line.decode("utf-8", "replace").strip())


def _next_try(message_id: str) -> str:
    name, _, number = message_id.partition(".try")
    return f"{name}.try{int(number or 0) + 1}"


def delivered_in(host: Host, domain: str) -> list[tuple[str, bytes]]:
    """Return all content of a host's mailboxes below ``mail/``, with whose it is."""
    return [
        (f"{box.name}@{domain}", content)
        for box in sorted((host.directory / "mail").glob("*"))
        for content in mail_of(host, box.name)
    ]


def mail_of(host: Host, user: str) -> list[bytes]:
    """Return the messages in a user's Maildir, oldest first, with CRLF line ends."""
    box: Path = host.directory / "mail" / user
    files = [*box.glob("new/*"), *box.glob("cur/*")]
    files.sort(key=lambda file: file.name)
    return [file.read_bytes().replace(b"\n", b"\r\n") for file in files]


def entries_of(host: Host) -> list[dict[str, Any]]:
    """Return the queue as ``postroom queue list --json`` tells it.

    Raises:
        subprocess.CalledProcessError: it could not be read as a whole.
    """
    done = host.run("postroom", "queue", "list", "--json")
    if done.returncode:
        raise subprocess.CalledProcessError(
            done.returncode, done.args, done.stdout, done.stderr
        )
    return [json.loads(line) for line in done.stdout.splitlines()]


def queued_in(host: Host) -> list[Due]:
    """Return what waits in a host's queue, by ledger id."""
    due = []
    for entry in entries_of(host):
        message_id = str(entry["message_id"]).strip("<>").partition("@")[0]
        due += [Due(message_id, one["address"]) for one in entry["recipients"]]
    return due


def reasons_of(host: Host) -> dict[str, str]:
    """Return why each recipient in a queue waits, as far as it has been tried."""
    return {
        one["address"]: one["status_text"]
        for entry in entries_of(host)
        for one in entry["recipients"]
        if one["tries"] and not one["active"]
    }


def audit(ledger: Ledger, hosts: Mapping[str, Host], *, queues: bool = True) -> Audit:
    """Compare a ledger with what the hosts, by domain, have in queues and mailboxes.

    Queues are read first, in the order in which mail travels, so that a message on
    its way is seen at least once.
    """
    queued = [due for host in hosts.values() if queues for due in queued_in(host)]
    delivered = [
        one for domain, host in hosts.items() for one in delivered_in(host, domain)
    ]
    return ledger.audit(delivered, queued)


def audit_at_rest(
    ledger: Ledger, hosts: Mapping[str, Host], s_max: float = REPLY_S_MAX
) -> Audit:
    """Wait until everything promised was delivered or reported; return the audit.

    Raises:
        AssertionError: something still waits, or is nowhere; tells what and which.
    """
    end = time.monotonic() + s_max
    while (found := audit(ledger, hosts, queues=False)).missing:
        if time.monotonic() > end:
            found = audit(ledger, hosts)
            raise AssertionError(
                f"of {len(ledger.promised)} promised {found.queued} wait and "
                f"{len(found.missing)} are nowhere: {found.missing[:10]}"
            )
        time.sleep(_PAUSE_S)
    return found
