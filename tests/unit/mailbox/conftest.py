"""The mbox of one user, whose locks nobody waits for."""

from pathlib import Path

import pytest

from postroom.mail.units import Duration
from postroom.mailbox.mbox import Mboxes
from postroom.mailbox.settings import MailboxSettings


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "mail/joe"


@pytest.fixture
def store(tmp_path: Path) -> Mboxes:
    return Mboxes(
        MailboxSettings(
            format="mbox",
            path=f"{tmp_path}/mail/{{user}}",
            lock_timeout=Duration(0),
            lock_stale=Duration(0),
        )
    )
