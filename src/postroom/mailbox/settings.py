"""Settings of the mailboxes: where they are, in which format, and their locks."""

from typing import Literal

import msgspec

from postroom.mail.units import Duration, Size


class MailboxSettings(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True
):
    """Where users' mail is kept."""

    format: Literal["maildir", "mbox"] = "maildir"
    """``maildir``: a file per message; ``mbox``: one file per user."""
    path: str = "/var/lib/postroom/mail/{user}"
    """The user's Maildir, or mbox file. ``{user}`` must and ``{domain}`` may stand in
    it. Directories below the last one without either are made as needed (mode 0700)
    and are never reached through symbolic links."""
    default_domain: str = ""
    """What ``{domain}`` is for a POP3 login without one, and for mail to
    ``localhost``, an address literal or no domain; empty: ``hostname``. A login with
    one of our domains (``joe@a.test``) opens the mailbox there."""
    lock_timeout: Duration = Duration.from_text("10s")
    """How long a delivery to an mbox waits for its locks before it is deferred."""
    lock_stale: Duration = Duration.from_text("5m")
    """After this an mbox's dot-lock whose owner is gone is taken over."""
    memory_octets_max: Size = Size.from_text("256KiB")
    """Messages up to this size are delivered in groups, larger ones in pieces."""

    @property
    def directory(self) -> str:
        """The directory below which all mailboxes lie."""
        return self.path.partition("{")[0].rpartition("/")[0] or "/"

    def __post_init__(self) -> None:
        """Check the path.

        Raises:
            ValueError: it names no user, or something else than a user and domain.
        """
        rest = self.path.replace("{domain}", "")
        if "{user}" not in rest:
            raise ValueError('mailbox path must contain "{user}"')
        if "{" in rest.replace("{user}", "") or "}" in rest.replace("{user}", ""):
            raise ValueError('mailbox path may contain only "{user}" and "{domain}"')
        if self.path.endswith("/"):
            raise ValueError('mailbox path must not end with "/"')
