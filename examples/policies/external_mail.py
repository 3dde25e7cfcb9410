"""Marks mail from outside, and keeps executable attachments until someone looks."""

import re

from postroom import (
    MessageSubject,
    Session,
    Verdict,
    accept,
    add_header,
    hook,
    quarantine,
    remove_header,
)

OFFICE = ("192.0.2.0/24", "2001:db8::/32")
# Also in a folded header; the bounds keep the search quick, whatever is searched.
EXECUTABLE = re.compile(
    rb"^content-(?:type|disposition):(?:[^\r\n]|\r\n[ \t]){0,1000}?"
    rb'name\*?\d?\*?="?[^"\r\n]{0,250}\.(?:exe|scr|js|vbs)\b',
    re.IGNORECASE | re.MULTILINE,
)


@hook.message
def mark_external(session: Session, message: MessageSubject) -> Verdict | None:
    if session.login or session.is_in(*OFFICE):
        return None
    # What the sender wrote himself must not be taken for ours.
    return accept(
        remove_header("X-External"), add_header("X-External", session.client_ip)
    )


@hook.message
async def hold_executables(session: Session, message: MessageSubject) -> Verdict | None:
    start = await message.body(256 * 1024)
    if EXECUTABLE.search(message.message.header) or EXECUTABLE.search(start):
        return accept(quarantine("executable attachment"))
    return None
