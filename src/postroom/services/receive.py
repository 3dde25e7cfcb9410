"""The SMTP service: takes connections, keeps their number within bounds, runs sessions.

A client over a limit is told 421 and goes. What a client does wrong is answered in its
session; what breaks a session is an event and concerns nobody else.
"""

from postroom.mail.envelope import Origin
from postroom.mail.reply import Reply
from postroom.net.stream import Stream
from postroom.observe.events import (
    SessionClosed,
    SessionRefused,
)
from postroom.services.reception import Conversation, Tools
from postroom.services.session import SmtpSession

_TOO_MANY = Reply.of(421, "4.3.2", "too many sessions, try again later")
_TOO_MANY_YOURS = Reply.of(421, "4.7.0", "too many sessions from your address")


class ReceiveService:
    """Serves SMTP. Sessions keep the generation that they began with."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    async def serve(self, stream: Stream, listener: str) -> None:
        """Serve one connection from greeting to end."""
        counters, receive = self._tools.counters, self._tools.shop.generation().receive
        client = f"smtp:{stream.peer_ip}"
        if not counters.add("smtp", 1, receive.sessions_max):
            return await self._turn_away(stream, _TOO_MANY, "sessions_max")
        try:
            if not counters.add(client, 1, receive.sessions_per_client_max):
                limit = "sessions_per_client_max"
                return await self._turn_away(stream, _TOO_MANY_YOURS, limit)
            try:
                await self.converse(
                    stream,
                    Origin(
                        protocol="SMTP",
                        client_ip=stream.peer_ip,
                        client_port=stream.peer_port,
                        listener=listener,
                    ),
                )
            finally:
                counters.release(client, 1)
        finally:
            counters.release("smtp", 1)

    async def converse(self, stream: Conversation, origin: Origin) -> None:
        """Run a session over anything that reads and writes, then close it."""
        began = self._tools.shop.clock()
        session = SmtpSession(stream, self._tools, origin)
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

    async def _turn_away(self, stream: Stream, reply: Reply, why: str) -> None:
        self._tools.shop.emit(
            SessionRefused(
                utc_us=self._tools.shop.clock().utc_us,
                service="smtp",
                client_ip=stream.peer_ip,
                why=why,
            )
        )
        stream.write(reply.to_wire())
        await stream.aclose()
