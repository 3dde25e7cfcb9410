"""A client connection made ready for a test, and what it tells.

No socket: a test gives it the server's octets and looks at what it would send.
"""

from postroom.mail.address import Address
from postroom.smtp.client import ClientConnection, ClientEvent
from postroom.smtp.dialogue import State
from postroom.smtp.transaction import Transaction, TransactionDone

SENDER = Address("a", "c.example")
PIPELINING = b"250-mx.example\r\n250-PIPELINING\r\n250 SIZE 1000\r\n"
"""The answer to EHLO of a server that takes commands ahead."""
PLAIN = b"250 mx.example\r\n"
"""That of one that takes them one by one."""


def to(*names: str, size: int = 0, eight_bit: bool = False) -> Transaction:
    """Return a transaction for names at ``mx.example``."""
    addresses = tuple(Address(name, "mx.example") for name in names)
    return Transaction(SENDER, addresses, size, eight_bit)


def events(client: ClientConnection) -> list[ClientEvent]:
    """Return what has happened since the last call."""
    return list(iter(client.next_event, None))


def ready(
    hello: bytes = PIPELINING, *, lmtp: bool = False, narrate: bool = False
) -> ClientConnection:
    """Return a client that was greeted and may send transactions."""
    client = ClientConnection("c.example", lmtp=lmtp, narrate=narrate)
    client.receive(b"220 mx.example ESMTP\r\n")
    client.send_hello()
    client.receive(hello)
    events(client)
    client.data_to_send()
    assert client.state is State.READY
    return client


def told(client: ClientConnection) -> list[list[int | None]]:
    """Return the codes of the results of all transactions that are done."""
    return [
        [reply.code if reply else None for reply in event.results]
        for event in events(client)
        if isinstance(event, TransactionDone)
    ]
