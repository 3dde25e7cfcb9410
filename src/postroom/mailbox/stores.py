"""Which store the settings ask for."""

from typing import assert_never

from postroom.mailbox.maildir import Maildirs
from postroom.mailbox.mbox import Mboxes
from postroom.mailbox.settings import MailboxSettings
from postroom.mailbox.store import Store


def open_store(settings: MailboxSettings, hostname: str) -> Store:
    """Return the store of the configured format. ``hostname`` goes into file names."""
    match settings.format:
        case "maildir":
            return Maildirs(settings, hostname)
        case "mbox":
            return Mboxes(settings)
        case _:
            assert_never(settings.format)
