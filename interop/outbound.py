"""Letters through a peer: from our first host to it, and from it to our second one.

Each letter tries both directions. What the peer's ``Received`` field says of the first
leg, and ours of the second, tells how they were done.
"""

import re
import smtplib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from interop.dovecot import STORES
from interop.keys import Authority
from interop.letters import Kind, Letter, difference, letter
from interop.ours import Ours
from interop.peers import (
    BACK,
    BACK_IP,
    FRONT,
    FRONT_IP,
    LOGIN,
    PEERS,
    SECRET,
    WAYS,
    Peer,
    Signs,
)
from interop.rows import Mark, Row

TO_PEER = "Postroom sends to servers"
FROM_PEER = "Servers send to Postroom"
LEG_S_MAX = 20.0
SIGN_S_MAX = 20.0
UNWANTED = "unwanted"
_POLICY = f"""\
from postroom import accept, hook, refuse_recipient, reject


@hook.message
def not_for_all(session, message):
    addresses = [one.address for one in message.envelope.recipients]
    if message.answers_each:
        return accept(
            *(
                refuse_recipient(one, reject("5.7.1", "not for this one"))
                for one in addresses
                if "+{UNWANTED}." in one.local
            )
        )
"""
_BLOCK = re.compile(rb"^Received:[^\n]*(?:\n[ \t][^\n]*)*", re.MULTILINE)
_COMMENT = re.compile(rb"\([^()]*\)")
_WITH = re.compile(rb"\swith (\S+)")
_STAT = re.compile(r"stat=(\w+)")


class Trial(NamedTuple):
    """One letter.

    Attributes:
        title: what it is called.
        way: how both legs are done.
        to_peer: how the peer has to say it came, a pattern.
        from_peer: how we have to say it came, a pattern.
        is_shown: whether the peer's log has to show that it was used (``Peer.signs``).
        is_shared: whether it goes to three recipients, of whom the peer refuses one
            and our second host another once they have the content (PRDR).
    """

    title: str
    way: str
    to_peer: str = ".*"
    from_peer: str = "E?SMTP"
    kind: Kind = Kind.PLAIN
    is_dsn: bool = False
    is_shown: bool = False
    is_shared: bool = False

    @property
    def is_tls(self) -> bool:
        """Whether it is about TLS."""
        return "TLS" in self.title


# Exim calls what follows on the connection of a UTF-8 letter utf8esmtps, too.
TRIALS = (
    Trial("plain", "plain", "e?smtp", "E?SMTPS?"),
    Trial("STARTTLS, verified", "tls", "e?smtps?", "ESMTPS"),
    Trial("STARTTLS, login", "auth", "e?smtps?a?", "ESMTPSA"),
    Trial("implicit TLS, login", "smtps", "e?smtps?a?", "ESMTPSA"),
    Trial("LMTP on the way back", "lmtp", "e?smtp", "LMTP"),
    Trial("8-bit", "plain", "e?smtp", "E?SMTPS?", kind=Kind.EIGHT_BIT),
    Trial("8-bit without 8BITMIME", "seven", "e?smtp", kind=Kind.EIGHT_BIT),
    Trial("SMTPUTF8", "tls", ".*", "(UTF8SMTPS|ESMTPS)", Kind.UTF8),
    Trial("CHUNKING", "tls", "(utf8)?e?smtps?", "ESMTPS", Kind.LONG, is_shown=True),
    Trial("20 MB", "tls", "(utf8)?e?smtps?", "ESMTPS", Kind.BIG),
    Trial("DSN", "tls", "(utf8)?e?smtps?", "ESMTPS", is_dsn=True),
    Trial("PRDR", "tls", "(utf8)?e?smtps?", "ESMTPS", is_shown=True, is_shared=True),
)


def front(folder: Path, authority: Authority) -> Ours:
    """Return our first host."""
    sections = f"""\
[policy]
sender_domain_real = false
relay_networks = ["127.0.0.0/8"]
[route]
routes = "route.routes"
aliases = "aliases"
[outbound]
ca_file = "{authority.ca}"
logins_file = "logins"
source_ipv4 = "{FRONT_IP}"
addresses = "ipv4-only"
[auth]
argon2_memory = "1MiB"
scram = false
[schedule.retry]
first_wait = "1h"
"""
    ours = Ours(folder, FRONT, FRONT_IP, authority.certify(FRONT), sections)
    folder.mkdir(parents=True, exist_ok=True)
    routes = [peer.route(way) for peer in (*PEERS, *STORES) for way in peer.ways]
    (folder / "route.routes").write_text("".join(routes))
    login = f'user = "{LOGIN}"\npassword = "{SECRET}"\n'
    logins = [f"[{peer.key}]\n{login}" for peer in PEERS]
    (folder / "logins").write_text("".join(logins))
    (folder / "logins").chmod(0o600)
    (folder / "aliases").write_text("postmaster: betty\n")
    ours.add_user("betty", SECRET)
    return ours


def back(folder: Path, authority: Authority, keys: list[str]) -> Ours:
    """Return our second host, where all letters end."""
    domains = ", ".join(f'"{way.name}.{key}.test"' for key in keys for way in WAYS)
    sections = f"""\
[policy]
sender_domain_real = false
module = "policy.py"
[submission]
own_senders = false
[route]
local_domains = [{domains}]
routes = "route.routes"
aliases = "aliases"
[outbound]
source_ipv4 = "{BACK_IP}"
addresses = "ipv4-only"
[auth]
argon2_memory = "1MiB"
"""
    ours = Ours(folder, BACK, BACK_IP, authority.certify(BACK), sections)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "route.routes").write_text(f"{FRONT} smtp:[{FRONT_IP}]:25\n")
    (folder / "aliases").write_text("postmaster: joe\njörg: joe\n")
    (folder / "policy.py").write_text(_POLICY)
    ours.add_user("joe", SECRET)
    ours.add_user(LOGIN, SECRET)
    return ours


def run_peer(peer: Peer, first: Ours, second: Ours, folder: Path) -> Iterator[Row]:
    """Try every letter with a peer that runs."""
    for trial in TRIALS:
        why = peer.lacks.get(trial.way) or peer.lacks.get(trial.title)
        if why:
            yield Row(TO_PEER, peer.name, trial.title, Mark.NOT_OFFERED, why)
            yield Row(FROM_PEER, peer.name, trial.title, Mark.NOT_OFFERED, why)
        else:
            yield from _Journey(peer, first, second, trial, folder).rows()


class _Journey:
    """One letter on its way through a peer."""

    def __init__(
        self, peer: Peer, first: Ours, second: Ours, trial: Trial, folder: Path
    ) -> None:
        self._peer, self._trial = peer, trial
        self._first, self._second = first, second
        self._begin = time.monotonic()
        self._log_before = 0
        self._token = f"t{time.monotonic_ns():x}"
        local = "jörg" if trial.kind is Kind.UTF8 else "joe"
        domain = peer.domain(trial.way)
        self._letter = letter(
            trial.kind, self._token, f"betty@{FRONT}", f"{local}+{self._token}@{domain}"
        )
        self._folder = folder / peer.key / re.sub(r"\W+", "-", trial.title)
        self._folder.mkdir(parents=True, exist_ok=True)

    def rows(self) -> Iterator[Row]:
        """Send it; say what became of both legs."""
        self._log_before = peer_log = len(self._peer.log())
        hand_in(self._letter, self._recipients(), is_dsn=self._trial.is_dsn)
        left, arrived = self._watch()
        (self._folder / "peer.log").write_text(self._peer.log()[peer_log:])
        if status := self._peer.refuses.get(self._trial.title):
            yield from self._refused(status, left)
            return
        if left:
            yield self._row(TO_PEER, Mark.FAILED, left)
            yield self._row(FROM_PEER, Mark.SKIPPED, "the letter did not get there")
            return
        if arrived is None:
            why = (
                f"it did not come back; {self._peer.name} says: {self._hint(peer_log)}"
            )
            yield self._row(TO_PEER, Mark.PASSED)
            yield self._row(FROM_PEER, Mark.FAILED, why)
            return
        (self._folder / "arrived").write_bytes(arrived)
        if self._peer.no_tls and self._trial.is_tls:
            yield self._row(TO_PEER, Mark.NOT_OFFERED, self._peer.no_tls)
        else:
            yield self._judged(TO_PEER, arrived, 1, self._trial.to_peer)
        lacks = self._peer.lacks_back
        if why := lacks.get(self._trial.way) or lacks.get(self._trial.title):
            yield self._row(FROM_PEER, Mark.NOT_OFFERED, why)
        else:
            yield self._judged(FROM_PEER, arrived, 0, self._trial.from_peer)

    def _refused(self, status: str, left: str) -> Iterator[Row]:
        """Judge a letter that cannot go there: it has to come back from us."""
        why = f"{self._peer.name} does not offer it"
        if left.startswith(status):
            yield self._row(TO_PEER, Mark.PASSED)
        else:
            yield self._row(TO_PEER, Mark.FAILED, f"not refused by {status}: {left}")
        yield self._row(FROM_PEER, Mark.NOT_OFFERED, why)

    def _recipients(self) -> list[str]:
        to = [self._letter.recipient]
        if self._trial.is_shared:
            domain = self._letter.recipient.partition("@")[2]
            names = (f"joe+{UNWANTED}.{self._token}", f"refused.{self._token}")
            to += [f"{name}@{domain}" for name in names]
        return to

    def _watch(self) -> tuple[str, bytes | None]:
        """Wait for both legs; returns why it did not leave us, and what arrived."""
        end = time.monotonic() + LEG_S_MAX
        left: str | None = None
        while time.monotonic() < end:
            if left is None:
                left = fate(self._first, self._token)
            if left:
                return left, None
            if (arrived := self._second.look(self._token)) is not None:
                return "", arrived
            time.sleep(0.1)
        if left is None:
            return f"it was not sent within {LEG_S_MAX:.0f} s", None
        return "", None

    def _judged(self, group: str, arrived: bytes, hop: int, wanted: str) -> Row:
        octets = self._trial.way != "seven"
        if why := difference(self._letter, arrived, octets=octets):
            return self._row(group, Mark.FAILED, why)
        fields = _BLOCK.findall(arrived)
        field = _COMMENT.sub(b"", fields[hop]) if len(fields) > hop else b""
        found = _WITH.search(_COMMENT.sub(b"", field))
        name = found[1].decode() if found else "nothing"
        if not re.fullmatch(wanted, name, re.IGNORECASE):
            return self._row(group, Mark.FAILED, f"came with {name}, not {wanted}")
        if self._trial.is_dsn and group == FROM_PEER:
            why = no_report(self._first, self._token, self._folder)
            if why:
                return self._row(group, Mark.FAILED, why)
        if self._trial.is_shown and (why := self._not_shown(group)):
            return self._row(group, Mark.FAILED, why)
        if self._trial.is_shared and group == TO_PEER and (why := self._not_parted()):
            return self._row(group, Mark.FAILED, why)
        return self._row(group, Mark.PASSED)

    def _not_shown(self, group: str) -> str:
        """Look for the sign of an extension; some come at the end of the session."""
        signs: Signs = self._peer.signs[self._trial.title]
        pattern = signs.to_peer if group == TO_PEER else signs.from_peer
        before = 0 if "{token}" in pattern else self._log_before
        pattern = pattern.replace("{token}", self._token)
        end = time.monotonic() + SIGN_S_MAX
        while not re.search(pattern, self._peer.log()[before:]):
            if time.monotonic() > end:
                return f"its log does not show {self._trial.title}: no {pattern}"
            time.sleep(0.1)
        return ""

    def _not_parted(self) -> str:
        """Look whether the one who was refused behind the content has come back."""
        lines = self._first.log_with(f"<refused.{self._token}@")
        if any("dsn=5." in line and "stat=Sent" not in line for line in lines):
            return ""
        return f"the refusal of one recipient was not heeded: {lines[-1:]}"

    def _hint(self, log_before: int) -> str:
        lines = self._peer.log()[log_before:].strip().splitlines()
        return " / ".join(line[-200:] for line in lines[-3:])

    def _row(self, group: str, mark: Mark, why: str = "") -> Row:
        took_s = time.monotonic() - self._begin
        return Row(group, self._peer.name, self._trial.title, mark, why, took_s)


def hand_in(sent: Letter, to: Sequence[str], *, is_dsn: bool = False) -> None:
    """Give a letter to our first host, for these recipients."""
    with smtplib.SMTP(FRONT_IP, 25, "client.test", timeout=60) as client:
        client.ehlo()
        options, more = [], []
        if sent.kind in (Kind.EIGHT_BIT, Kind.UTF8):
            options.append("BODY=8BITMIME")
        if sent.kind is Kind.UTF8:
            options.append("SMTPUTF8")
            client.command_encoding = "utf-8"
        if is_dsn:
            options += ["RET=HDRS", f"ENVID={sent.token}"]
            more = ["NOTIFY=SUCCESS"]
        client.sendmail(sent.sender, to, sent.content, options, more)


def fate(first: Ours, token: str) -> str | None:
    """Return why a letter did not leave our first host; empty: it did.

    None: that is not yet known.
    """
    for line in first.log_with(f"+{token}@"):
        if found := _STAT.search(line):
            return "" if found[1] == "Sent" else line.partition("dsn=")[2]
    return None


def no_report(first: Ours, token: str, folder: Path) -> str:
    """Say what is wrong with the report of success that was asked for, if anything."""
    report = first.letter_with(token)
    if report is None:
        return "no report of success came, which was asked for by NOTIFY"
    (folder / "report").write_bytes(report)
    if not re.search(rb"^Action: (delivered|relayed)", report, re.M | re.I):
        return "the report says nothing of delivered or relayed"
    return ""
