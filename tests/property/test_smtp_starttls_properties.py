"""Nothing said before the TLS handshake survives it, on either side, however cut.

The octets that somebody in between puts behind STARTTLS, or behind its 220, are gone
after ``tls_started``: both sides go on exactly as if they had never come.
"""

from hypothesis import given
from hypothesis import strategies as st

from postroom.mail.address import Address
from postroom.smtp import commands, replies
from postroom.smtp.client import ClientConnection
from postroom.smtp.dialogue import State
from postroom.smtp.server import Closed, ServerConnection, TooManyErrors
from postroom.smtp.settings import ServerSettings
from postroom.smtp.transaction import Transaction
from postroom.testing.site import Site
from postroom.testing.transcript import at_random, whole

SETTINGS = ServerSettings(starttls=True, auth_mechanisms=("PLAIN", "LOGIN"))
TO_SERVER = (
    b"EHLO evil.example\r\n|LHLO evil.example\r\n|MAIL FROM:<evil@c.example>\r\n"
    b"|RCPT TO:<b@mx.example>\r\n|DATA\r\n|.\r\n|RSET\r\n|NOOP\r\n|QUIT\r\n"
    b"|STARTTLS\r\n|AUTH PLAIN AHgAc2VjcmV0\r\n|BDAT 3 LAST\r\n|BDAT 999\r\n"
    b"|XCLIENT ADDR=192.0.2.1|MAIL FROM:<|\r|\n|\0|\x16\x03\x01|GET / HTTP/1.1\r\n"
)
TO_CLIENT = (
    b"220 go\r\n|250 ok\r\n|250-mx.example\r\n|250 AUTH PLAIN\r\n|250 CHUNKING\r\n"
    b"|354 go\r\n|421 bye\r\n|535 no\r\n|550 no\r\n|250-|25|\r|\n|\0|\x16\x03\x01|x\r\n"
)


def octets(pieces: bytes) -> st.SearchStrategy[bytes]:
    some = st.sampled_from(pieces.split(b"|")) | st.binary(max_size=6)
    return st.lists(some, max_size=12).map(b"".join)


SEEDS = st.integers(0, 1 << 60)
STAGES = st.sampled_from(["with the command", "before the 220", "after the 220"])


def serve(site: Site, connection: ServerConnection) -> None:
    """Answer as ``Site`` does, but leave the handshake to the test."""
    while (event := connection.next_event()) is not None:
        assert not isinstance(event, Closed | TooManyErrors)
        if isinstance(event, commands.StartTls):
            return
        if not isinstance(event, commands.Refused):
            connection.reply(*site._answers(connection, event))


def server_after(junk: bytes, seed: int, stage: str, lmtp: bool) -> tuple[bytes, State]:
    """Let a client start TLS with junk ahead; return what it hears afterwards."""
    site = Site(SETTINGS, lmtp=lmtp)
    server = site.connect()
    server.greet(site.greeting)
    hello = b"LHLO c.example\r\n" if lmtp else b"EHLO c.example\r\n"
    cut = at_random(seed) if seed else whole
    ahead, later = (junk, b"") if stage == "with the command" else (b"", junk)
    for piece in cut(hello + b"STARTTLS\r\n" + ahead):
        server.receive(piece)
        serve(site, server)
    pieces = cut(later) if stage == "before the 220" else ()
    for piece in pieces:
        server.receive(piece)
        assert server.next_event() is None
    server.reply(replies.READY_FOR_TLS)
    assert server.data_to_send().endswith(b"220 2.0.0 Ready to start TLS\r\n")
    for piece in cut(later) if stage == "after the 220" else ():
        server.receive(piece)
        assert server.next_event() is None
    server.tls_started()
    assert not server.authenticated
    assert server.data_to_send() == b""
    for line in (b"NOOP\r\n", b"MAIL FROM:<a@c.example>\r\n", hello, b"NOOP\r\n"):
        server.receive(line)
        serve(site, server)
    return server.data_to_send(), server.state


@given(octets(TO_SERVER), SEEDS, STAGES, st.booleans())
def test_nothing_survives_in_the_server(
    junk: bytes, seed: int, stage: str, lmtp: bool
) -> None:
    plain = server_after(b"", 0, "with the command", lmtp)
    assert server_after(junk, seed, stage, lmtp) == plain
    said, state = plain
    assert said.startswith(b"250 2.0.0 OK\r\n503 5.5.1 Say hello first\r\n250-")
    assert b"STARTTLS" not in said
    assert state is State.READY


def client_after(junk: bytes, seed: int, lmtp: bool) -> tuple[list[object], bytes]:
    """Let a server say junk behind its 220; return what the client does then."""
    client = ClientConnection("c.example", lmtp=lmtp, narrate=True)
    client.receive(b"220 mx.example\r\n")
    client.send_hello()
    client.receive(b"250-mx.example\r\n250-STARTTLS\r\n250 AUTH PLAIN\r\n")
    client.start_tls()
    client.data_to_send()
    list(iter(client.next_event, None))
    cut = at_random(seed) if seed else whole
    for piece in cut(b"220 go\r\n" + junk):
        client.receive(piece)
    assert client.state is State.TLS
    assert client.discarded_octets == len(junk)
    list(iter(client.next_event, None))
    client.tls_started()
    assert not client.extensions.keywords
    client.send_hello()
    client.submit(Transaction(Address("a", "c.example"), (Address("b", "mx.example"),)))
    client.receive(b"250-mx.example\r\n250 PIPELINING\r\n")
    client.receive(b"250 ok\r\n550 no\r\n554 none\r\n")
    return list(iter(client.next_event, None)), client.data_to_send()


@given(octets(TO_CLIENT), SEEDS, st.booleans())
def test_nothing_survives_in_the_client(junk: bytes, seed: int, lmtp: bool) -> None:
    assert client_after(junk, seed, lmtp) == client_after(b"", 0, lmtp)
