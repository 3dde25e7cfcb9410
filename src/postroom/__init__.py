"""Postroom: a mail system that is programmable in plain typed Python.

What a policy module needs is here and is loaded on first use, so that importing
the package costs nothing: ``from postroom import hook, reject, Address``.
"""

# Type checkers know this name; importing ``typing`` would cost the commands 5 ms.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from postroom.mail.address import Address
    from postroom.mail.envelope import Envelope
    from postroom.mail.outcome import Deferred, Delivered, Failed
    from postroom.mail.route import Route
    from postroom.mail.verdict import Change, Verdict
    from postroom.policy.changes import (
        add_header,
        add_recipient,
        prepend_header,
        quarantine,
        refuse_recipient,
        remove_header,
        remove_recipient,
        replace_body,
        replace_header,
    )
    from postroom.policy.hooks import accept, defer, discard, hook, reject
    from postroom.policy.session import (
        Auth,
        Connect,
        Hello,
        Mail,
        MessageSubject,
        OutcomeSubject,
        Rcpt,
        RouteSubject,
        Session,
    )

__version__ = "0.1.0"

__all__ = [
    "Address",
    "Auth",
    "Change",
    "Connect",
    "Deferred",
    "Delivered",
    "Envelope",
    "Failed",
    "Hello",
    "Mail",
    "MessageSubject",
    "OutcomeSubject",
    "Rcpt",
    "Route",
    "RouteSubject",
    "Session",
    "Verdict",
    "accept",
    "add_header",
    "add_recipient",
    "defer",
    "discard",
    "hook",
    "prepend_header",
    "quarantine",
    "refuse_recipient",
    "reject",
    "remove_header",
    "remove_recipient",
    "replace_body",
    "replace_header",
]

_HOME = {
    "Address": "postroom.mail.address",
    "Auth": "postroom.policy.session",
    "Change": "postroom.mail.verdict",
    "Connect": "postroom.policy.session",
    "Deferred": "postroom.mail.outcome",
    "Delivered": "postroom.mail.outcome",
    "Envelope": "postroom.mail.envelope",
    "Failed": "postroom.mail.outcome",
    "Hello": "postroom.policy.session",
    "Mail": "postroom.policy.session",
    "MessageSubject": "postroom.policy.session",
    "OutcomeSubject": "postroom.policy.session",
    "Rcpt": "postroom.policy.session",
    "Route": "postroom.mail.route",
    "RouteSubject": "postroom.policy.session",
    "Session": "postroom.policy.session",
    "Verdict": "postroom.mail.verdict",
    "accept": "postroom.policy.hooks",
    "add_header": "postroom.policy.changes",
    "add_recipient": "postroom.policy.changes",
    "defer": "postroom.policy.hooks",
    "discard": "postroom.policy.hooks",
    "hook": "postroom.policy.hooks",
    "prepend_header": "postroom.policy.changes",
    "quarantine": "postroom.policy.changes",
    "refuse_recipient": "postroom.policy.changes",
    "reject": "postroom.policy.hooks",
    "remove_header": "postroom.policy.changes",
    "remove_recipient": "postroom.policy.changes",
    "replace_body": "postroom.policy.changes",
    "replace_header": "postroom.policy.changes",
}


def __getattr__(name: str) -> object:
    """Load a public name on first use (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module 'postroom' has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value
