"""Postroom: a mail system that is programmable in plain typed Python.

What a policy module needs is here and is loaded on first use, so that importing
the package costs nothing: ``from postroom import hook, reject, Address``.
"""

# Type checkers know this name; importing ``typing`` would cost the commands 5 ms.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from postroom.mail.address import Address
    from postroom.mail.envelope import Envelope
    from postroom.mail.route import Route
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

__version__ = "0.1.0"

__all__ = [
    "Address",
    "Envelope",
    "Route",
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
    "Envelope": "postroom.mail.envelope",
    "Route": "postroom.mail.route",
    "accept": "postroom.policy.hooks",
    "add_header": "postroom.policy.changes",
    "add_recipient": "postroom.policy.changes",
    "prepend_header": "postroom.policy.changes",
    "quarantine": "postroom.policy.changes",
    "refuse_recipient": "postroom.policy.changes",
    "remove_header": "postroom.policy.changes",
    "remove_recipient": "postroom.policy.changes",
    "replace_body": "postroom.policy.changes",
    "replace_header": "postroom.policy.changes",
    "defer": "postroom.policy.hooks",
    "discard": "postroom.policy.hooks",
    "hook": "postroom.policy.hooks",
    "reject": "postroom.policy.hooks",
}


def __getattr__(name: str) -> object:
    """Load a public name on first use (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module 'postroom' has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value
