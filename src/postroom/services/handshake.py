"""TLS on connections that come in: from the first octet, or when STARTTLS is said.

After the handshake of STARTTLS the session begins anew: nothing that was said before,
and nothing that came in the same packet, is kept (RFC 3207 §4.2). A handshake that
fails ends the connection; why is an event, and concerns nobody else.
"""

import ssl
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import msgspec

from postroom.mail.envelope import Origin
from postroom.mail.now import Now
from postroom.mail.reply import Reply
from postroom.mail.tls import TlsFacts
from postroom.net.keys import ServerTls
from postroom.net.stream import Stream, StreamError, StreamTimeout
from postroom.net.tls import facts_of
from postroom.observe.events import AnyEvent, TlsFailed, TlsStarted
from postroom.observe.render import relay_text
from postroom.services import tempo
from postroom.services.talk import Talk
from postroom.smtp import commands, replies

_NOT_NOW = Reply.of(454, "4.3.3", "TLS not available, try again later")
_FIRST = Reply.of(530, "5.7.0", "Must issue a STARTTLS command first")

Handler = Callable[[Talk, Any], Awaitable[None] | None]


class Guard(NamedTuple):
    """What handshakes are done with.

    Attributes:
        tls: certificates and settings; None if there are none.
        emit: is told how each handshake went.
        clock: tells the time.
    """

    tls: ServerTls | None
    emit: Callable[[AnyEvent], None]
    clock: Callable[[], Now]

    async def from_start(
        self, stream: Stream, service: str, origin: Origin
    ) -> Origin | None:
        """Encrypt a connection before anything is said on it (RFC 8314 §3).

        Returns:
            Who the client is, or None if it has gone.
        """
        context = self.tls.context(service) if self.tls else None
        if context is None:
            self._failed(origin, "there is no certificate")
            stream.abort()
            return None
        facts = await self.shake(stream, context, origin, from_start=True)
        if facts is None:
            return None
        return msgspec.structs.replace(origin, tls=facts)

    async def shake(
        self,
        stream: Stream,
        context: ssl.SSLContext,
        origin: Origin,
        *,
        from_start: bool = False,
    ) -> TlsFacts | None:
        """Do a handshake; None: it failed, and the connection is over."""
        assert self.tls is not None
        stream.allow(self.tls.settings.handshake_timeout)
        try:
            await stream.start_tls(context, server_side=True, from_start=from_start)
        except StreamTimeout:
            self._failed(origin, "the handshake took too long")
        except StreamError as error:
            self._failed(origin, str(error).removeprefix("TLS handshake failed: "))
        else:
            stream.set_deadline(None)
            assert stream.tls is not None
            facts = facts_of(stream.tls)
            self._started(origin, facts)
            return facts
        stream.close()
        return None

    def _started(self, origin: Origin, facts: TlsFacts) -> None:
        self.emit(
            TlsStarted(
                utc_us=self.clock().utc_us,
                side="server",
                relay=relay_text(origin),
                version=facts.version,
                cipher=facts.cipher,
                bits=facts.bits,
                verify=facts.verify,
                resumed=facts.resumed,
            )
        )

    def _failed(self, origin: Origin, error: str) -> None:
        self.emit(
            TlsFailed(
                utc_us=self.clock().utc_us,
                side="server",
                relay=relay_text(origin),
                error=error,
            )
        )


async def on_starttls(talk: Talk, event: commands.StartTls) -> None:
    """Go over to TLS (RFC 3207)."""
    shop, stream, tls = talk.tools.shop, talk.stream, talk.generation.tls
    context = tls.context(talk.face.kind) if tls else None
    if context is None or not isinstance(stream, Stream):
        talk.rejected("STARTTLS", "", _NOT_NOW, "no certificate")
        return talk.core.reply(_NOT_NOW)  # RFC 3207 §4
    talk.core.reply(replies.READY_FOR_TLS)
    stream.write(talk.core.data_to_send())
    guard = Guard(tls, shop.emit, shop.clock)
    facts = await guard.shake(stream, context, talk.origin)
    if facts is None:
        talk.leaving = "lost"
        return None
    talk.core.tls_started()
    talk.reset()
    talk.is_verbose = False
    # RFC 3207 §4.2: the client's name and login are forgotten.
    talk.is_now(
        msgspec.structs.replace(
            talk.origin, helo="", login="", protocol="SMTP", tls=facts
        )
    )
    return None


def after_tls(handler: Handler) -> Handler:
    """Have a command refused until the session is encrypted (RFC 3207 §4)."""

    def guarded(talk: Talk, event: Any) -> Awaitable[None] | None:
        if talk.core.tls:
            return handler(talk, event)
        talk.rejected(str(event.verb), "", _FIRST, "tls-required")
        talk.core.reply(tempo.refused(talk, str(event.verb), _FIRST))
        return None

    return guarded
