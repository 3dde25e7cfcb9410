"""A generation: everything a reload changes, made whole and swapped at once.

Sessions and attempts keep the generation they began with. It is closed when the last
of them has let go of it.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import msgspec

from postroom.agents.agent import Agent
from postroom.net.keys import ServerTls
from postroom.policy.chain import Chain
from postroom.policy.inspection import Inspector
from postroom.route.drive import Facts
from postroom.route.router import Router
from postroom.services.entrance import Entrance
from postroom.services.face import Face, Kind
from postroom.services.settings import ReceiveSettings
from postroom.services.user_rules import USUAL_RULES, UserRules
from postroom.smtp.settings import ServerSettings


class Tenancy:
    """Part of a generation, so that it lives as long as anyone holds on to that."""

    __slots__ = ("__weakref__",)


SUBMIT_LISTENER = "submit"
"""What the socket of the ``sendmail`` command is called."""

_NO_FACES: Mapping[str, Face] = MappingProxyType({})
_NO_ENTRANCES: Mapping[str, Entrance] = MappingProxyType({})


class Generation(NamedTuple):
    """One set of settings, tables and hooks that belong together.

    ``faces`` are those of the listeners, by name; others show ``server``. So are
    ``entrances``, where connections begin with anything but the service. ``tls`` is
    None where no certificate is named.
    """

    number: int
    hostname: str
    server: ServerSettings
    receive: ReceiveSettings
    chain: Chain
    router: Router
    facts: Facts
    agents: Mapping[str, Agent]
    tenancy: Tenancy | None = None
    faces: Mapping[str, Face] = _NO_FACES
    user_rules: UserRules = USUAL_RULES
    inspector: Inspector | None = None
    entrances: Mapping[str, Entrance] = _NO_ENTRANCES
    tls: ServerTls | None = None

    def face(self, listener: str) -> Face:
        """Return what a listener shows to its clients."""
        found = self.faces.get(listener)
        if found is not None:
            return found
        if listener == SUBMIT_LISTENER:
            server = msgspec.structs.replace(self.server, bare_names=True)
            return Face(server, Kind.LOCAL)
        return Face(self.server)
