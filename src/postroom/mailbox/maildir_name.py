"""Names of Maildir files: ours are made from queue id and recipient number.

``1767225600.Q0Ab1Cd2Ef3GR0.mx.gonzo.test,S=2301,W=2358:2,S``: arrival in seconds,
queue id and number, host; then octets as stored (``S=``) and in CRLF form (``W=``), as
other programs read and write them too; behind the colon another program's flags. What
stands before the first comma or colon is unique and never changes.
"""

import re
from hashlib import blake2b
from os import fsencode

from postroom.mail.ids import QueueId
from postroom.mail.now import SECOND_US

# RFC 1939 §7: one to 70 characters in the range 0x21 to 0x7E.
_UID = re.compile(r"[!-~]{1,70}")
_NAME = re.compile(r"([^:,]+)(?:,S=\d{1,15})?(?:,W=(\d{1,15}))?")
_UNSAFE = {"/": r"\057", ":": r"\072", ",": r"\054"}


def stem_of(queue_id: QueueId, number: int, arrival_us: int, host: str) -> str:
    """Return the unique part of a message's file name, the same at each try."""
    return f"{arrival_us // SECOND_US}.Q{queue_id}R{number}.{host}"


def safe_host(hostname: str) -> str:
    """Return a host name fit for a file name (as Maildir readers expect it)."""
    escaped = "".join(_UNSAFE.get(char, char) for char in hostname)
    return re.sub(r"[^!-~]", "_", escaped)[:100] or "localhost"


def name_of(stem: str, stored_octets: int, crlf_octets: int) -> str:
    """Return the whole name of a file in ``new``."""
    return f"{stem},S={stored_octets},W={crlf_octets}"


def split_name(name: str) -> tuple[str, int | None]:
    """Return a file's unique part and its size in CRLF form, None if not told."""
    found = _NAME.match(name)
    if not found:
        return name, None
    return found[1], int(found[2]) if found[2] else None


def uid_of(stem: str) -> str:
    """Return the unique id that POP3 shows: the stem itself where it is fit."""
    return stem if _UID.fullmatch(stem) else hashed(fsencode(stem))


def hashed(data: bytes) -> str:
    """Return a unique id made from octets."""
    return blake2b(data, digest_size=16).hexdigest()
