"""Refuses mail for addresses that exist only to be found by harvesters.

A client that wrote to a trap is turned away for an hour.
"""

from postroom import Connect, Rcpt, Session, Verdict, defer, hook, reject

TRAPS = {"trap@whizzer.test", "sales-old@whizzer.test"}
PENALTY_US = 3600 * 1_000_000
CLIENTS_MAX = 10_000

caught: dict[str, int] = {}  # until when; of this worker, since the last reload


@hook.connect
def no_caught_clients(session: Session, connect: Connect) -> Verdict | None:
    if session.opened_us < caught.get(session.client_ip, 0):
        return defer("4.7.1", "come back later")
    return None


@hook.rcpt
def no_spam_traps(session: Session, rcpt: Rcpt) -> Verdict | None:
    if rcpt.address.to_text().lower() not in TRAPS:
        return None
    caught.pop(session.client_ip, None)  # so that the oldest stand first
    if len(caught) >= CLIENTS_MAX:
        del caught[next(iter(caught))]
    caught[session.client_ip] = session.opened_us + PENALTY_US
    return reject("5.7.1", "no thanks")
