"""The worker's side of the helper: PAM as a keeper of accounts.

A login is the name of a system user, or that and one of our domains. PAM says whether
the password is right; who has a mailbox is still said by the users file. A helper that
is not there, or takes too long, is ``Unavailable``.
"""

import asyncio
import pwd
from collections.abc import Callable, Collection

from postroom.auth.backend import PasswordsOnly
from postroom.auth.file import check_name
from postroom.auth.sasl import Known, Unavailable, Unknown, Verdict
from postroom.auth.settings import AuthSettings
from postroom.helper.requests import (
    ANSWER_OCTETS_MAX,
    HEAD_OCTETS,
    Answer,
    Broken,
    Denied,
    FrameError,
    Granted,
    Request,
    length_in,
    read_answer,
    to_frame,
)
from postroom.mail.now import SECOND_US
from postroom.mail.units import Duration
from postroom.net.clock import read_mono_us
from postroom.net.connect import connect_unix
from postroom.net.stream import Stream, StreamError

AT_A_TIME = 8
"""Checks that one worker has running in the helper."""
_CONNECT = Duration(5 * SECOND_US)
_GRACE_US = 2 * SECOND_US


class PamAccounts(PasswordsOnly):
    """Asks PAM by way of the helper.

    Args:
        path: the helper's socket.
        settings: bounds and times.
        domains: gives our own domains, in lower case.
    """

    def __init__(
        self, path: str, settings: AuthSettings, domains: Callable[[], Collection[str]]
    ) -> None:
        self._path = path
        self._settings = settings
        self._domains = domains
        self._places = asyncio.Semaphore(AT_A_TIME)
        self._pending = 0

    async def check_password(
        self, login: str, password: bytes, client_ip: str = ""
    ) -> Verdict:
        """Ask PAM."""
        user = self._user(login)
        if user is None:
            return Unknown("not the name of a user")
        if self._pending >= AT_A_TIME + self._settings.waiting_max:
            return Unavailable("too many password checks wait")
        self._pending += 1
        try:
            async with self._places:
                answer = await self._ask(Request(user, password, client_ip))
        finally:
            self._pending -= 1
        return _verdict(answer)

    async def find_user(self, name: str) -> Verdict:
        """Ask the system whether it has such a user."""
        user = self._user(name)
        if user is None or not await asyncio.to_thread(_exists, user):
            return Unknown("no such user")
        return Known(user)

    def _user(self, login: str) -> str | None:
        local, at, domain = login.lower().rpartition("@")
        try:
            return check_name(local if at and domain in self._domains() else login)
        except ValueError:
            return None

    async def _ask(self, request: Request) -> Answer:
        stream: Stream | None = None
        try:
            stream = await connect_unix(self._path, timeout=_CONNECT)
            stream.set_deadline(read_mono_us() + self._settings.pam_timeout + _GRACE_US)
            stream.write(to_frame(request))
            return read_answer(await _frame(stream))
        except (OSError, StreamError, FrameError) as error:
            return Broken(f"the PAM helper does not answer: {error}")
        finally:
            if stream is not None:
                stream.abort()


async def _frame(stream: Stream) -> bytes:
    octets = b""
    while len(octets) < HEAD_OCTETS:
        octets += await _more(stream)
    length = length_in(octets[:HEAD_OCTETS], ANSWER_OCTETS_MAX)
    while len(octets) < HEAD_OCTETS + length:
        octets += await _more(stream)
    return octets[HEAD_OCTETS : HEAD_OCTETS + length]


async def _more(stream: Stream) -> bytes:
    octets = await stream.read()
    if not octets:
        raise FrameError("it ended before its answer")
    return octets


def _verdict(answer: Answer) -> Verdict:
    match answer:
        case Granted(user):
            try:
                return Known(check_name(user))
            except ValueError as error:
                return Unavailable(f"PAM: {error}")
        case Denied(reason):
            return Unknown(reason)
        case Broken(reason):
            return Unavailable(reason)


def _exists(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True
