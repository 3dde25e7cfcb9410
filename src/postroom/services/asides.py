"""Commands beside a transaction: VRFY, EXPN, HELP, NOOP."""

from postroom.services.talk import Talk
from postroom.smtp import commands, replies


def on_noop(talk: Talk, event: commands.Noop) -> None:
    """Do nothing (RFC 5321 §4.1.1.9)."""
    talk.core.reply(replies.NOOP_OK)


def on_vrfy(talk: Talk, event: commands.Vrfy) -> None:
    """Neither confirm nor deny."""
    talk.core.reply(replies.VRFY_UNTOLD)  # RFC 5321 §7.3: giving nothing away


def on_expn(talk: Talk, event: commands.Expn) -> None:
    """Tell of no list."""
    talk.core.reply(replies.EXPN_REFUSED)


def on_help(talk: Talk, event: commands.Help) -> None:
    """Say what there is."""
    talk.core.reply(replies.HELP)
