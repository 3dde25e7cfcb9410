"""XCLIENT: a trusted proxy tells for whom it speaks (Postfix's XCLIENT_README).

Only clients in ``smtp.xclient_networks`` may; the core knows no such command for
others. The session begins anew, as the one that the proxy speaks for: the ``connect``
phase is asked again, and may refuse. What was proven before, a login or a certificate,
was proven by another.
"""

import msgspec

from postroom.mail.envelope import Origin
from postroom.mail.reply import Reply
from postroom.mail.tls import TlsFacts
from postroom.policy.session import Connect
from postroom.services.talk import Talk
from postroom.smtp import commands
from postroom.smtp.xclient import Claims

_NOWHERE = "0.0.0.0"  # noqa: S104 - nobody's address, not one to listen on


async def on_xclient(talk: Talk, event: commands.Xclient) -> None:
    """Take what the proxy says, judge the client it names, and greet it."""
    claims = event.claims
    talk.reset()
    talk.is_verbose = False
    talk.is_now(_claimed(talk.origin, claims))
    if claims.destaddr is not None:
        talk.session = msgspec.structs.replace(talk.session, local_ip=claims.destaddr)
    origin, generation = talk.origin, talk.generation
    subject = Connect(origin.client_ip, origin.listener)
    verdict = await generation.chain.decide("connect", talk.session, subject)
    refusal = talk.refusal(verdict, "XCLIENT", origin.client_ip)
    if refusal is not None:
        # the proxy's client is turned away, and with it the connection
        talk.core.farewell(refusal)
        talk.leaving = "refused"
        return
    banner = f"{generation.hostname} {generation.receive.banner}"
    talk.core.reply(Reply(220, "", (banner,)))
    talk.core.authenticated = bool(origin.login)


def _claimed(origin: Origin, claims: Claims) -> Origin:
    """Return who the client is; what was not said stays as it was."""
    protocol = claims.proto if claims.proto is not None else "SMTP"
    # An address that could not be had is not the proxy's own, which may be let relay.
    client_ip = _or(claims.addr, origin.client_ip) or _NOWHERE
    return msgspec.structs.replace(
        origin,
        protocol=protocol or "SMTP",
        client_name=_or(
            claims.name, "" if client_ip != origin.client_ip else origin.client_name
        ),
        client_ip=client_ip,
        client_port=origin.client_port if claims.port is None else claims.port,
        helo=_or(claims.helo, ""),
        login=_or(claims.login, ""),
        tls=origin.tls and _without_certificate(origin.tls),
    )


def _without_certificate(tls: TlsFacts) -> TlsFacts:
    """Return what is left of the proxy's TLS: its certificate is not its client's."""
    return TlsFacts(tls.version, tls.cipher, tls.bits, tls.resumed, tls.server_name)


def _or(said: str | None, before: str) -> str:
    return before if said is None else said
