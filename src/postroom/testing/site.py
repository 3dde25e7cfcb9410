"""A make-believe mail site: it answers a server connection by a few fixed rules.

No I/O and no waiting; what it accepts it keeps in ``messages``. Unknown rules and
settings are a ``ValueError`` of the test that wrote them.
"""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from postroom.auth.sasl import Challenge, Failed, Proven
from postroom.mail.address import NULL_SENDER, Address
from postroom.mail.reply import Reply
from postroom.mail.units import Duration
from postroom.smtp import commands, replies
from postroom.smtp.parameters import MailParams
from postroom.smtp.server import (
    BdatStart,
    Chunk,
    Closed,
    EndOfChunk,
    EndOfData,
    Event,
    ServerConnection,
    TooManyErrors,
)
from postroom.smtp.settings import ServerSettings
from postroom.testing.exchange import Door

UNKNOWN = Reply.of(550, "5.1.1", "User unknown")
LATER = Reply.of(451, "4.3.0", "Try again later")
NOT_YOU = Reply.of(550, "5.7.1", "Access denied")
UNWANTED = Reply.of(501, "5.7.0", "No initial response with this mechanism")
NOT_THIS = Reply.of(554, "5.7.1", "Message refused")
OPENED_US = 1_795_384_800_000_000
"""When every session begins: 2026-11-22T22:00:00Z."""


class Taken(msgspec.Struct, frozen=True):
    """A message that was accepted: its envelope and its content in canonical form."""

    sender: Address
    recipients: tuple[Address, ...]
    content: bytes


class Site:
    """Decides for one session. Addresses in rules are compared as text.

    ``unknown`` recipients get 550 5.1.1, ``later`` ones 451; ``not_from`` senders are
    refused; ``failing`` recipients are refused after the content (by LMTP one by one).
    Logins are judged by ``door``: ``tim`` has the password ``secret``. A ``submission``
    may be held; a ``proxy`` may use XCLIENT. ``envelopes`` are the parameters of the
    messages.
    """

    def __init__(
        self,
        settings: ServerSettings | None = None,
        *,
        hostname: str = "mx.example",
        lmtp: bool = False,
    ) -> None:
        self.settings = settings or ServerSettings()
        self.hostname = hostname
        self.lmtp = lmtp
        self.greeting = replies.greeting(hostname)
        self.unknown: set[str] = set()
        self.later: set[str] = set()
        self.not_from: set[str] = set()
        self.failing: set[str] = set()
        self.submission = False
        self.proxy = False
        self.messages: list[Taken] = []
        self.envelopes: list[MailParams] = []
        self.events: list[Event] = []
        self._sender = NULL_SENDER
        self._recipients: list[Address] = []
        self._content: list[bytes] = []
        self.door = Door()
        self._params = MailParams()

    def rule(self, name: str, argument: str) -> None:
        """Add a rule as transcripts write it, such as ``unknown nosuch@mx.example``.

        Raises:
            ValueError: there is no such rule or setting.
        """
        match name:
            case "lmtp":
                self.lmtp = True
            case "submission":
                self.submission = True
            case "proxy":
                self.proxy = True
            case "greeting":
                code, _, text = argument.partition(" ")
                self.greeting = Reply.of(int(code), "", text)
            case "setting":
                key, _, value = argument.partition(" ")
                self.settings = _changed(self.settings, key, value)
            case "unknown" | "later" | "not-from" | "failing":
                getattr(self, name.replace("-", "_")).add(argument)
            case _ if not self.door.rule(name, argument):
                raise ValueError(f'there is no rule "{name}"')

    def connect(self) -> ServerConnection:
        """Return a connection to this site, before its greeting."""
        return ServerConnection(
            self.settings,
            self.hostname,
            lmtp=self.lmtp,
            submission=self.submission,
            is_proxy=self.proxy,
            opened_us=OPENED_US,
        )

    def serve(self, connection: ServerConnection) -> bool:
        """Answer all that can be answered now; return whether the session goes on."""
        while (event := connection.next_event()) is not None:
            self.events.append(event)
            if isinstance(event, Closed | TooManyErrors):
                return False
            if isinstance(event, Chunk):
                self._content.append(event.data)
                continue
            if isinstance(event, commands.Refused | BdatStart):
                continue
            connection.reply(*self._answers(connection, event))
            if isinstance(event, commands.StartTls):
                connection.tls_started()
        return True

    def _answers(self, connection: ServerConnection, event: Event) -> list[Reply]:
        match event:
            case commands.Hello(verb=verb):
                self._forget()
                return [connection.hello_reply(verb)]
            case commands.Mail(address=address, params=params):
                self._params = params
                return [self._mail(address)]
            case commands.Rcpt(address=address):
                return [self._rcpt(address)]
            case EndOfChunk(refusal=refusal):
                return [refusal or replies.chunk_taken(event.size_octets)]
            case EndOfData():
                return list(self._end(event))
            case commands.Xclient():
                return [self.greeting]
            case commands.Reset():
                self._forget()
                return [replies.RESET_OK]
            case commands.Auth() | commands.AuthResponse():
                return [self._login(event)]
            case commands.Quit():
                return [replies.goodbye(self.hostname)]
            case _:
                return [_PLAIN_ANSWERS[type(event)]]

    def _mail(self, address: Address) -> Reply:
        if address.to_text() in self.not_from:
            return NOT_YOU
        self._forget()
        self._sender = address
        return replies.SENDER_OK

    def _rcpt(self, address: Address) -> Reply:
        if address.to_text() in self.unknown:
            return UNKNOWN
        if address.to_text() in self.later:
            return LATER
        self._recipients.append(address)
        return replies.RECIPIENT_OK

    def _end(self, event: EndOfData) -> Iterator[Reply]:
        recipients = tuple(self._recipients)
        good = tuple(r for r in recipients if r.to_text() not in self.failing)
        if event.refusal is None and (good == recipients or (self.lmtp and good)):
            self._keep(good, event)
        elif event.refusal is None and self._params.prdr:
            # draft-hall-prdr-00 §4.5: 353, each recipient's, and one for all
            if good:
                self._keep(good, event)
            yield replies.VERDICTS_FOLLOW
            for recipient in recipients:
                yield replies.RECEIVED if recipient in good else NOT_THIS
            yield replies.queued("Q1") if good else NOT_THIS
            self._forget()
            return
        for recipient in recipients if self.lmtp else recipients[:1]:
            failed = recipient not in good if self.lmtp else good != recipients
            done = NOT_THIS if failed else replies.queued("Q1")
            yield event.refusal or done
        self._forget()

    def _keep(self, good: tuple[Address, ...], event: EndOfData) -> None:
        content = b"".join(self._content)
        assert len(content) == event.size_octets
        self.messages.append(Taken(self._sender, good, content))
        self.envelopes.append(self._params)

    def _login(self, event: commands.Auth | commands.AuthResponse) -> Reply:
        if isinstance(event, commands.Auth):
            step = self.door.answer(event.mechanism, event.initial)
        else:
            step = self.door.answer("", event.octets)
        match step:
            case Challenge(octets):
                return replies.challenge(octets)
            case Proven():
                return replies.LOGGED_IN
            case Failed(kind="unwanted"):
                return UNWANTED
            case _:
                return replies.LOGIN_FAILED

    def _forget(self) -> None:
        self._sender = NULL_SENDER
        self._recipients = []
        self._content = []


_PLAIN_ANSWERS: dict[type, Reply] = {
    commands.DataStart: replies.START_CONTENT,
    commands.Noop: replies.NOOP_OK,
    commands.Vrfy: replies.VRFY_UNTOLD,
    commands.Expn: replies.EXPN_REFUSED,
    commands.Help: replies.HELP,
    commands.StartTls: replies.READY_FOR_TLS,
    commands.Etrn: Reply.of(250, "2.0.0", "Queue run started"),
    commands.Verbose: replies.VERBOSE,
}


def _changed(settings: ServerSettings, key: str, value: str) -> ServerSettings:
    if key not in settings.__struct_fields__:
        raise ValueError(f'there is no setting "{key}"')
    old, new = getattr(settings, key), value
    kinds: dict[type, Callable[[str], Any]] = {
        bool: {"true": True, "false": False}.__getitem__,
        tuple: lambda text: tuple(text.split(",")),
        Duration: Duration.from_text,
    }
    try:
        return msgspec.structs.replace(
            settings, **{key: kinds.get(type(old), type(old))(new)}
        )
    except KeyError:
        raise ValueError(f"{key} is true or false") from None
