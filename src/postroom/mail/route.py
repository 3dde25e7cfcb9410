"""Routes: which agent takes a recipient's mail, to where, and by which rule."""

import msgspec

LOCAL_HOP = "local"
"""The hop of everything that stays on this system."""

AGENTS = ("mailbox", "smtp", "lmtp", "discard")
"""What delivery agents are called."""


class Route(msgspec.Struct, frozen=True, gc=False):
    """Where a recipient's mail goes next; sendmail's mailer-host-user triple.

    ``agent`` names a delivery agent (``smtp``, ``mailbox``, ``lmtp``, ``discard``).
    ``hop`` is the routed name that the queue is ordered by: a domain
    (``whizzer.test``), a smart host in brackets with optional port
    (``[relay.test]:587``: no MX look-up), an address literal (``[127.0.0.2]``), or
    ``local``; ``;option=value`` may follow (``dns/hop_options``). ``rule`` says, for
    people, what decided (``"MX of whizzer.test"``, ``"table routes: whizzer.test"``).
    """

    agent: str
    hop: str
    rule: str = ""
