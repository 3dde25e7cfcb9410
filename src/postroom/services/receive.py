"""The SMTP service: takes connections, keeps their number within bounds, runs sessions.

A client over a limit is told 421 and goes. What a client does wrong is answered in its
session; what breaks a session is an event and concerns nobody else.
"""

from postroom.mail.envelope import Origin
from postroom.net.stream import Stream
from postroom.observe.events import SessionClosed, SessionRefused
from postroom.services.admission import Admission, TurnedAway
from postroom.services.face import Kind, Tls
from postroom.services.generation import Generation
from postroom.services.handshake import Guard
from postroom.services.reception import Conversation, Tools
from postroom.services.session import SmtpSession


class ReceiveService:
    """Serves SMTP. Sessions keep the generation that they began with."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._admission = _admission(tools.shop.generation())

    async def serve(self, stream: Stream, listener: str) -> None:
        """Serve one connection from greeting to end."""
        counters, generation = self._tools.counters, self._tools.shop.generation()
        admission = self._admission
        if admission.settings is not generation.receive:  # another is in force
            admission = self._admission = _admission(generation)
        face = generation.face(listener)
        is_user = face.kind is Kind.SUBMISSION
        place = admission.enter(counters, stream.peer_ip, is_user=is_user)
        if isinstance(place, TurnedAway):
            return await self._turn_away(stream, place)
        try:
            origin = Origin(
                protocol="SMTP",
                client_ip=stream.peer_ip,
                client_port=stream.peer_port,
                listener=listener,
            )
            if face.tls is Tls.IMPLICIT:
                await self._encrypted(stream, origin)
            else:
                await self.converse(stream, origin, _met(stream, generation))
        finally:
            admission.leave(counters, place)

    async def _encrypted(self, stream: Stream, origin: Origin) -> None:
        """Serve a connection that begins with TLS (RFC 8314 §3)."""
        shop = self._tools.shop
        generation = shop.generation()
        guard = Guard(generation.tls, shop.emit, shop.clock)
        kind = generation.face(origin.listener).kind
        known = await guard.from_start(stream, kind, origin)
        if known is not None:
            await self.converse(stream, known, _met(stream, generation))

    async def converse(
        self, stream: Conversation, origin: Origin, local_ip: str = ""
    ) -> None:
        """Run a session over anything that reads and writes, then close it.

        ``local_ip`` is the address of ours that the client came to.
        """
        began = self._tools.shop.clock()
        session = SmtpSession(stream, self._tools, origin, began, local_ip)
        how = "error"
        try:
            how = await session.run()
        except Exception as error:  # our mistake must not take the worker down
            self._tools.shop.tell(f"SMTP session failed: {error!r}", level="error")
            session.say_sorry()
        finally:
            await session.aclose()
            await stream.aclose()
            now = self._tools.shop.clock()
            self._tools.shop.emit(
                SessionClosed(
                    utc_us=now.utc_us,
                    service="smtp",
                    origin=session.origin,
                    how=how,
                    messages=session.messages,
                    duration_us=now.mono_us - began.mono_us,
                )
            )

    async def _turn_away(self, stream: Stream, refused: TurnedAway) -> None:
        self._tools.shop.emit(
            SessionRefused(
                utc_us=self._tools.shop.clock().utc_us,
                service="smtp",
                client_ip=stream.peer_ip,
                why=refused.limit,
            )
        )
        stream.write(refused.reply.to_wire())
        await stream.aclose()


def _met(stream: Stream, generation: Generation) -> str:
    """Return which address of ours a client met, if anyone may want to know."""
    return stream.local_ip if generation.chain.is_sites else ""


def _admission(generation: Generation) -> Admission:
    kinds = {face.kind for face in generation.faces.values()}
    return Admission(generation.receive, has_users=Kind.SUBMISSION in kinds)
