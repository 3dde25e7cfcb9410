"""Letters to a mail store by LMTP: from our first host into a mailbox, and no further.

What lies in the mailbox is compared octet for octet. What the store heard of us, and
its ``Received`` field, tell how it came.
"""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from interop.dovecot import Dovecot
from interop.letters import Kind, difference, letter
from interop.ours import Ours
from interop.outbound import LEG_S_MAX, fate, hand_in, no_report
from interop.peers import FRONT
from interop.rows import Mark, Row

TO_STORE = "Postroom delivers by LMTP"
_RCPT = r"RCPT To:<joe\+{token}@[^\n]*\n"
_BY_DATA = rf"{_RCPT}(?:\S+ RCPT [^\n]*\n)?\S+ DATA\r?\n"
_BY_BDAT = rf"{_RCPT}\S+ BDAT (?s:.*)BDAT \d+ LAST\r?\n"


class StoreTrial(NamedTuple):
    """One letter.

    Attributes:
        title: what it is called.
        way: how it goes.
        said: what the store has to have heard in that session, a pattern.
        protocol: how the store has to say it came.
        has_stranger: whether it goes to a second one, too, whom the store has not.
        is_dsn: whether a report of success is asked for.
    """

    title: str
    way: str = "plain"
    said: str = _BY_DATA
    protocol: str = "LMTP"
    kind: Kind = Kind.PLAIN
    has_stranger: bool = False
    is_dsn: bool = False


STORE_TRIALS = (
    StoreTrial("plain"),
    StoreTrial("8-bit", said=rf"BODY=8BITMIME\s+\S+ {_RCPT}", kind=Kind.EIGHT_BIT),
    StoreTrial("STARTTLS, verified", "tls", protocol="LMTPS"),
    StoreTrial("CHUNKING", said=_BY_BDAT, kind=Kind.LONG),
    StoreTrial("20 MB", "tls", _BY_BDAT, "LMTPS", Kind.BIG),
    StoreTrial("one of two unknown", has_stranger=True),
    StoreTrial("DSN", is_dsn=True),
)


def run_store(store: Dovecot, first: Ours, folder: Path) -> Iterator[Row]:
    """Try every letter with a store that runs."""
    for trial in STORE_TRIALS:
        begin = time.monotonic()
        place = folder / store.key / re.sub(r"\W+", "-", trial.title)
        place.mkdir(parents=True, exist_ok=True)
        why = _try(store, first, trial, place)
        mark = Mark.FAILED if why else Mark.PASSED
        took_s = time.monotonic() - begin
        yield Row(TO_STORE, store.name, trial.title, mark, why, took_s)


def _try(store: Dovecot, first: Ours, trial: StoreTrial, folder: Path) -> str:
    """Send a letter; returns what is wrong with it, if anything."""
    token = f"t{time.monotonic_ns():x}"
    domain = store.domain(trial.way)
    sent = letter(trial.kind, token, f"betty@{FRONT}", f"joe+{token}@{domain}")
    stranger = [f"nobody.{token}@{domain}"] if trial.has_stranger else []
    hand_in(sent, [sent.recipient, *stranger], is_dsn=trial.is_dsn)
    left = _until_known(first, token)
    if left is None:
        return f"it was not sent within {LEG_S_MAX:.0f} s"
    if left:
        return left
    arrived = _mail_with(store, token)
    if arrived is None:
        return "it is not in the mailbox"
    (folder / "arrived").write_bytes(arrived)
    if why := difference(sent, arrived, octets=True):
        return why
    if not re.search(rf"\swith {trial.protocol}\s", arrived[:4096].decode("latin-1")):
        return f"it did not come with {trial.protocol}"
    said = trial.said.replace("{token}", token)
    if not any(re.search(said, heard) for heard in store.heard()):
        return f"the store did not hear {said}"
    if trial.has_stranger and not any(
        "dsn=5.1.1" in line for line in first.log_with(f"<{stranger[0]}>")
    ):
        return "the unknown recipient was not refused by 5.1.1"
    return no_report(first, token, folder) if trial.is_dsn else ""


def _until_known(first: Ours, token: str) -> str | None:
    end = time.monotonic() + LEG_S_MAX
    while (left := fate(first, token)) is None and time.monotonic() < end:
        time.sleep(0.1)
    return left


def _mail_with(store: Dovecot, token: str) -> bytes | None:
    for path in sorted((store.view.var / "mail").glob("*/new/*")):
        octets = path.read_bytes()
        if token.encode() in octets[:20_000]:
            return octets
    return None
