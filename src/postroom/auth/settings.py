"""Settings of password storage and password checks."""

import msgspec

from postroom.mail.units import Duration, Size

SCRAM_ITERATIONS_MIN = 4096  # RFC 7677 §4

PASSWORD_OCTETS_MAX = 1024
"""How long a password may be; no setting, since old passwords must keep working."""


class AuthSettings(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True
):
    """The ``[auth]`` section."""

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

    def __post_init__(self) -> None:
        """Check what the types do not."""
        if self.scram_iterations < SCRAM_ITERATIONS_MIN:
            raise ValueError(f"scram_iterations is below {SCRAM_ITERATIONS_MIN}")
        if self.argon2_passes < 1 or self.argon2_lanes < 1:
            raise ValueError("argon2_passes and argon2_lanes must be at least 1")
        if self.argon2_memory < 8192 * self.argon2_lanes:
            raise ValueError("argon2_memory must be at least 8KiB per lane")
        if self.threads < 0 or self.waiting_max < 0 or self.remembered_max < 0:
            raise ValueError("threads, waiting_max, remembered_max: not below 0")
