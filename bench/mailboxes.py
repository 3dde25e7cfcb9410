"""The mailboxes that both POP3 servers give out: same letters, same password."""

import os
import pwd
from pathlib import Path

from argon2 import PasswordHasher, Type

from postroom.testing.host import UNPRIVILEGED

PASSWORD = "a password of the bench"
LETTERS = 100
LETTER_OCTETS = 4096
LOOPERS = 8
_HEADER = (
    "Return-Path: <betty@src.test>\n"
    "Received: from src.test by postroom.test with ESMTP id ABC; Sat, 1 Nov 2025\n"
    "From: betty@src.test\nTo: joe@postroom.test\nSubject: letter {number}\n"
    "Message-Id: <{number}@src.test>\n\n"
)
_LINE = "What is written here is of no importance, only that there is enough of it.\n"


class Mailboxes:
    """Users with a Maildir of 100 letters each.

    Args:
        once: how many users there are who log in for the first time.

    Attributes:
        loopers: users who log in again and again.
        newcomers: users who log in once.
        secret: everybody's password as argon2id, at the cost Postroom has by default.
    """

    def __init__(self, once: int) -> None:
        self.loopers = [f"looper{n}" for n in range(LOOPERS)]
        self.newcomers = [f"newcomer{n}" for n in range(once)]
        hasher = PasswordHasher(2, 19456, 1, type=Type.ID)
        self.secret = hasher.hash(PASSWORD)

    @property
    def users(self) -> list[str]:
        """All of them."""
        return self.loopers + self.newcomers

    def make(self, folder: Path) -> None:
        """Make the Maildirs, by the users' names."""
        letters = folder / "letters"
        names = _write_letters(letters)
        for user in self.users:
            for part in ("tmp", "new", "cur"):
                (folder / user / part).mkdir(parents=True, mode=0o700)
            for name in names:
                os.link(letters / name, folder / user / "cur" / name)


def give_away(folder: Path) -> None:
    """Let the unprivileged user own everything in a folder, if root made it."""
    if os.geteuid() == 0:
        entry = pwd.getpwnam(UNPRIVILEGED)
        for path in [folder, *folder.rglob("*")]:
            os.chown(path, entry.pw_uid, entry.pw_gid, follow_symlinks=False)


def _write_letters(folder: Path) -> list[str]:
    folder.mkdir(parents=True)
    names = []
    for number in range(LETTERS):
        text = _HEADER.format(number=number)
        text += _LINE * ((LETTER_OCTETS - len(text)) // len(_LINE))
        in_crlf_form = len(text) + text.count("\n")
        # Both servers write these sizes into the names of what they deliver.
        name = f"17{number:08}.M{number}P1.bench,S={len(text)},W={in_crlf_form}:2,"
        (folder / name).write_text(text)
        names.append(name)
    return names
