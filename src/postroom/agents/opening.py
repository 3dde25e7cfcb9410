"""Opens a session with a host: greeting, hello, TLS, login.

``run`` returns None when mail may be sent, or the reason why not. What the terms demand
of TLS is met before anything of a message is said: a host that does not offer it, whose
handshake fails or whose certificate will not do gets nothing. A login that is refused
defers, since a password of ours is no fault of the mail.
"""

import asyncio
import secrets
import ssl
from base64 import b64decode
from collections.abc import Callable

import msgspec

from postroom.agents.logins import Logins, LoginsError
from postroom.agents.settings import SmtpAgentSettings
from postroom.agents.smtp_words import (
    LOST_STATUS,
    Peer,
    lost_connection,
    nonsense,
    timed_out,
    turned_away,
)
from postroom.agents.terms import Terms
from postroom.auth.sasl_client import (
    Distrust,
    Exchange,
    Link,
    choose,
    exchange,
    needs_proof,
    speaks_first,
)
from postroom.dns.hop import Hop
from postroom.dns.hop_options import hop_name
from postroom.mail.outcome import Deferred, Failed, Say
from postroom.mail.reply import Reply
from postroom.net.clock import read_mono_us, read_now
from postroom.net.stream import Stream, StreamError, StreamTimeout
from postroom.net.tls_client import (
    ClientTls,
    TlsDemand,
    TlsFacts,
    TlsFilesError,
    certificate_of,
    end_point_binding,
    matching_name,
    names_shown,
)
from postroom.observe.events import (
    AnyEvent,
    LoggedInElsewhere,
    TlsFailed,
    TlsStarted,
)
from postroom.smtp.client import (
    Answered,
    ClientConnection,
    Greeting,
    HelloDone,
    Line,
    LostConnection,
    ProtocolError,
)

Reason = Deferred | Failed
"""Why there is no way, or no connection."""

_INITIAL_OCTETS_MAX = 360
"""Longer first responses wait for a 334: with AUTH they would break the limit of a
command line (RFC 4954 §4)."""


_NOT_BOUND = frozenset({501, 504, 535})
"""Codes by which a host may say that it cannot bind a login in our way."""


class Kit(msgspec.Struct, frozen=True):
    """What all connections of an agent share. ``emit`` takes events for the log."""

    tls: ClientTls
    logins: Logins
    emit: Callable[[AnyEvent], None]


class Opening:
    """One connection from its first octet until mail may be sent.

    Args:
        stream: the connection, just made.
        client: its protocol, fresh.
        peer: the host at the other end.
        terms: what is demanded of it.
        settings: time-outs.
        kit: contexts, logins, the log.

    Attributes:
        client: the protocol.
        peer: what is known of the host by now.
        tls_broke: how the handshake failed; empty if it did not.
    """

    def __init__(
        self,
        stream: Stream,
        client: ClientConnection,
        peer: Peer,
        terms: Terms,
        settings: SmtpAgentSettings,
        kit: Kit,
    ) -> None:
        self.peer = peer
        self.tls_broke = ""
        self._stream = stream
        self.client = client
        self._terms = terms
        self._settings = settings
        self._kit = kit
        self._say: Say | None = None
        self._hop = ""

    async def run(
        self, hop: str, say: Say | None = None, *, in_clear: bool = False
    ) -> Reason | None:
        """Open it.

        Args:
            hop: the routed name that led here.
            say: narrates the dialogue, if someone listens.
            in_clear: do without TLS, whose handshake failed here a moment ago.
        """
        self._say, self._hop = say, hop
        is_implicit = self._terms.is_implicit(self.peer.port) and not self.peer.path
        if is_implicit:
            reason = await self._handshake(from_start=True)
            if reason is not None:
                return reason
        reason = await self._greet()
        if reason is None and not (is_implicit or in_clear or self.peer.path):
            reason = await self._start_tls()
        if reason is None and self._terms.requiretls and not self.peer.path:
            reason = self._lacks_requiretls()
        if reason is None and self._terms.login:
            reason = await self._log_in()
        return reason

    def leave(self) -> None:
        """Say goodbye where that is possible (RFC 8689 §4.2.1), and close."""
        if not self.client.is_closed and self.client.is_idle and not self.tls_broke:
            self.client.quit()
            self._stream.write(self.client.data_to_send())
        self._stream.close()

    # -- greeting and hello ------------------------------------------------------

    async def _greet(self) -> Reason | None:
        self._wait(self._settings.greeting_timeout)
        greeting = await self._answer()
        if isinstance(greeting, Deferred):
            return greeting
        if not greeting.reply.is_positive:
            return turned_away(greeting.reply, self.peer)
        return await self._hello()

    async def _hello(self) -> Reason | None:
        self._wait(self._settings.hello_timeout)
        self.client.send_hello()
        hello = await self._answer()
        if isinstance(hello, Deferred):
            return hello
        if not hello.reply.is_positive:
            return turned_away(hello.reply, self.peer)
        reports = self.client.extensions.dsn
        if reports != self.peer.reports:
            self.peer = msgspec.structs.replace(self.peer, reports=reports)
        return None

    # -- TLS ---------------------------------------------------------------------

    async def _start_tls(self) -> Reason | None:
        terms, client = self._terms, self.client
        if terms.tls == "off":
            return None
        if not client.extensions.starttls:
            return self._no_tls("does not offer STARTTLS") if terms.is_strict else None
        self._wait(self._settings.hello_timeout)
        client.start_tls()
        answer = await self._answer()
        if isinstance(answer, Deferred):
            return answer
        if answer.reply.code // 100 != 2:
            if not terms.is_strict:  # RFC 3207 §4: the session goes on as it was
                return None
            return self._no_tls(f"refuses STARTTLS ({_shown(answer.reply)})")
        reason = await self._handshake()
        if reason is not None:
            return reason
        client.tls_started()
        reason = await self._hello()
        if reason is not None and reason.status == LOST_STATUS and not reason.code:
            # With TLS 1.3 a host may refuse us when we think that all is done.
            self.tls_broke = "connection lost right behind the handshake"
            self._tell_tls(self.tls_broke)
        return reason

    def _no_tls(self, what: str) -> Reason:
        """Nothing goes to a host without TLS where the terms demand it."""
        text = f"{self.peer.label} {what}, but TLS is required"
        self._tell_tls(text)
        if self._terms.requiretls:  # RFC 8689 §4.2.1
            return Failed("5.7.10", text, self.peer.text)
        return Deferred("4.7.4", text, self.peer.text, hop_failed=True)

    async def _handshake(self, *, from_start: bool = False) -> Reason | None:
        terms, stream = self._terms, self._stream
        is_verified = terms.tls == "verified"
        demand = TlsDemand(
            is_verified, terms.ca_file, terms.certificate, terms.certificate_key
        )
        try:
            context = await self._kit.tls.context(demand)
        except TlsFilesError as error:
            self._tell_tls(str(error))
            text = "TLS is not set up properly on this system"
            return Deferred("4.3.5", text, hop_failed=True)
        if not from_start:
            self._tell_injected()
        name = _bare(self.peer.name) or self.peer.ip
        self._wait(self._settings.tls_timeout)
        try:
            await stream.start_tls(
                context,
                server_side=False,
                server_hostname=name,
                from_start=from_start,
            )
        except StreamError as failure:
            self.tls_broke = _why(failure)
            self._tell_tls(self.tls_broke)
            return self._tls_failed(self.tls_broke)
        verified = ""
        if is_verified:
            verified = self._verified_name()
            if not verified:
                return self._misnamed()
        self._tell_started(verified)
        return None

    def _tell_injected(self) -> None:
        # RFC 3207 §4.2: nothing that came in the clear survives; the core and the
        # stream see to it.
        injected = self.client.discarded_octets + self._stream.unread_octets
        if injected:
            self._tell_tls(f"discarded {injected} octets sent ahead of the handshake")

    def _verified_name(self) -> str:
        certificate = certificate_of(self._stream.tls)
        return matching_name(certificate, self._wanted_names())

    def _wanted_names(self) -> list[str]:
        """Return whom the certificate may name."""
        terms, hop = self._terms, Hop.from_text(hop_name(self._hop))
        # RFC 8689 §4.2.1: no DNSSEC and no policy vouches for what MX has named
        forgeable = terms.requiretls and terms.requiretls_mx == "validated"
        names = []
        for name in terms.tls_names:
            if name == "domain":
                names.append(hop.name)
            elif name != "host":
                names.append(name.lower())
            elif not (forgeable and hop.wants_mx):
                names.append(_bare(self.peer.name))
        if forgeable and hop.wants_mx:
            names.append(hop.name)
        return names

    def _misnamed(self) -> Reason:
        shown = names_shown(certificate_of(self._stream.tls))
        wanted = " or ".join(self._wanted_names())
        text = f"its certificate is for {shown}, not for {wanted}"
        self._tell_tls(text)
        return self._tls_failed(text)

    def _tls_failed(self, what: str) -> Reason:
        text = f"TLS with {self.peer.label} failed: {what}"
        if self._terms.requiretls:  # RFC 8689 §4.2.1
            return Failed("5.7.10", text, self.peer.text)
        return Deferred("4.7.5", text, self.peer.text, hop_failed=True)

    def _lacks_requiretls(self) -> Reason | None:
        if self.client.extensions.requiretls:
            return None
        text = f"{self.peer.label} does not offer REQUIRETLS, which the message demands"
        return Failed("5.7.30", text, self.peer.text)

    def _tell_started(self, verified: str) -> None:
        tls = self._stream.tls
        if tls is None:
            return
        facts = TlsFacts.of(tls)
        # As sendmail has it: OK, or NO where the certificate was not asked about.
        event = TlsStarted(
            read_now().utc_us,
            "client",
            self.peer.text,
            facts.version,
            facts.cipher,
            facts.bits,
            "OK" if verified else "NO",
            facts.resumed,
        )
        self._kit.emit(event)
        if self._say is not None:
            who = f"{verified} verified" if verified else "certificate not checked"
            self._say(f"(TLS: {facts.version}, {facts.cipher}, {who})")

    def _tell_tls(self, error: str) -> None:
        self._kit.emit(TlsFailed(read_now().utc_us, "client", self.peer.text, error))
        if self._say is not None:
            self._say(f"(TLS: {error})")

    # -- login -------------------------------------------------------------------

    async def _log_in(self) -> Reason | None:
        try:
            ours = self._kit.logins.find(self._terms.login)
        except LoginsError as unusable:
            self._tell_login("", "", str(unusable))
            text = f"The login for {self.peer.label} cannot be used on this system"
            return Deferred("4.3.5", text, hop_failed=True)
        link, terms = self._link(), self._terms
        allowed, failed = terms.auth_mechanisms, None
        while True:
            mechanism = choose(ours, allowed, link, in_clear=terms.auth_in_clear)
            if not mechanism:
                return failed or self._no_mechanism(ours.user, link)
            nonce = secrets.token_urlsafe(24)
            failed = await self._prove(
                mechanism, exchange(mechanism, ours, link, nonce)
            )
            self._tell_login(ours.user, mechanism, failed.text if failed else "")
            # Some hosts bind only by tls-exporter (RFC 9266), which our TLS library
            # does not have. Where the certificate was verified, that is no loss.
            may_bind_less = mechanism.endswith("-PLUS") and terms.tls == "verified"
            if not (may_bind_less and failed and failed.code in _NOT_BOUND):
                return failed
            allowed = tuple(name for name in allowed if name != mechanism)

    def _no_mechanism(self, user: str, link: Link) -> Deferred:
        offered = " ".join(link.offered) or "no AUTH"
        hint = "" if link.is_tls else ", without TLS"
        text = f"offers no login that we may use ({offered}{hint})"
        self._tell_login(user, "", text)
        text = f"{self.peer.label} {text}"
        return Deferred("4.7.4", text, self.peer.text, hop_failed=True)

    def _link(self) -> Link:
        tls = self._stream.tls
        offered = self.client.extensions.auth_mechanisms
        binding = b""
        if tls is not None and any(name.startswith("SCRAM") for name in offered):
            binding = end_point_binding(tls.getpeercert(binary_form=True) or b"")
        return Link(
            offered,
            tls is not None,
            tls is not None and bool(self._terms.certificate),
            binding,
            _bare(self.peer.name),
            self.peer.port,
        )

    async def _prove(self, mechanism: str, ours: Exchange) -> Reason | None:
        """Go through the exchange; returns why it failed."""
        client = self.client
        self._wait(self._settings.auth_timeout)
        first: bytes | None = next(ours)
        if speaks_first(mechanism) and len(first or b"") <= _INITIAL_OCTETS_MAX:
            client.auth(mechanism, first)
            first = None
        else:
            client.auth(mechanism)
        if not speaks_first(mechanism):
            first = None
        while True:
            answer = await self._answer()
            if isinstance(answer, Deferred):
                return answer
            reply = answer.reply
            if reply.code // 100 == 2:
                return self._believe(mechanism, ours)
            if reply.code // 100 != 3:
                return self._refused(_shown(reply), reply.code)
            self._wait(self._settings.auth_timeout)
            response: bytes | Distrust | None = first
            if response is None and needs_proof(mechanism):
                # The host says how long SCRAM's hash takes: not on the loop's time.
                response = await asyncio.to_thread(_response, ours, reply)
            elif response is None:
                response = _response(ours, reply)
            first = None
            if isinstance(response, Distrust):
                client.respond(None)
                await self._answer()
                return self._refused(response.why, 0)
            client.respond(response)

    def _believe(self, mechanism: str, ours: Exchange) -> Reason | None:
        if not needs_proof(mechanism):
            return None
        try:
            ours.send(b"")
        except StopIteration as stop:
            if stop.value is None:
                return None
        # RFC 5802 §5: whoever does not know our password must not get our mail
        why = "the server does not prove that it knows the password"
        return self._refused(why, 0)

    def _refused(self, why: str, code: int) -> Deferred:
        text = f"Login at {self.peer.label} failed: {why}"
        return Deferred("4.7.8", text, self.peer.text, code, hop_failed=True)

    def _tell_login(self, user: str, mechanism: str, error: str) -> None:
        event = LoggedInElsewhere(
            read_now().utc_us, self.peer.text, user, mechanism, error
        )
        self._kit.emit(event)
        if self._say is not None and error:
            self._say(f"(login: {error})")

    # -- reading -----------------------------------------------------------------

    async def _answer(self) -> Greeting | HelloDone | Answered | Deferred:
        """Return the next reply; Deferred if none will come."""
        client = self.client
        trouble: Deferred | None = None
        while True:
            event = client.next_event()
            match event:
                case None:
                    data = client.data_to_send()
                    if data:
                        self._stream.write(data)
                    trouble = await self._hear() or trouble
                case Greeting() | HelloDone() | Answered():
                    if event.reply.code != 421:
                        return event
                case ProtocolError(text):
                    trouble = nonsense(text, self.peer)
                case LostConnection(_, reply):
                    if reply is not None:
                        return turned_away(reply, self.peer)
                    return trouble or lost_connection(self.peer)
                case Line():
                    if self._say is not None:
                        text = event.text
                        self._say(f">>> {text}" if event.outgoing else text)
                case _:
                    raise AssertionError(f"{event} before any mail")

    async def _hear(self) -> Deferred | None:
        """Read what comes next into the core; returns what to say of an end."""
        trouble = None
        try:
            data = await self._stream.read()
        except StreamTimeout:
            data, trouble = b"", timed_out(self.peer)
        except StreamError:
            data = b""
        self.client.receive(data)
        return trouble

    def _wait(self, length_us: int) -> None:
        self._stream.set_deadline(read_mono_us() + length_us)


def _response(ours: Exchange, reply: Reply) -> bytes | Distrust:
    """Answer a challenge; Distrust: give the exchange up."""
    try:
        challenge = b64decode(reply.lines[0].strip(), validate=True)
    except ValueError:  # also for what is not ASCII
        return Distrust("a challenge that is no base64")
    try:
        return ours.send(challenge)
    except StopIteration as stop:
        found: Distrust | None = stop.value
        return found or Distrust("the server asks for more than the mechanism has")


def _bare(name: str) -> str:
    """Return a host's name, or the address within brackets."""
    if not name.startswith("["):
        return name
    return name.strip("[]").removeprefix("IPv6:")


def _shown(reply: Reply) -> str:
    return str(reply)[:500]


def _why(error: StreamError) -> str:
    cause = error.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {cause.verify_message}"
    if isinstance(cause, ssl.SSLError) and cause.reason:
        return cause.reason.replace("_", " ").lower()
    return str(error).removeprefix("TLS handshake failed: ")
