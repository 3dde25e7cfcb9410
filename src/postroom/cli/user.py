"""``postroom user``: adds, changes, removes, lists and tests mail users.

Passwords come from a prompt, from standard input, or are generated; never from an
argument, which other users could see. Errors are one line, exit status 1.
"""

import os
import pwd
import secrets
import string
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeVar

import click
import msgspec

from postroom.auth.credentials import Credential, check_password, make_credentials
from postroom.auth.file import (
    User,
    UsersError,
    add_user,
    change_user,
    check_name,
    read_users,
    remove_user,
)
from postroom.auth.scram import prepare
from postroom.auth.settings import PASSWORD_OCTETS_MAX, AuthSettings
from postroom.config.load import default_path, load
from postroom.config.problems import ConfigError

GENERATED_LENGTH = 20  # 119 bits
_LETTERS = string.ascii_letters + string.digits

F = TypeVar("F", bound=Callable[..., Any])


class _Store(NamedTuple):
    """The users file, how passwords are hashed, and who owns a new file."""

    path: str
    settings: AuthSettings
    owner: tuple[int, int] | None


def _where(function: F) -> F:
    """Add the options that say which users file is meant."""
    for option in (
        click.option(
            "--users-file",
            metavar="FILE",
            help="The users file, in place of the one that the configuration names.",
        ),
        click.option(
            "--config",
            metavar="FILE",
            help="The configuration file (/etc/postroom/postroom.toml).",
        ),
    ):
        function = option(function)
    return function


def _password_options(function: F) -> F:
    """Add the options that say where the password comes from and how it is kept."""
    for option in (
        click.option(
            "--cram-md5",
            is_flag=True,
            help="Keep a secret for CRAM-MD5 too, for old clients; it can be abused "
            "by who steals the users file.",
        ),
        click.option(
            "--generate", is_flag=True, help="Make a password up and print it."
        ),
        click.option(
            "--password-stdin",
            is_flag=True,
            help="Read the password from standard input: its first line.",
        ),
    ):
        function = option(function)
    return function


@click.group()
def user() -> None:
    """Add, change, remove, list and test mail users."""


@user.command("add")
@click.argument("name")
@click.option("--no-login", is_flag=True, help="No password: gets mail, cannot log in.")
@_password_options
@_where
def add(
    name: str,
    no_login: bool,
    password_stdin: bool,
    generate: bool,
    cram_md5: bool,
    config: str | None,
    users_file: str | None,
) -> None:
    """Add the user NAME, with a password."""
    store, name = _store(config, users_file), _checked(name)
    if Path(store.path).exists() and name in _users(store.path):
        _fail(f'{store.path}: there is a user "{name}" already')
    password = None if no_login else _password(name, password_stdin, generate)
    credentials = _made(password, store, cram_md5) if password else ()
    _or_fail(lambda: add_user(store.path, User(name, credentials), store.owner))
    _told("added", name, password if generate else None)


@user.command("password")
@click.argument("name")
@_password_options
@_where
def password(
    name: str,
    password_stdin: bool,
    generate: bool,
    cram_md5: bool,
    config: str | None,
    users_file: str | None,
) -> None:
    """Give the user NAME a new password; the old one ends at once."""
    store, name = _store(config, users_file), _checked(name)
    if name not in _users(store.path):
        _fail(f'{store.path}: there is no user "{name}"')
    new = _password(name, password_stdin, generate)
    made = User(name, _made(new, store, cram_md5))
    _or_fail(lambda: change_user(store.path, made))
    _told("changed", name, new if generate else None)


@user.command("remove")
@click.argument("name")
@_where
def remove(name: str, config: str | None, users_file: str | None) -> None:
    """Remove the user NAME. The mailbox and its mail are left alone."""
    store, name = _store(config, users_file), _checked(name)
    _or_fail(lambda: remove_user(store.path, name))
    _told("removed", name, None)


@user.command("list")
@_where
def list_users(config: str | None, users_file: str | None) -> None:
    """List all users, and how each can log in."""
    users = _users(_store(config, users_file).path)
    width = max((len(name) for name in users), default=0)
    for name in sorted(users):
        schemes = [one.scheme for one in users[name].credentials]
        kept = f" (kept: {', '.join(schemes)})" if schemes else ""
        ways = ", ".join(_mechanisms(users[name])) or "no login"
        click.echo(f"{name:{width}}  {ways}{kept}")


@user.command("test")
@click.argument("name")
@click.option(
    "--password-stdin",
    is_flag=True,
    help="Read the password from standard input: its first line.",
)
@_where
def test(
    name: str, password_stdin: bool, config: str | None, users_file: str | None
) -> None:
    """Say whether a password is that of the user NAME; exit status 1 if not."""
    store, name = _store(config, users_file), _checked(name)
    if store.settings.backend != "users":
        _fail(
            f'auth.backend is "{store.settings.backend}": passwords are not in '
            f"{store.path}"
        )
    found = _users(store.path).get(name)
    if found is None:
        _fail(f'{store.path}: there is no user "{name}"')
    if not found.credentials:
        _fail(f"{name} has no password: postroom user password {name}")
    prepared = prepare(_password(name, password_stdin, False, again=False))
    wrong = [one.scheme for one in found.credentials if not one.matches(prepared)]
    if len(wrong) == len(found.credentials):
        _fail(f"this is not the password of {name}")
    if wrong:
        _fail(
            f"the password of {name} is right, but not for {', '.join(wrong)}: set it "
            f"anew (postroom user password {name})"
        )
    click.echo(f"right; {name} can log in by {', '.join(_mechanisms(found))}")


def _mechanisms(user: User) -> list[str]:
    """Return by what a user can log in, as far as the users file is concerned."""
    schemes = {one.scheme for one in user.credentials}
    found = ["SCRAM-SHA-256"] if "SCRAM-SHA-256" in schemes else []
    found += ["PLAIN", "LOGIN"] if schemes else []
    return found + (["CRAM-MD5"] if "CRAM-MD5" in schemes else [])


def _made(password: bytes, store: _Store, cram_md5: bool) -> tuple[Credential, ...]:
    settings = store.settings
    if cram_md5:
        settings = msgspec.structs.replace(settings, cram_md5=True)
    return make_credentials(password, settings)


def _store(config: str | None, users_file: str | None) -> _Store:
    """Find the users file; without any configuration its path alone is enough."""
    if users_file and not config:
        return _Store(users_file, AuthSettings(), None)
    try:
        whole = load(config or default_path())
    except ConfigError as error:
        _fail(str(error))
    return _Store(
        users_file or whole.users_file, whole.auth, _owner(whole.process.user)
    )


def _owner(service_user: str) -> tuple[int, int] | None:
    """Return who a new file is for: root makes it for the user the server runs as."""
    if os.geteuid() != 0 or not service_user:
        return None
    try:
        found = pwd.getpwnam(service_user)
    except KeyError:
        _fail(f'process.user: there is no system user "{service_user}"')
    return found.pw_uid, found.pw_gid


def _users(path: str) -> dict[str, User]:
    return _or_fail(lambda: read_users(path))


def _checked(name: str) -> str:
    return _or_fail(lambda: check_name(name))


def _password(
    name: str, from_stdin: bool, generate: bool, *, again: bool = True
) -> bytes:
    """Get the password from where the options say."""
    if from_stdin and generate:
        _fail("--password-stdin and --generate exclude each other")
    if generate:
        made = "".join(secrets.choice(_LETTERS) for _ in range(GENERATED_LENGTH))
        return made.encode()
    if from_stdin:
        line = sys.stdin.buffer.readline(PASSWORD_OCTETS_MAX + 3)
        given = line.rstrip(b"\r\n")
    else:
        text: str = click.prompt(
            f"Password for {name}",
            hide_input=True,
            confirmation_prompt=again,
            err=True,
        )
        given = text.encode("utf-8", "surrogateescape")
    _or_fail(lambda: check_password(given))
    return given


def _told(what: str, name: str, generated: bytes | None) -> None:
    click.echo(f"{what} {name}", err=generated is not None)
    if generated is not None:  # alone on standard output, for scripts
        click.echo(generated)


T = TypeVar("T")


def _or_fail(action: Callable[[], T]) -> T:
    try:
        return action()
    except (UsersError, ValueError) as error:
        _fail(str(error))


def _fail(reason: str) -> NoReturn:
    raise click.ClickException(reason)
