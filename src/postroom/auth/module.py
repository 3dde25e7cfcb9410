"""A site's own Python as the keeper of accounts (``backend = "python"``).

::

    def check_password(login, password):
        "Return the user's name, or None."
        row = directory.search(login)
        return row.name if row and row.bind(password) else None

    def find_user(name):  # if EXTERNAL, tokens or names to act as are wanted
        row = directory.search(name)
        return row.name if row else None

Both run in threads, few at a time, and may wait, up to ``module_timeout``. What raises
or overruns its time is ``Unavailable``: the client is told to come back later.
"""

import asyncio
import importlib.util
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

from postroom.auth.backend import PasswordsOnly
from postroom.auth.file import check_name
from postroom.auth.sasl import Known, Unavailable, Unknown, Verdict
from postroom.auth.settings import AuthSettings

_NAME = "postroom_site_logins"
_WRONG = Unknown("wrong user or password")

Ask = Callable[..., object]


class ModuleAccounts(PasswordsOnly):
    """Asks a module.

    Args:
        settings: the module's path, bounds and times.
        threads: how many calls at a time.

    Raises:
        ValueError: the module cannot be loaded, or has no ``check_password``.
    """

    def __init__(self, settings: AuthSettings, threads: int) -> None:
        module = load(settings.module)
        self._check: Ask = module.check_password
        self._find: Ask | None = getattr(module, "find_user", None)
        self._settings = settings
        self._pool = ThreadPoolExecutor(threads, "postroom-site-logins")
        self._pending = 0
        self._pending_max = threads + settings.waiting_max

    async def check_password(
        self, login: str, password: bytes, client_ip: str = ""
    ) -> Verdict:
        """Ask the module."""
        try:
            text = password.decode()
        except UnicodeDecodeError:
            return _WRONG
        return await self._ask(self._check, login, text)

    async def find_user(self, name: str) -> Verdict:
        """Ask the module, if it can say."""
        if self._find is None:
            return Unknown("the module has no find_user")
        return await self._ask(self._find, name)

    def close(self) -> None:
        """End the threads, without waiting for calls in hand."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _ask(self, function: Ask, *given: str) -> Verdict:
        if self._pending >= self._pending_max:
            return Unavailable("too many password checks wait")
        self._pending += 1
        asked = self._pool.submit(function, *given)
        # Not when we are tired of waiting: until then the thread is taken.
        loop = asyncio.get_running_loop()
        asked.add_done_callback(lambda _: loop.call_soon_threadsafe(self._done))
        seconds = self._settings.module_timeout.seconds
        try:
            found = await asyncio.wait_for(asyncio.wrap_future(asked), seconds)
        except TimeoutError:
            return Unavailable(f"{function.__name__} took more than {seconds:g} s")
        except Exception as error:
            return Unavailable(f"{function.__name__}: {error!r}")
        return _verdict(found)

    def _done(self) -> None:
        self._pending -= 1


def load(path: str) -> ModuleType:
    """Load the module.

    Raises:
        ValueError: it cannot be loaded, or has no ``check_password``.
    """
    spec = importlib.util.spec_from_file_location(_NAME, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"auth.module: {path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever a site's file does
        raise ValueError(f"auth.module: {path}: {error!r}") from error
    if not callable(getattr(module, "check_password", None)):
        raise ValueError(f"auth.module: {path} has no check_password(login, password)")
    return module


def _verdict(found: object) -> Verdict:
    if found is None:
        return _WRONG
    if not isinstance(found, str):
        return Unavailable(f"the module gave {found!r:.80}: not a name, nor None")
    try:
        return Known(check_name(found))
    except ValueError as error:
        return Unavailable(f"the module: {error}")
