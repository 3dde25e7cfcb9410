"""A client's and a server's connection joined in memory, each with its own cuts."""

from collections.abc import Sequence

from postroom.smtp.client import (
    BodyWanted,
    ClientConnection,
    ClientEvent,
    Greeting,
)
from postroom.smtp.transaction import Transaction, TransactionDone
from postroom.testing.site import Site
from postroom.testing.transcript import Cut, whole


class Pair:
    """Both ends of one session.

    ``events`` are the client's, in order; ``to_server`` and ``to_client`` are
    the pieces that passed.
    """

    def __init__(
        self, site: Site, client: ClientConnection | None = None, *, cut: Cut = whole
    ) -> None:
        self.site = site
        self.server = site.connect()
        self.client = client or ClientConnection("client.example", lmtp=site.lmtp)
        self.events: list[ClientEvent] = []
        self.to_server: list[bytes] = []
        self.to_client: list[bytes] = []
        self._cut = cut
        self._contents: dict[int, bytes] = {}
        self._open = True

    def greet(self) -> None:
        """Let the server greet and the client say hello."""
        self._to_client(self.server.greet(self.site.greeting))
        self.pump()

    def submit(self, transaction: Transaction, content: bytes) -> int:
        """Give the client a transaction and what to send for it."""
        number = self.client.submit(transaction)
        self._contents[number] = content
        return number

    def pump(self) -> None:
        """Pass octets to and fro until both sides are silent."""
        while True:
            self._take_events()
            octets = self.client.data_to_send()
            if not octets:
                return
            self._to_server(octets)

    def drop(self) -> None:
        """Cut the line between them."""
        self.client.receive(b"")
        self._take_events()

    def done(self) -> Sequence[TransactionDone]:
        """Return what became of the transactions."""
        return [e for e in self.events if isinstance(e, TransactionDone)]

    def _take_events(self) -> None:
        while (event := self.client.next_event()) is not None:
            self.events.append(event)
            match event:
                case Greeting(reply=reply) if reply.is_positive:
                    self.client.send_hello()
                case BodyWanted(number=number):
                    for piece in self._cut(self._contents[number]):
                        self.client.send_body(piece)
                    self.client.end_body()
                case _:
                    pass

    def _to_server(self, octets: bytes) -> None:
        for piece in self._cut(octets):
            self.to_server.append(piece)
            self.server.receive(piece)
            self._open = self._open and self.site.serve(self.server)
            self._to_client(self.server.data_to_send())

    def _to_client(self, octets: bytes) -> None:
        for piece in self._cut(octets):
            self.to_client.append(piece)
            self.client.receive(piece)
