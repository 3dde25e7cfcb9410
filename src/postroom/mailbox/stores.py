"""Which store the settings ask for."""

from postroom.mailbox.maildir import Maildirs
from postroom.mailbox.settings import MailboxSettings
from postroom.mailbox.store import Store


def open_store(settings: MailboxSettings, hostname: str) -> Store:
    """Return the store of the configured format. ``hostname`` goes into file names."""
    return Maildirs(settings, hostname)
