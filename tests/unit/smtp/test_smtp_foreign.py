"""Other protocols are dropped at their first octets, SMTP never is."""

import pytest

from postroom.smtp import replies
from postroom.smtp.dialogue import COMMANDS, Verb
from postroom.smtp.foreign import foreign_protocol
from postroom.smtp.server import Closed, ServerConnection, TooManyErrors
from postroom.smtp.settings import ServerSettings

FOREIGN = {
    "a browser": (b"GET / HTTP/1.1\r\nHost: mx.example\r\n", "http"),
    "a form": (b"POST /cgi HTTP/1.0\r\n\r\nHELO x\r\nMAIL FROM:<a@b>\r\n", "http"),
    "a proxy": (b"CONNECT mx.example:25 HTTP/1.1\r\n", "http"),
    "HTTP in lower case": (b"get / http/1.1\r\n", "http"),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "http"),
    "WebDAV": (b"PROPFIND / HTTP/1.1\r\n", "http"),
    "options of HTTP": (b"OPTIONS / HTTP/1.0\r\n", "http"),
    "options of a host": (b"OPTIONS * HTTP/1.0\r\n", "http"),
    "options of SIP": (b"OPTIONS sip:nm SIP/2.0\r\nVia: SIP/2.0/TCP nm\r\n", "sip"),
    "a call": (b"INVITE sip:100@192.0.2.1 SIP/2.0\r\n", "sip"),
    "a safe call": (b"REGISTER sips:example.org SIP/2.0\r\n", "sip"),
    "a film": (b"DESCRIBE rtsp://192.0.2.1/ RTSP/1.0\r\n", "rtsp"),
    "options of RTSP": (b"OPTIONS rtsp://192.0.2.1/ RTSP/1.0\r\n", "rtsp"),
    "a shell": (b"SSH-2.0-Go\r\n", "ssh"),
    "a screen": (b"RFB 003.008\n", "vnc"),
    "Redis": (b"*1\r\n$4\r\nPING\r\n", "redis"),
    "XML": (b"<?xml version='1.0'?><stream:stream>", "xml"),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "tls"),
    "TLS, one octet": (b"\x16", "tls"),
    "SSL 2": (b"\x80\x2e\x01\x00\x02", "tls"),
    "RDP": (b"\x03\x00\x00\x13\x0e\xe0\x00\x00", "rdp"),
    "SOCKS 4": (b"\x04\x01\x00\x19\xc0\x00\x02\x01\x00", "socks"),
    "SOCKS 5": (b"\x05\x01\x00", "socks"),
    "SMB": (b"\x00\x00\x00\x85\xffSMB", "binary"),
    "DNS": (b"\x00\x1e\x00\x06\x01\x00", "binary"),
    "escapes": (b"\x1b[2J\r\n", "binary"),
}

MAIL = {
    "a command": b"EHLO client.example\r\n",
    "an unknown command": b"GETS / HTTP/1.1\r\n",
    "a word that begins so": b"GETTING\r\n",
    "a method and no more": b"GET\r\n",
    "an empty line": b"\r\n",
    "a line feed": b"\nEHLO c\r\n",
    "8-bit text": b"\xc3\xa4\r\n",
    "sip elsewhere": b"EHLO sip.example\r\n",
    "an address": b"MAIL FROM:<sip:a@example.org>\r\n",
    "nothing": b"",
}


def greeted() -> ServerConnection:
    server = ServerConnection(ServerSettings(), "mx.example")
    server.greet(replies.greeting("mx.example"))
    return server


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("piece", [1, 2, 3, 5, 1000])
def test_whatever_is_foreign_is_dropped_however_it_arrives(
    name: str, piece: int
) -> None:
    octets, protocol = FOREIGN[name]
    server = greeted()
    events = []
    for at in range(0, len(octets), piece):
        server.receive(octets[at : at + piece])
        while (event := server.next_event()) is not None:
            events.append(event)
    assert [type(event) for event in events] == [TooManyErrors, Closed]
    assert isinstance(events[0], TooManyErrors)
    assert events[0].rule == f"foreign-{protocol}"
    assert len(events[0].argument) <= 64
    said = b"421 4.7.0 This is a mail server; closing connection\r\n"
    assert server.data_to_send() == said


@pytest.mark.parametrize("name", MAIL)
def test_what_may_be_mail_is_not_foreign(name: str) -> None:
    assert foreign_protocol(MAIL[name]) == ""


@pytest.mark.parametrize("verb", COMMANDS)
def test_no_command_is_foreign(verb: str) -> None:
    for line in (f"{verb}\r\n", f"{verb} <sip:a>\r\n", f"{verb.lower()} / x\r\n"):
        assert foreign_protocol(line.encode()) == ""


@pytest.mark.parametrize("name", FOREIGN)
def test_behind_the_hello_it_is_only_a_bad_command(name: str) -> None:
    octets, _ = FOREIGN[name]
    server = greeted()
    server.receive(b"EHLO c.example\r\n")
    server.next_event()
    server.reply(server.hello_reply(Verb.EHLO))
    server.receive(octets.split(b"\r\n")[0] + b"\r\n")
    event = server.next_event()
    assert not isinstance(event, TooManyErrors)
