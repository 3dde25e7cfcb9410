"""How a listener's connections begin, before any service hears of them.

Behind a load balancer they begin with a PROXY header, which says who the client is. A
connection that does not come from a listed proxy, or has no good header in time, is
closed and told of as ``SessionRefused``. One that ends without a word is a proxy's
look whether we are there, and is not told of.
"""

from collections.abc import Callable

import msgspec

from postroom.mail.now import Now
from postroom.net.proxy import Malformed, read_header
from postroom.net.settings import ProxySettings
from postroom.net.stream import Stream, StreamError, StreamTimeout
from postroom.observe.events import AnyEvent, SessionRefused
from postroom.policy.session import in_networks


class Entrance(msgspec.Struct, frozen=True):
    """One listener's beginning.

    Attributes:
        service: what is served.
        is_encrypted: whether TLS begins with the first octet.
        proxy: whose PROXY headers are believed; None: none is expected.
    """

    service: str
    is_encrypted: bool = False
    proxy: ProxySettings | None = None


PLAIN = Entrance("")
"""The service speaks, or hears, at once."""


async def learn_client(
    stream: Stream,
    entrance: Entrance,
    emit: Callable[[AnyEvent], None],
    clock: Callable[[], Now],
) -> bool:
    """Read the PROXY header and make the client the stream's peer.

    Returns:
        Whether the connection goes on; else it is closed.
    """
    settings = entrance.proxy
    if settings is None:
        return True
    why = ""
    if not in_networks(stream.peer_ip, settings.networks):
        why = "not a known proxy"
    else:
        stream.allow(settings.timeout)
        try:
            why = await _read(stream)
        except StreamTimeout:
            why = "no PROXY header in time"
        except StreamError:
            stream.abort()
            return False
        stream.set_deadline(None)
    if not why:
        return True
    if why != _NOTHING:
        utc_us, peer = clock().utc_us, stream.peer_ip
        emit(SessionRefused(utc_us, entrance.service, peer, f"proxy: {why}"))
    stream.close()
    return False


_NOTHING = "nothing was said"


async def _read(stream: Stream) -> str:
    """Read the header; returns why it will not do."""
    data = b""
    while True:
        piece = await stream.read()
        if not piece:
            return "half a PROXY header" if data else _NOTHING
        data += piece
        found = read_header(data)
        if isinstance(found, Malformed):
            return found.why
        if found is not None:
            break
    if len(data) > found.octets:
        stream.put_back(data[found.octets :])
    if found.ip:
        stream.peer_ip, stream.peer_port = found.ip, found.port
    return ""
