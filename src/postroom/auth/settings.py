"""Settings of logins: how passwords are kept and checked, and what clients may use."""

import re
from typing import Literal

import msgspec

from postroom.mail.units import Duration, Size

SCRAM_ITERATIONS_MIN = 4096  # RFC 7677 §4

PASSWORD_OCTETS_MAX = 1024
"""How long a password may be; no setting, since old passwords must keep working."""


MECHANISMS = (
    "SCRAM-SHA-256-PLUS",
    "SCRAM-SHA-256",
    "EXTERNAL",
    "OAUTHBEARER",
    "XOAUTH2",
    "PLAIN",
    "LOGIN",
    "CRAM-MD5",
)
"""All SASL mechanisms that there are, in the order in which they are offered."""


class TokenSettings(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True
):
    """Bearer tokens, for OAUTHBEARER (RFC 7628) and XOAUTH2, and who checks them."""

    verifier: Literal["none", "jwt", "introspection"] = "none"
    """``jwt`` checks a signature with the keys in ``jwks_file``; ``introspection`` asks
    the authorization server about each token (RFC 7662)."""

    issuer: str = ""
    """Who has to have made the token, as its ``iss`` says; ``jwt`` needs it."""

    audience: str = ""
    """Whom the token has to be for (``aud``). ``jwt`` needs it: without it any token
    of the issuer would do, also one that was given to another service."""

    scope: str = ""
    """A scope that the token has to have; clients are told of it. Empty: none."""

    user_claim: str = "email"
    """Which claim names the user, such as ``email``, ``preferred_username``, ``sub``;
    of introspection ``username`` too."""

    jwks_file: str = ""
    """The issuer's public keys, a JSON Web Key Set (RFC 7517 §5). It is read again when
    it changes. RS256, ES256 and EdDSA are taken."""

    leeway: Duration = Duration.from_text("30s")
    """How far the issuer's clock may be off."""

    introspection_url: str = ""
    """Where the authorization server is asked; ``https``, or ``http`` on this host."""

    client_id: str = ""
    """Who we are to the authorization server."""

    client_secret_file: str = ""
    """A file whose first line is our password there."""

    ca_file: str = ""
    """Certificates that vouch for the authorization server; empty: the system's."""

    timeout: Duration = Duration.from_text("5s")
    """How long it may take to answer; then the client gets 454 4.7.0."""

    remember: Duration = Duration.from_text("1m")
    """How long an answer about a token is not asked again."""

    remembered_max: int = 10_000
    """Tokens remembered in each worker; the oldest goes first."""

    answer_octets_max: Size = Size.from_text("64KiB")
    """Longest answer of the authorization server; a longer one counts as none."""

    openid_configuration: str = ""
    """A URL where clients learn how to get a token (RFC 7628 §3.2.2)."""

    def __post_init__(self) -> None:
        """Check what the types do not."""
        wanted = _TOKENS_NEED.get(self.verifier, ())
        for name in wanted:
            if not getattr(self, name):
                raise ValueError(f'verifier = "{self.verifier}" needs {name}')
        if self.timeout < 1:
            raise ValueError("timeout must be more than 0")


_TOKENS_NEED = {
    "jwt": ("issuer", "audience", "jwks_file", "user_claim"),
    "introspection": ("introspection_url", "user_claim"),
}


class AuthSettings(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True
):
    """Logins: who may, how they prove it, and what failures cost."""

    backend: Literal["users", "pam", "python"] = "users"
    """Who keeps the passwords: ``users``, our users file; ``pam``, the system's, by way
    of a helper that runs as root; ``python``, a file of your own (``module``)."""

    mechanisms: tuple[str, ...] = MECHANISMS[:-1]
    """What clients may log in with (RFC 4954), where a listener lets them. Only what
    works is offered: passwords under TLS, SCRAM where a user has a verifier, EXTERNAL
    to who has shown a certificate, tokens if ``auth.tokens`` can check them."""

    plaintext: Literal["never", "loopback", "always"] = "never"
    """Where passwords and tokens are taken on SMTP connections without TLS; elsewhere
    538 5.7.11."""

    failures_max: int = 3
    """Failed logins in one SMTP session, of which the last is answered by 421 4.7.0."""

    failure_delay: Duration = Duration.from_text("2s")
    """How long the answer to a failed SMTP login is held back."""

    failures_per_client: int = 20
    """Failed SMTP logins from one address (IPv6: one /64) per ``failures_period``;
    further logins from there get 454 4.7.0 without being checked."""

    failures_per_user: int = 100
    """Failed SMTP logins in the name of one user per ``failures_period``, from
    wherever; the answers to further ones, good or bad, wait ``failure_delay_max``, so
    that guessing is slow and nobody is locked out."""

    failures_period: Duration = Duration.from_text("10m")
    """See ``failures_per_client``, ``failures_per_user``."""

    failure_delay_max: Duration = Duration.from_text("20s")
    """See ``failures_per_user``."""

    certificate_user: Literal["email", "cn", "table"] = "email"
    """What of a client's certificate names the user, for EXTERNAL: an address in its
    subject alternative names, the common name, or ``certificates``."""

    certificates: dict[str, str] = msgspec.field(default_factory=dict)
    """Users by the SHA-256 fingerprint of their certificate, for ``table``."""

    tokens: TokenSettings = TokenSettings()
    """Bearer tokens."""

    pam_service: str = "postroom"
    """The PAM service: the file in ``/etc/pam.d`` that says what is asked."""

    pam_timeout: Duration = Duration.from_text("20s")
    """How long PAM may take for one password; then 454 4.7.0."""

    module: str = ""
    """A Python file with ``check_password(login, password)``, for ``python``."""

    module_timeout: Duration = Duration.from_text("10s")
    """How long that may take; then 454 4.7.0."""

    argon2_memory: Size = Size.from_text("19MiB")
    """Memory that one password hash takes; counts for passwords set from now on."""

    argon2_passes: int = 2
    """How often that memory is gone through."""

    argon2_lanes: int = 1
    """Lanes of argon2id; more make no sense where each check has one thread."""

    scram: bool = True
    """Whether a SCRAM-SHA-256 verifier is stored beside the hash, so that clients can
    log in without sending the password. Whoever steals the users file can test
    guesses against it faster than against argon2id."""

    scram_iterations: int = 15_000
    """Iterations of that verifier, at least 4096 (RFC 7677 §4)."""

    cram_md5: bool = False
    """Whether a secret for CRAM-MD5 is stored beside the hash. Whoever steals it can
    log in with it: leave it off unless an old client needs it."""

    threads: int = 0
    """Password checks at a time in each worker; 0 divides the machine's cores among
    the workers."""

    waiting_max: int = 200
    """Password checks that may wait in each worker; more are told to come back later
    (POP3 ``[SYS/TEMP]``, SMTP ``454 4.7.0``)."""

    remember: Duration = Duration.from_text("2m")
    """How long a password that was right is not hashed again; ``"0s"`` for never. A
    changed or removed entry counts at once."""

    remembered_max: int = 10_000
    """Logins remembered in each worker; the oldest goes first."""

    refresh: Duration = Duration.from_text("1s")
    """How old the users file in memory may be at a login."""

    @property
    def certificate_table(self) -> dict[str, str]:
        """``certificates`` by fingerprints in small digits without colons."""
        if not any(":" in name or not name.islower() for name in self.certificates):
            return self.certificates
        found = self.certificates.items()
        return {name.replace(":", "").lower(): user for name, user in found}

    def __post_init__(self) -> None:
        """Check what the types do not."""
        if self.scram_iterations < SCRAM_ITERATIONS_MIN:
            raise ValueError(f"scram_iterations is below {SCRAM_ITERATIONS_MIN}")
        if self.argon2_passes < 1 or self.argon2_lanes < 1:
            raise ValueError("argon2_passes and argon2_lanes must be at least 1")
        if self.argon2_memory < 8192 * self.argon2_lanes:
            raise ValueError("argon2_memory must be at least 8KiB per lane")
        unknown = set(self.mechanisms) - set(MECHANISMS)
        if unknown:
            known = ", ".join(MECHANISMS)
            raise ValueError(f"mechanisms: {sorted(unknown)[0]}: known are {known}")
        for name in _AT_LEAST_ONE:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        if self.backend == "python" and not self.module:
            raise ValueError('backend = "python" needs module')
        for name in self.certificates:
            if not re.fullmatch(r"[0-9a-f]{64}", name.replace(":", "").lower()):
                raise ValueError(
                    f"certificates: {name[:80]} is no SHA-256 fingerprint: see "
                    '"openssl x509 -noout -fingerprint -sha256"'
                )
        if self.threads < 0 or self.waiting_max < 0 or self.remembered_max < 0:
            raise ValueError("threads, waiting_max, remembered_max: not below 0")


_AT_LEAST_ONE = (
    "failures_max",
    "failures_per_client",
    "failures_per_user",
    "failures_period",
    "pam_timeout",
    "module_timeout",
)
