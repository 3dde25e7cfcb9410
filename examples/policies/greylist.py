"""Defers the first mail of an unknown client, sender and recipient for five minutes.

Real mail servers come back; many spam programs do not. What was seen is kept in a small
database, so all workers share it and a restart forgets nothing; that is file access,
hence ``blocking=True``.
"""

import os
import threading
from ipaddress import ip_network

import apsw

from postroom import Rcpt, Session, Verdict, defer, hook

PATH = os.environ.get("GREYLIST", "/var/lib/postroom/greylist.db")
WAIT_US = 300 * 1_000_000
FORGET_US = 35 * 86_400 * 1_000_000

databases = threading.local()  # one connection per thread


@hook.rcpt(blocking=True, timeout="5s")
def greylist(session: Session, rcpt: Rcpt) -> Verdict | None:
    if session.login or not session.client_ip or rcpt.routing != "local":
        return None
    network = network_of(session.client_ip)
    key = f"{network} {rcpt.sender} {rcpt.address}".lower()
    if session.opened_us - first_seen(key, session.opened_us) < WAIT_US:
        return defer("4.7.1", "greylisted, please try again in five minutes")
    return None


def network_of(client_ip: str) -> str:
    """Return the /24 or /64 of a client: large senders have many addresses."""
    bits = 64 if ":" in client_ip else 24
    return str(ip_network(f"{client_ip}/{bits}", strict=False))


def first_seen(key: str, now_us: int) -> int:
    """Return when a key was first seen: now, if it never was or was forgotten."""
    with database() as store:
        store.execute("DELETE FROM seen WHERE at_us < ?", (now_us - FORGET_US,))
        store.execute("INSERT OR IGNORE INTO seen VALUES (?, ?)", (key, now_us))
        found = store.execute("SELECT at_us FROM seen WHERE key = ?", (key,)).get
    return int(str(found))


def database() -> apsw.Connection:
    """Return this thread's connection."""
    store: apsw.Connection | None = getattr(databases, "store", None)
    if store is None:
        store = apsw.Connection(PATH)
        store.set_busy_timeout(4000)
        store.execute(
            "CREATE TABLE IF NOT EXISTS seen (key TEXT PRIMARY KEY, at_us INTEGER)"
        )
        store.execute("CREATE INDEX IF NOT EXISTS by_age ON seen (at_us)")
        databases.store = store
    return store
