"""What asks the authorization server about bearer tokens (RFC 7662).

Each question is one HTTPS request in a thread, with a time-out, a bound on the answer,
no redirects and no proxies; few at a time. A good answer is remembered for a short
time, under a hash of the token. What goes wrong on the way is ``Unavailable``.
"""

import asyncio
import base64
import hashlib
import http.client
import os
import ssl
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from postroom.auth.jwt import Claims, check_claims
from postroom.auth.sasl import Known, Unavailable, Unknown, Verdict
from postroom.auth.settings import TokenSettings
from postroom.auth.tokens import rules_of, user_in
from postroom.mail.now import SECOND_US, Now

THREADS = 4
WAITING_MAX = 100
"""Tokens that may wait to be asked about, per worker; others get 454 4.7.0."""


class Endpoint(NamedTuple):
    """Where the authorization server is asked."""

    is_tls: bool
    host: str
    port: int
    path: str


def endpoint_of(url: str) -> Endpoint:
    """Read the URL.

    Raises:
        ValueError: it cannot be used; the text says why.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("https", "http") or not parts.hostname:
        raise ValueError("introspection_url is no https URL")
    if parts.username or parts.password or parts.fragment:
        raise ValueError("introspection_url has a user or a fragment: take it out")
    is_tls = parts.scheme == "https"
    if not is_tls and not _is_here(parts.hostname):
        raise ValueError("introspection_url would send tokens in the clear: use https")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    port = parts.port or (443 if is_tls else 80)
    return Endpoint(is_tls, parts.hostname, port, path)


class AskedTokens:
    """Verifies tokens by asking.

    Raises:
        ValueError: the settings cannot be used.
    """

    def __init__(self, settings: TokenSettings, clock: Callable[[], Now]) -> None:
        self._settings = settings
        self._endpoint = endpoint_of(settings.introspection_url)
        self._headers = _headers(settings)
        self._context = _context(settings) if self._endpoint.is_tls else None
        self._rules = rules_of(settings)
        self._clock = clock
        self._pool = ThreadPoolExecutor(THREADS, "postroom-token")
        self._pending = 0
        self._key = os.urandom(32)
        self._remembered: dict[bytes, tuple[int, Verdict]] = {}

    async def verify(self, token: str) -> Verdict:
        """Say whom the token is for."""
        digest = hashlib.blake2b(token.encode(), key=self._key, digest_size=32).digest()
        now = self._clock()
        until_us, known = self._remembered.get(digest, (0, None))
        if known is not None and until_us > now.mono_us:
            return known
        if self._pending >= THREADS + WAITING_MAX:
            return Unavailable("too many tokens wait to be asked about")
        self._pending += 1
        try:
            loop = asyncio.get_running_loop()
            answer = await loop.run_in_executor(self._pool, self._ask, token)
        finally:
            self._pending -= 1
        if isinstance(answer, str):
            return Unavailable(f"introspection: {answer}")
        utc_s = now.utc_us // SECOND_US
        verdict = self._judge(answer, utc_s)
        if isinstance(verdict, Known):
            left_us = SECOND_US * min(answer.get("exp", utc_s + 3600) - utc_s, 3600)
            self._remember(digest, now.mono_us, int(left_us), verdict)
        return verdict

    def close(self) -> None:
        """End the threads, without waiting for what they ask."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _judge(self, claims: Claims, utc_s: int) -> Verdict:
        if claims.get("active") is not True:  # RFC 7662 §2.2
            return Unknown("the token is not active")
        # RFC 7662 §2.2: exp, iss and aud are optional here; the server has judged them.
        stated = {"exp": utc_s + 1, "iss": self._rules.issuer, **claims}
        problem = check_claims(stated, self._rules, utc_s)
        if problem:
            return Unknown(f"the token {problem}")
        return user_in(claims, self._settings.user_claim)

    def _remember(
        self, digest: bytes, now_us: int, left_us: int, verdict: Verdict
    ) -> None:
        settings = self._settings
        if not (settings.remember and settings.remembered_max):
            return
        self._remembered.pop(digest, None)
        if len(self._remembered) >= settings.remembered_max:
            del self._remembered[next(iter(self._remembered))]
        until_us = now_us + min(int(settings.remember), max(left_us, 0))
        self._remembered[digest] = (until_us, verdict)

    def _ask(self, token: str) -> Claims | str:
        """Ask; returns the answer, or what went wrong. Runs in a thread."""
        connection = self._connection()
        # A time-out of the library is per read: a server that trickles is cut off.
        timer = threading.Timer(self._settings.timeout.seconds, _cut, (connection,))
        timer.daemon = True
        timer.start()
        try:
            body = urlencode({"token": token, "token_type_hint": "access_token"})
            connection.request("POST", self._endpoint.path, body, self._headers)
            response = connection.getresponse()
            if response.status != 200:
                return f"HTTP status {response.status}"
            bound = int(self._settings.answer_octets_max)
            octets = response.read(bound + 1)
            if len(octets) > bound:
                return "the answer is too long"
            found = msgspec.json.decode(octets)
        except (OSError, http.client.HTTPException, ValueError) as error:
            return f"{type(error).__name__}: {error}"
        finally:
            timer.cancel()
            connection.close()
        return found if isinstance(found, dict) else "the answer is no JSON object"

    def _connection(self) -> http.client.HTTPConnection:
        where, timeout_s = self._endpoint, self._settings.timeout.seconds
        if self._context is None:
            return http.client.HTTPConnection(where.host, where.port, timeout_s)
        return http.client.HTTPSConnection(
            where.host, where.port, timeout=timeout_s, context=self._context
        )


def _cut(connection: http.client.HTTPConnection) -> None:
    if connection.sock is not None:
        try:
            connection.sock.shutdown(2)
        except OSError:
            connection.sock.close()


def _headers(settings: TokenSettings) -> dict[str, str]:
    headers = {
        "Content-Type": "application/x-www-form-urlencoded",
        "Accept": "application/json",
        "User-Agent": "Postroom",
    }
    if settings.client_id:
        # RFC 6749 §2.3.1: both are encoded as in a form
        secret = _secret(settings.client_secret_file)
        pair = f"{quote(settings.client_id, safe='')}:{quote(secret, safe='')}"
        headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
    return headers


def _secret(path: str) -> str:
    if not path:
        return ""
    try:
        return Path(path).read_text().partition("\n")[0].strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"client_secret_file: {path}: {error}") from None


def _context(settings: TokenSettings) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=settings.ca_file or None)
    except OSError as error:
        raise ValueError(f"ca_file: {settings.ca_file}: {error}") from None


def _is_here(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
