"""AUTH in an SMTP session (RFC 4954): runs the exchange and says what came of it.

What the client hears of a failure is the same whatever was wrong; the log has the
reason. Failures are counted before they are answered, so that who breaks off does not
get away, and the answer is held back. Whoever fails too often is not heard any more
(454) or, in the same session, sent away (421).
"""

import ssl
from collections.abc import Awaitable
from typing import cast

import msgspec

from postroom.auth.external import read_certificate
from postroom.auth.mechanisms import MECHANISMS, Mechanism, begin, needs_secrecy
from postroom.auth.sasl import Answer, Challenge, Ended, Failed, Lost, Proven
from postroom.mail.address import Address, AddressError
from postroom.mail.envelope import from_xtext
from postroom.mail.reply import Reply
from postroom.net.stream import Stream
from postroom.observe.events import LoggedIn, LoginFailed
from postroom.policy.session import Auth
from postroom.services import tempo
from postroom.services.logins import Channel, Logins
from postroom.services.talk import Attempt, Talk
from postroom.smtp import commands, replies

SERVICE = "smtp"
_NEEDS_TLS = Reply.of(
    538, "5.7.11", "Encryption required for requested authentication mechanism"
)
_UNWANTED = Reply.of(501, "5.7.0", "No initial response with this mechanism")
_LATER = Reply.of(454, "4.7.0", "Temporary authentication failure, try again later")
_BARRED = Reply.of(454, "4.7.0", "Too many failed logins, try again later")
_TOO_MANY = Reply.of(421, "4.7.0", "Too many failed logins, closing connection")
_NOBODY = "<>"
_EXPORTER = "tls-exporter"
_PLUS = "SCRAM-SHA-256-PLUS"


def offer(talk: Talk) -> None:
    """Let EHLO name the mechanisms that work on this connection just now."""
    wanted = talk.face.server.auth_mechanisms
    logins = talk.tools.logins
    if wanted:
        channel = channel_of(talk)
        talk.core.mechanisms = logins.offered(wanted, channel) if logins else ()


def on_auth(talk: Talk, event: commands.Auth) -> Awaitable[None] | None:
    """Begin an exchange, or say why there can be none."""
    logins, channel = talk.tools.logins, channel_of(talk)
    objection = _objection(talk, logins, event.mechanism, channel)
    if objection:
        talk.rejected("AUTH", event.mechanism, *objection)
        talk.core.reply(tempo.refused(talk, "AUTH", objection[0]))
        return None
    assert logins is not None
    mechanism = cast("Mechanism", event.mechanism)
    exchange = begin(mechanism, event.initial, logins.circumstances(channel))
    talk.attempt = Attempt(mechanism, exchange)
    return _go_on(talk, logins, talk.attempt, None)


def on_response(talk: Talk, event: commands.AuthResponse) -> Awaitable[None]:
    """Go on with the exchange."""
    logins, attempt = talk.tools.logins, talk.attempt
    assert logins is not None
    assert attempt is not None
    return _go_on(talk, logins, attempt, event.octets)


def believed(talk: Talk, event: commands.Mail) -> commands.Mail:
    """Return MAIL with as much of its AUTH parameter as we believe (RFC 4954 §5).

    A client may say that it hands on what its own login has submitted. Of what it
    says of others, or without having logged in, nothing is believed.
    """
    auth = event.params.auth
    if not auth or _is_own(talk, auth):
        return event
    params = msgspec.structs.replace(event.params, auth=_NOBODY)
    return msgspec.structs.replace(event, params=params)


def channel_of(talk: Talk) -> Channel:
    """Return what of the connection matters to a login."""
    stream, facts, client_ip = talk.stream, talk.origin.tls, talk.origin.client_ip
    session = stream.tls if isinstance(stream, Stream) else None
    if session is None or facts is None:
        return Channel(talk.core.tls, client_ip, {})
    certificate = None
    if facts.verify == "OK":
        certificate = read_certificate(session.getpeercert() or {}, facts.fingerprint)
    return Channel(True, client_ip, _bindings(talk, session), certificate)


def _bindings(talk: Talk, session: ssl.SSLObject) -> dict[str, bytes]:
    """Return the channel bindings that both sides can know, by type.

    Where -PLUS is not offered there are none: a client that says so is right then, and
    nobody has taken it out on the way (RFC 5802 §6).
    """
    found: dict[str, bytes] = {}
    if _PLUS not in talk.face.server.auth_mechanisms:
        return found
    tls = talk.generation.tls
    end_point = tls.end_point(session) if tls else b""
    if end_point:
        found["tls-server-end-point"] = end_point  # RFC 5929 §4
    if _EXPORTER in ssl.CHANNEL_BINDING_TYPES:  # RFC 9266; not before some Python
        exported = session.get_channel_binding(_EXPORTER)
        if exported:
            found[_EXPORTER] = exported
    return found


async def _go_on(talk: Talk, logins: Logins, attempt: Attempt, answer: Answer) -> None:
    """Take the exchange as far as it goes without the client."""
    while True:
        try:
            step = attempt.exchange.send(answer)
        except StopIteration as end:
            talk.attempt = None
            return await _end(talk, logins, attempt, end.value)
        match step:
            case Challenge(octets):
                return talk.core.reply(replies.challenge(octets))
            case Lost(failed):
                answer = None
                attempt.is_lost = True
                await _count(talk, logins, attempt.mechanism, failed)
            case question:
                if _is_barred(talk, logins):
                    return _bar(talk, attempt)
                answer = await logins.accounts.answer(question, talk.origin.client_ip)
                # Of guesses made side by side, too many may have failed by now: what
                # came of the others is nobody's business.
                if _is_barred(talk, logins):
                    return _bar(talk, attempt)


async def _end(talk: Talk, logins: Logins, attempt: Attempt, ended: Ended) -> None:
    if isinstance(ended, Failed):
        if not attempt.is_lost:
            await _count(talk, logins, attempt.mechanism, ended)
        return _fail(talk, logins, ended)
    wait = logins.penalties.delay_of(ended.user, talk.tools.shop.clock().mono_us)
    if wait:
        await talk.stream.pause(wait)
    subject = Auth(ended.user, attempt.mechanism)
    verdict = await talk.generation.chain.decide("auth", talk.session, subject)
    refusal = talk.refusal(verdict, "AUTH", ended.user)
    if refusal is not None:
        # RFC 4954 §6: codes that AUTH knows
        code = 454 if refusal.code < 500 else 535
        reply = Reply(code, refusal.status, refusal.lines)
        return talk.core.reply(tempo.refused(talk, "AUTH", reply))
    _succeed(talk, attempt.mechanism, ended)


def _succeed(talk: Talk, mechanism: Mechanism, proven: Proven) -> None:
    talk.core.reply(replies.LOGGED_IN)
    talk.is_now(
        msgspec.structs.replace(talk.origin, login=proven.user, protocol=talk.protocol)
    )
    talk.tools.shop.emit(
        LoggedIn(
            utc_us=talk.tools.shop.now_us(),
            service=SERVICE,
            origin=talk.origin,
            user=proven.user,
            mechanism=mechanism,
        )
    )


async def _count(
    talk: Talk, logins: Logins, mechanism: Mechanism, failed: Failed
) -> None:
    """Tell of a failure, make it cost something, and hold the answer back."""
    now = talk.tools.shop.clock()
    talk.tools.shop.emit(
        LoginFailed(
            utc_us=now.utc_us,
            service=SERVICE,
            origin=talk.origin,
            user=failed.login,
            mechanism=mechanism,
            reason=failed.reason,
        )
    )
    if failed.kind in ("wrong", "malformed"):
        talk.failed_logins += 1
        wait = logins.penalties.failed(talk.origin.client_ip, failed.login, now.mono_us)
        if wait:
            await talk.stream.pause(wait)


def _fail(talk: Talk, logins: Logins, failed: Failed) -> None:
    if talk.failed_logins >= logins.settings.failures_max:
        talk.leaving = "errors"
        return talk.core.reply(_TOO_MANY)
    match failed.kind:
        case "later":
            talk.core.reply(tempo.refused(talk, "AUTH", _LATER))
        case "unwanted":
            talk.core.reply(tempo.refused(talk, "AUTH", _UNWANTED))
        case _:
            talk.core.reply(replies.LOGIN_FAILED)


def _is_barred(talk: Talk, logins: Logins) -> bool:
    mono_us = talk.tools.shop.clock().mono_us
    return logins.penalties.is_barred(talk.origin.client_ip, mono_us)


def _bar(talk: Talk, attempt: Attempt) -> None:
    """End an exchange unheard: its address has failed too often since it began."""
    talk.attempt = None
    talk.rejected("AUTH", attempt.mechanism, _BARRED, "failures_per_client")
    talk.core.reply(tempo.refused(talk, "AUTH", _BARRED))


def _objection(
    talk: Talk, logins: Logins | None, name: str, channel: Channel
) -> tuple[Reply, str] | None:
    """Say why a mechanism cannot be used now, and the rule behind it."""
    if logins is None or name not in MECHANISMS:
        return replies.NO_MECHANISM, "auth-mechanism"
    if name not in logins.offered(talk.face.server.auth_mechanisms, channel):
        if needs_secrecy(name) and not logins.keeps_secrets(channel):
            return _NEEDS_TLS, "auth-needs-tls"
        return replies.NO_MECHANISM, "auth-mechanism"
    if _is_barred(talk, logins):
        return _BARRED, "failures_per_client"
    return None


def _is_own(talk: Talk, auth: str) -> bool:
    """Whether what MAIL AUTH= says, in xtext, is the login's own address."""
    if not talk.core.authenticated or auth == _NOBODY:
        return False
    try:
        address = Address.from_text(from_xtext(auth))
    except AddressError:
        return False
    is_here = talk.generation.router.is_local(address.domain_key)
    return is_here and address.local.lower() == talk.origin.login
