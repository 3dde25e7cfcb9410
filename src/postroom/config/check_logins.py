"""``postroom check`` of logins: what is unsafe, and what cannot work."""

import ctypes
import os
import stat
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

from postroom.auth import module
from postroom.auth.file import UsersError, read_users
from postroom.auth.introspection import endpoint_of
from postroom.auth.jwt import read_keys
from postroom.auth.mechanisms import Ability, Mechanism, needs_secrecy, offered
from postroom.config.check_files import unsafe_file
from postroom.config.findings import Finding, Findings, problem, warning
from postroom.config.settings import SMTP_SERVICES, Config, Listen
from postroom.helper.pam import LIBRARY

_PAM_DIRECTORIES = ("/etc/pam.d", "/usr/lib/pam.d")


def login_findings(config: Config) -> Findings:
    """Check who can log in, where, and by what."""
    for listen in config.listen:
        if listen.service in SMTP_SERVICES and listen.login != "off":
            yield from _listener_findings(config, listen)
    if "CRAM-MD5" in config.auth.mechanisms:
        yield warning(
            "auth.mechanisms: CRAM-MD5 does not prove the server, and its secrets are "
            "as good as passwords to a thief: take it out unless an old client needs it"
        )
    yield from _backend_findings(config)
    yield from _token_findings(config)
    yield from _certificate_findings(config)


def _listener_findings(config: Config, listen: Listen) -> Iterator[Finding]:
    if listen.login == "auto" and listen.service != "submission":
        return
    where, is_tls = listen.address, config.tls_of(listen) != "off"
    secrecy = is_tls or _takes_secrets(config, listen)
    found = _offered(config, is_tls=is_tls, secrecy=secrecy)
    if not found:
        yield problem(
            f"listen: {where}: users have to log in, but nothing that they could log "
            "in with works there: give it TLS, and see mechanisms and backend in [auth]"
        )
    elif not secrecy and not any(needs_secrecy(name) for name in found):
        yield warning(
            f"listen: {where}: has no TLS, so clients that know only PLAIN and LOGIN "
            "cannot log in: name a certificate in [[tls.certificate]]"
        )
    is_far = not ip_address(listen.ip).is_loopback
    # Where TLS is only offered, a client may do without it.
    is_open = config.tls_of(listen) in ("off", "starttls")
    if config.auth.plaintext == "always" and is_far and is_open:
        yield warning(
            f'auth.plaintext: is "always": passwords may cross the network readable at '
            f'{where}: write plaintext = "never", or tls = "required" for the listener'
        )


def _offered(config: Config, *, is_tls: bool, secrecy: bool) -> tuple[Mechanism, ...]:
    """Return what clients will be offered at best."""
    auth, abilities = config.auth, set[Ability](("password",))
    if auth.backend == "users":
        abilities |= {"scram"} if auth.scram else set()
        abilities |= {"cram"} if auth.cram_md5 else set()
    if auth.tokens.verifier != "none":
        abilities.add("token")
    named = is_tls and config.tls.client_certificates != "off"
    return offered(
        auth.mechanisms, abilities, secrecy=secrecy, binds=is_tls, named=named
    )


def _takes_secrets(config: Config, listen: Listen) -> bool:
    match config.auth.plaintext:
        case "always":
            return True
        case "loopback":
            return ip_address(listen.ip).is_loopback
        case _:
            return False


def _backend_findings(config: Config) -> Findings:
    auth = config.auth
    if auth.backend == "pam":
        yield from _pam_findings(config)
    if auth.backend == "python":
        yield from unsafe_file(auth.module)
        try:
            module.load(auth.module)
        except ValueError as error:
            yield problem(str(error))


def _pam_findings(config: Config) -> Findings:
    service = config.auth.pam_service
    try:
        ctypes.CDLL(LIBRARY)
    except OSError:
        yield problem(f'auth.backend: is "pam", but {LIBRARY} is not there: install it')
    if not any(Path(one, service).exists() for one in _PAM_DIRECTORIES):
        yield problem(
            f"auth.pam_service: there is no /etc/pam.d/{service}, so what holds for "
            '"other" would hold: make it, with lines for auth and account'
        )
    if os.geteuid() != 0:
        yield warning(
            'auth.backend: is "pam": only a server that root starts can check the '
            "passwords of others"
        )


def _token_findings(config: Config) -> Findings:
    tokens = config.auth.tokens
    if tokens.verifier == "jwt":
        yield from unsafe_file(tokens.jwks_file)
        try:
            read_keys(Path(tokens.jwks_file).read_bytes())
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            yield problem(f"auth.tokens.jwks_file: {tokens.jwks_file}: {reason}")
    if tokens.verifier == "introspection":
        try:
            endpoint_of(tokens.introspection_url)
        except ValueError as error:
            yield problem(f"auth.tokens: {error}")
        if not tokens.audience:
            yield warning(
                "auth.tokens.audience: is empty: a token that a user has given to any "
                "other service would do here, unless the authorization server objects"
            )
    path = tokens.client_secret_file
    if path and _is_open(path):
        yield warning(
            f"auth.tokens.client_secret_file: {path}: others may read it: "
            f"chmod 600 {path}"
        )


def _is_open(path: str) -> bool:
    try:
        return bool(os.stat(path).st_mode & (stat.S_IROTH | stat.S_IWOTH))
    except OSError:
        return False


def _certificate_findings(config: Config) -> Findings:
    auth = config.auth
    if config.tls.client_certificates == "off" or "EXTERNAL" not in auth.mechanisms:
        return
    if auth.certificate_user == "table" and not auth.certificates:
        yield warning(
            'auth.certificate_user: is "table", but auth.certificates names nobody: '
            "nobody can log in by a certificate"
        )
    if auth.backend != "users":
        return
    try:
        users = read_users(config.users_file)
    except UsersError:
        return  # told elsewhere
    for user in sorted(set(auth.certificates.values()) - set(users)):
        yield warning(f'auth.certificates: there is no user "{user}"')
