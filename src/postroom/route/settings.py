"""Settings of routing: what is local, and where the rest goes."""

from typing import Literal

import msgspec


class RouteSettings(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True
):
    """How an address becomes a route."""

    local_domains: tuple[str, ...] = ()
    """Domains whose mail is delivered here; our own host name and ``localhost``
    always are."""

    own_hosts: tuple[str, ...] = ()
    """Further host names and addresses that lead to this system, such as the name in
    your MX or the public address of a router before it. Mail that is not local is never
    sent to them, as it would come back."""

    recipient_delimiter: str = "+"
    """What parts ``user+detail``; empty: nothing does."""

    local_agent: Literal["mailbox", "discard"] = "mailbox"
    """The delivery agent for local users; ``discard`` throws their mail away."""

    aliases: str = ""
    """The aliases file, in sendmail's syntax; empty: none."""

    routes: str = ""
    """The file that names a way for domains, ``whizzer.test  smtp:[10.0.0.2]:2525``;
    empty: none."""

    smart_host: str = ""
    """Where all mail goes that is not local, unless the routes say otherwise:
    ``[relay.test]:587`` or ``relay.test`` (by MX), with options behind it as in the
    routes (``[relay.test]:587 tls=verified login=relay``); empty: by MX of each
    domain."""

    postmaster: str = ""
    """Who gets mail for postmaster if there is neither an alias nor a user of that
    name: a local name or an address."""

    includes: bool = False
    """Whether aliases may take lists from files by ``:include:/path``."""

    alias_depth_max: int = 10
    """How many aliases may stand behind one another."""
