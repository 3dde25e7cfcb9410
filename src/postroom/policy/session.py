"""What hooks are shown: the session so far, and one subject per phase.

All frozen: a hook reads, and answers with a verdict. The service makes a new session
value when the client says something new about itself (HELO, AUTH, STARTTLS).
"""

from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Literal

import msgspec

from postroom.mail.address import NULL_SENDER, Address
from postroom.mail.envelope import Envelope, Origin
from postroom.mail.headers import find, find_all
from postroom.mail.ids import QueueId
from postroom.mail.message import Message
from postroom.mail.outcome import Outcome
from postroom.mail.reply import Reply
from postroom.mail.route import Route
from postroom.mail.verdict import Defer, Reject

Routing = Literal["local", "relay", "unknown", "failed"]
"""What the router said of a recipient."""


class Session(msgspec.Struct, frozen=True):
    """The client and its connection.

    ``tls`` says whether the connection is encrypted; ``opened_us`` is when it was
    accepted (UTC); ``local_ip`` is the address of ours that it came to.

    From MAIL on, if clients are looked up: ``lists`` are the DNS lists that it is on,
    ``score`` the sum of their weights, ``objection`` what the built-in checks say.
    """

    origin: Origin
    tls: bool = False
    opened_us: int = 0
    local_ip: str = ""
    score: int = 0
    lists: tuple[str, ...] = ()
    objection: Reject | Defer | None = None

    @property
    def client_ip(self) -> str:
        """The client's address; empty for a local submission."""
        return self.origin.client_ip

    @property
    def client_name(self) -> str:
        """The client's verified reverse name; empty if there is none."""
        return self.origin.client_name

    @property
    def helo(self) -> str:
        """What the client called itself in HELO or EHLO; empty before that."""
        return self.origin.helo

    @property
    def login(self) -> str:
        """The user who logged in or, for a local submission, who called."""
        return self.origin.login

    @property
    def listener(self) -> str:
        """The listener the client came to."""
        return self.origin.listener

    def is_in(self, *networks: str) -> bool:
        """Whether the client's address lies in one of ``"192.0.2.0/24"``, ``"::1"``.

        Raises:
            ValueError: a text is no network.
        """
        return in_networks(self.origin.client_ip, networks)


class Connect(msgspec.Struct, frozen=True, gc=False):
    """A client has connected; nothing was said yet."""

    client_ip: str
    listener: str = ""


class Hello(msgspec.Struct, frozen=True, gc=False):
    """HELO, EHLO or LHLO. ``domain`` is the name or address literal given."""

    verb: str
    domain: str


class Auth(msgspec.Struct, frozen=True, gc=False):
    """A login whose proof was right; a hook may still refuse it."""

    user: str
    mechanism: str


class Mail(msgspec.Struct, frozen=True):
    """MAIL. ``size_octets`` is what the client declared (RFC 1870), 0 if nothing.

    ``params`` are the ESMTP parameters as given: pairs of upper-case keyword and
    value, the value empty if there was none.
    """

    address: Address
    size_octets: int = 0
    body: str = "7BIT"
    params: tuple[tuple[str, str], ...] = ()


class Rcpt(msgspec.Struct, frozen=True, gc=False):
    """RCPT, and what the router said of it.

    ``reason`` is for people and logs; ``reply`` is the refusal that the router has in
    mind for an unknown or failed recipient, if it has one.
    """

    address: Address
    routing: Routing = "local"
    reason: str = ""
    recipients_so_far: int = 0
    sender: Address = NULL_SENDER
    reply: Reply | None = None


class MessageSubject(msgspec.Struct, frozen=True):
    """The whole message, after its last octet and before 250 is said.

    ``answers_each`` tells that the client takes an answer for each recipient (PRDR,
    LMTP), so that ``RefuseRecipient`` concerns that recipient alone.
    """

    envelope: Envelope
    message: Message
    size_octets: int
    answers_each: bool = False

    def header(self, name: str) -> str:
        """Return the first field of this name, as text; empty if there is none.

        It is unfolded; octets that are no UTF-8 are replaced, and encoded words
        (RFC 2047) stay as they are.
        """
        return (find(self.message.header, name) or b"").decode("utf-8", "replace")

    def headers(self, name: str) -> list[str]:
        """Return all fields of this name, as ``header`` does."""
        values = find_all(self.message.header, name)
        return [value.decode("utf-8", "replace") for value in values]

    async def body(self, octets_max: int = 1 << 20) -> bytes:
        """Return the beginning of the body; large ones are read from the disk.

        Raises:
            OSError: the stored body cannot be read.
        """
        return await self.message.body.read(0, octets_max)


class RouteSubject(msgspec.Struct, frozen=True):
    """A recipient about to be queued for ``route``; a hook may choose another."""

    address: Address
    route: Route
    sender: Address = NULL_SENDER
    queue_id: QueueId = QueueId("")


class OutcomeSubject(msgspec.Struct, frozen=True):
    """One recipient's part of one finished attempt. ``delay_us`` is since arrival.

    ``next_us`` is when it will be tried again (UTC); 0: never, because it was delivered
    or failed, or because it was deferred until its time was over.
    """

    queue_id: QueueId
    recipient: Address
    outcome: Outcome
    sender: Address = NULL_SENDER
    agent: str = ""
    tries: int = 1
    delay_us: int = 0
    next_us: int = 0


Subject = (
    Connect
    | Hello
    | Auth
    | Mail
    | Rcpt
    | MessageSubject
    | RouteSubject
    | OutcomeSubject
)


@lru_cache(maxsize=4096)
def in_networks(ip: str, networks: tuple[str, ...]) -> bool:
    """Whether an address lies in one of some networks; remembered, so that it is cheap.

    An IPv4 address that reached an IPv6 socket (``::ffff:192.0.2.1``) counts as IPv4.

    Raises:
        ValueError: a text is no network.
    """
    parsed = [parse_network(network) for network in networks]
    try:
        address = ip_address(ip)
    except ValueError:
        return False
    address = getattr(address, "ipv4_mapped", None) or address
    return any(
        address.version == network.version and address in network for network in parsed
    )


def parse_network(text: str) -> IPv4Network | IPv6Network:
    """Read ``"192.0.2.0/24"``, ``"2001:db8::/32"`` or a single address.

    Raises:
        ValueError: the text is no network; the message says what is expected.
    """
    try:
        return ip_network(text)
    except ValueError as error:
        raise ValueError(
            f'{error}: write "192.0.2.0/24", "2001:db8::/32" or one address'
        ) from None
