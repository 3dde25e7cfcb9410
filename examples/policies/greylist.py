"""Defers the first mail of an unknown client, sender and recipient for five minutes.

Real mail servers come back; many spam programs do not. What was seen is kept in a small
database, so all workers share it and a restart forgets nothing; that is file access,
hence ``blocking=True``.
"""

import os
import threading

import apsw

from postroom import defer, hook

PATH = os.environ.get("GREYLIST", "/var/lib/postroom/greylist.db")
WAIT_US = 300 * 1_000_000
FORGET_US = 35 * 86_400 * 1_000_000

databases = threading.local()  # one connection per thread


@hook.rcpt(blocking=True, timeout="5s")
def greylist(session, rcpt):
    if session.login or not session.client_ip or rcpt.routing != "local":
        return None
    network = session.client_ip.rpartition(".")[0] or session.client_ip
    key = f"{network} {rcpt.sender} {rcpt.address}".lower()
    if session.opened_us - first_seen(key, session.opened_us) < WAIT_US:
        return defer("4.7.1", "greylisted, please try again in five minutes")
    return None


def first_seen(key, now_us):
    """Return when a key was first seen: now, if it never was or was forgotten."""
    with database() as store:
        store.execute("DELETE FROM seen WHERE at_us < ?", (now_us - FORGET_US,))
        store.execute("INSERT OR IGNORE INTO seen VALUES (?, ?)", (key, now_us))
        return store.execute("SELECT at_us FROM seen WHERE key = ?", (key,)).get


def database():
    if not hasattr(databases, "store"):
        databases.store = apsw.Connection(PATH)
        databases.store.set_busy_timeout(4000)
        databases.store.execute(
            "CREATE TABLE IF NOT EXISTS seen (key TEXT PRIMARY KEY, at_us INTEGER)"
        )
    return databases.store
