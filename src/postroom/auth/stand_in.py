"""The secret behind strangers' salts: one for all workers, and the same for ever.

A client that asks for the salt of a user who does not exist gets one made of this. If
it changed from worker to worker, or at a restart, strangers could be told from users.
It lies in a file of the server's own, made at first use; without it the server works,
and is only less discreet.
"""

import os
from contextlib import suppress
from pathlib import Path

SECRET_OCTETS = 32


def read_secret(path: str) -> bytes:
    """Return the secret, made if need be.

    Raises:
        OSError: it can be neither read nor made.
    """
    file = Path(path)
    with suppress(FileNotFoundError):
        return _checked(file)
    aside = Path(f"{path}.{os.getpid()}")
    try:
        handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(handle, "wb") as made:
            made.write(os.urandom(SECRET_OCTETS))
            made.flush()
            os.fsync(made.fileno())
        with suppress(FileExistsError):  # another worker was quicker
            os.link(aside, file)
    finally:
        aside.unlink(missing_ok=True)
    return _checked(file)


def _checked(file: Path) -> bytes:
    secret = file.read_bytes()
    if len(secret) != SECRET_OCTETS:
        raise OSError(f"{file} is damaged: remove it")
    return secret
