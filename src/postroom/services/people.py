"""Who the users of this machine are: from the number to login and full name.

Look-ups may ask a directory over the network, so they run in a thread and are
remembered for a minute. A number without an entry is a user named ``uid1234``.
"""

import asyncio
import pwd

import msgspec

from postroom.mail.now import MINUTE_US
from postroom.net.clock import read_mono_us

_REMEMBERED_MAX = 1000


class Person(msgspec.Struct, frozen=True, gc=False):
    """A user of this machine; ``full_name`` may be empty."""

    uid: int
    login: str
    full_name: str = ""


class People:
    """Finds users by number."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[int, Person]] = {}

    async def find(self, uid: int) -> Person:
        """Return the user with this number."""
        now_us = read_mono_us()
        until_us, person = self._known.get(uid, (0, None))
        if person is None or until_us <= now_us:
            person = await asyncio.to_thread(look_up, uid)
            if len(self._known) >= _REMEMBERED_MAX:
                self._known.clear()
            self._known[uid] = (now_us + MINUTE_US, person)
        return person


def look_up(uid: int) -> Person:
    """Ask the system for a user; blocks."""
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return Person(uid, f"uid{uid}")
    # In the field of the full name, & stands for the login with a capital.
    name = entry.pw_gecos.partition(",")[0].replace("&", entry.pw_name.capitalize())
    return Person(uid, entry.pw_name, name.strip())
