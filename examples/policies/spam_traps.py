"""Refuses mail for addresses that exist only to be found by harvesters.

A client that wrote to a trap is turned away for an hour.
"""

from postroom import defer, hook, reject

TRAPS = {"trap@whizzer.test", "sales-old@whizzer.test"}
PENALTY_US = 3600 * 1_000_000
CLIENTS_MAX = 10_000

caught: dict[str, int] = {}  # of this worker, since the last reload


@hook.connect
def no_caught_clients(session, connect):
    if session.opened_us < caught.get(session.client_ip, 0):
        return defer("4.7.1", "come back later")


@hook.rcpt
def no_spam_traps(session, rcpt):
    if rcpt.address.to_text().lower() in TRAPS:
        if len(caught) < CLIENTS_MAX:
            caught[session.client_ip] = session.opened_us + PENALTY_US
        return reject("5.7.1", "no thanks")
