"""Opens what a worker's clients log in with: the accounts, and who checks tokens."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from postroom.auth.backend import Accounts, Backend, TokenVerifier, UsersFile
from postroom.auth.introspection import AskedTokens
from postroom.auth.module import ModuleAccounts
from postroom.auth.penalties import Penalties
from postroom.auth.sasl import CheckPassword, Known, Unavailable
from postroom.auth.stand_in import read_secret
from postroom.auth.throttle import PasswordChecks, threads_for
from postroom.auth.tokens import SignedTokens
from postroom.auth.users import Users
from postroom.config.settings import Config
from postroom.helper.client import PamAccounts
from postroom.helper.requests import SOCKET_NAME
from postroom.limits.shared import SharedCounters
from postroom.mail.envelope import Origin
from postroom.net.clock import read_now
from postroom.observe.events import AnyEvent, Lifecycle
from postroom.services.logins import Logins
from postroom.services.retrieve import LoginUnavailable

Emit = Callable[[AnyEvent], None]


def open_users(config: Config, domains: tuple[str, ...], emit: Emit) -> Users:
    """Open the users file; what is in it is read by ``refresh``."""
    path = f"{config.spool.directory}/login-secret"
    secret = b""
    try:
        secret = read_secret(path)
    except OSError as error:
        what = f"strangers can be told from users: {path}: {error.strerror or error}"
        emit(Lifecycle(utc_us=read_now().utc_us, what=what, level="warning"))
    return Users(config.users_file, config.auth, domains, secret)


def open_logins(
    config: Config, users: Users, counters: SharedCounters, workers: int, emit: Emit
) -> Logins:
    """Open the accounts of one worker of so many.

    Raises:
        ValueError: the settings cannot be used; the text says why.
    """
    auth = config.auth
    accounts = Accounts(_backend(config, users, workers, emit), _tokens(config, emit))
    penalties = Penalties(auth, counters, lambda: users.domains)
    return Logins(accounts, auth, penalties, config.hostname)


async def check_login(
    accounts: Accounts, login: str, password: str, origin: Origin
) -> str | LoginUnavailable | None:
    """Check a password for a service that knows nothing else (POP3)."""
    octets = password.encode("utf-8", "surrogateescape")
    match await accounts.answer(CheckPassword(login, octets), origin.client_ip):
        case Known(user):
            return user
        case Unavailable(reason):
            return LoginUnavailable(reason)
        case _:
            return None


def _backend(config: Config, users: Users, workers: int, emit: Emit) -> Backend:
    auth = config.auth
    threads = threads_for(auth, os.cpu_count() or 1, max(1, workers))
    match auth.backend:
        case "users":
            checks = PasswordChecks(users, auth, threads, emit, read_now)
            return UsersFile(users, checks)
        case "pam":
            path = f"{config.run_directory}/{SOCKET_NAME}"
            return PamAccounts(path, auth, lambda: users.domains)
        case "python":
            return ModuleAccounts(auth, threads)


def _tokens(config: Config, emit: Emit) -> TokenVerifier | None:
    tokens = config.auth.tokens
    match tokens.verifier:
        case "none":
            return None
        case "jwt":
            pool = ThreadPoolExecutor(1, "postroom-keys")
            return SignedTokens(tokens, pool, emit, read_now)
        case "introspection":
            return AskedTokens(tokens, read_now)
