"""Why a command that is well formed cannot be had now: the replies, and their rules."""

from typing import Final

from postroom.mail.now import SECOND_US
from postroom.mail.reply import Reply
from postroom.smtp import replies
from postroom.smtp.data import Problem
from postroom.smtp.dialogue import State, Verb
from postroom.smtp.parameters import MailParams, unknown
from postroom.smtp.settings import ServerSettings

Objection = tuple[Reply, str]
"""The reply, and the name of the rule for the log."""

REFUSALS: Final = {
    Problem.TOO_LARGE: replies.TOO_LARGE,
    Problem.BARE_LINE_END: replies.BARE_LINE_END,
    Problem.LINE_TOO_LONG: replies.CONTENT_LINE_TOO_LONG,
}
"""What is said of content that cannot be accepted."""

FORGIVEN: Final = frozenset({"size", "recipients", "no-recipients", "auth-cancelled"})
"""Rules by which is refused what is not the client's mistake: no errors."""


def bad_sequence(state: State, verb: Verb) -> Reply:
    """Return what a command gets that does not belong here (RFC 5321 §4.1.4)."""
    if state is State.REFUSED:
        text = "Only QUIT is possible now"
    elif state is State.START:
        text = "Say hello first"
    elif state is State.BDAT and verb is Verb.DATA:
        return replies.BDAT_FIRST  # RFC 3030 §2
    elif state is State.BDAT:
        text = "The content has begun; go on with BDAT or say RSET"
    elif verb in _WITHIN:
        text = "Need MAIL command" if state is State.READY else "Need RCPT command"
    elif verb is Verb.MAIL:
        text = "Sender already specified"
    else:
        text = "Not possible during a mail transaction"
    return Reply(503, "5.5.1", (text,))


_WITHIN = frozenset({Verb.RCPT, Verb.DATA, Verb.BDAT, Verb.BDAT_LAST})


def mail_objection(
    params: MailParams,
    settings: ServerSettings,
    *,
    tls: bool,
    lmtp: bool,
    release_until_us: int,
) -> Objection | None:
    """Return why what MAIL declared cannot be had in this session; None: it can.

    Args:
        params: what it declared.
        settings: what is offered.
        tls: whether the session is encrypted.
        lmtp: whether it is LMTP.
        release_until_us: until when mail may be held; 0: it may not.
    """
    if params.requiretls and not tls:  # RFC 8689 §2
        return unknown("REQUIRETLS").reply, "syntax"
    if params.prdr and lmtp:
        return unknown("PRDR").reply, "syntax"
    if params.deliver_by:
        within_s, _, mode = params.deliver_by.partition(";")
        least_us = int(settings.deliverby_min)
        if mode[0] == "R" and int(within_s) * SECOND_US < least_us:
            return replies.TOO_SOON, "syntax"  # RFC 2852 §3
    if not params.is_held:
        return None
    if not release_until_us:
        keyword = "HOLDFOR" if params.hold_for_s else "HOLDUNTIL"
        return unknown(keyword).reply, "syntax"
    longest_us = int(settings.future_release_max)
    if params.hold_for_s * SECOND_US > longest_us:  # RFC 4865 §4.2
        return replies.HELD_TOO_LONG, "syntax"
    if params.hold_until_us > release_until_us:
        return replies.HELD_TOO_LONG, "syntax"
    return None
