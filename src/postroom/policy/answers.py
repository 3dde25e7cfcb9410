"""Which answers a hook may give in which phase, and how a refusal is worded there.

Pure. Anything else is nonsense, which the chain turns into ``451 4.3.0``: also changes
and routes that could not be carried out later, when the client has its 250.
"""

import msgspec

from postroom.dns.hop_options import read_hop
from postroom.mail.reply import Reply
from postroom.mail.route import AGENTS, LOCAL_HOP, Route
from postroom.mail.verdict import Accept, Defer, Discard, Quarantine, Reject, Verdict
from postroom.policy.changes import flaw
from postroom.policy.hooks import Phase

TROUBLE = Defer(Reply.of(451, "4.3.0", "Local problem, please try again later"))
"""What the client gets for a hook that failed (RFC 5321 §4.2.2: 451)."""

ACCEPTED = Accept()
"""No objection."""

Answer = Verdict | Route
"""What may come out of a phase; a route out of ``route`` only."""

_DISCARDING = frozenset(("mail", "rcpt", "message", "route"))

# The codes a verdict gets by default do not fit everywhere. RFC 5321 §3.1: a greeting
# refuses with 554, §3.8: or 421; RFC 4954 §6: a login is refused with 535 or 454.
_CODES: dict[Phase, dict[int, int]] = {
    "connect": {550: 554, 450: 421, 451: 421},
    "auth": {550: 535, 450: 454, 451: 454},
}


def nonsense(phase: Phase, answer: object) -> str:
    """Return what is wrong with an answer that is not ``None``; empty if nothing is."""
    match answer:
        case Accept(changes=changes):
            if changes and phase != "message":
                return f"only the message phase may change things, not {phase}"
            if not isinstance(changes, tuple):
                return "the changes of an Accept are a tuple: make it by accept()"
            return next((wrong for each in changes if (wrong := flaw(each))), "")
        case Reject(reply=reply) | Defer(reply=reply):
            wanted = 5 if isinstance(answer, Reject) else 4
            if not isinstance(reply, Reply) or reply.code // 100 != wanted:
                return f"a {type(answer).__name__} needs a reply of class {wanted}"
            return ""
        case Discard(reason=reason):
            if phase not in _DISCARDING:
                return f"there is nothing to discard in the {phase} phase"
            return "" if isinstance(reason, str) else "the reason is no text"
        case Route():
            if phase != "route":
                return f"no route can be chosen in {phase}"
            return _flaw_of_route(answer)
        case _:
            return f"returned {_short(answer)}, which is no verdict"


def worded(phase: Phase, answer: Answer, rule: str) -> Answer:
    """Return an answer as it is used: it names its hook, and its code fits the phase.

    The hop of a route stands in the one form in which hops are compared.
    """
    if isinstance(answer, Route):
        return Route(answer.agent, _hop_of(answer), answer.rule or f"hook {rule}")
    if not isinstance(answer, Reject | Defer):
        return answer
    reply = answer.reply
    code = _CODES.get(phase, {}).get(reply.code, reply.code)
    if code != reply.code:
        reply = msgspec.structs.replace(reply, code=code)
    return type(answer)(reply, answer.rule or rule)


def gathered(earlier: Accept, later: Accept) -> Accept:
    """Join the changes of two hooks; of several quarantines the first counts."""
    held = any(isinstance(change, Quarantine) for change in earlier.changes)
    added = tuple(
        change
        for change in later.changes
        if not (held and isinstance(change, Quarantine))
    )
    return Accept(earlier.changes + added)


def _flaw_of_route(route: Route) -> str:
    if route.agent not in AGENTS:
        names = ", ".join(AGENTS)
        return f"{route.agent!r} is no delivery agent: write one of {names}"
    if not (isinstance(route.hop, str) and isinstance(route.rule, str)):
        return "hop and rule of a route are texts"
    try:
        _hop_of(route)
    except ValueError as error:
        return str(error)
    return ""


def _hop_of(route: Route) -> str:
    if route.agent in ("smtp", "lmtp"):
        return read_hop(route.hop)
    return LOCAL_HOP


def _short(answer: object) -> str:
    try:
        text = repr(answer)
    except Exception:  # the site's own class may be broken, too
        text = f"an object of {type(answer).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."
