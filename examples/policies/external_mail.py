"""Marks mail from outside, and keeps executable attachments until someone looks."""

import re

from postroom import accept, add_header, hook, quarantine

OFFICE = ("192.0.2.0/24", "2001:db8::/32")
EXECUTABLE = re.compile(
    rb'^content-(?:type|disposition):[^\r\n]*name="?[^"\r\n]*\.(?:exe|scr|js|vbs)\b',
    re.IGNORECASE | re.MULTILINE,
)


@hook.message
def mark_external(session, message):
    if not session.login and not session.is_in(*OFFICE):
        return accept(add_header("X-External", session.client_ip))


@hook.message
async def hold_executables(session, subject):
    body = subject.message.body
    start = await body.read(0, 256 * 1024)
    if EXECUTABLE.search(start):
        return accept(quarantine("executable attachment"))
