"""Targets of the SMTP protocol: command lines, whole sessions, replies."""

import msgspec

from postroom.mail.address import Address, AddressError
from postroom.mail.reply import Reply
from postroom.smtp.client import BodyWanted, ClientConnection
from postroom.smtp.commands import (
    Bdat,
    Hello,
    Mail,
    Rcpt,
    Refused,
    parser,
    response,
)
from postroom.smtp.extensions import Extensions
from postroom.smtp.parameters import MailParams
from postroom.smtp.replies import ReplyReader, wire
from postroom.smtp.settings import ClientSettings, ServerSettings
from postroom.smtp.transaction import (
    Transaction,
    TransactionDone,
    Wish,
    mail_line,
    rcpt_line,
)
from postroom.testing.site import Site

PLAIN = ServerSettings()
ALL = ServerSettings(
    auth_mechanisms=("PLAIN", "LOGIN"),
    bare_names=True,
    etrn=True,
    future_release="always",
    starttls=True,
    verb=True,
    xclient_networks=("127.0.0.1/32",),
)
NONE = ServerSettings(
    binarymime=False,
    chunking=False,
    deliverby=False,
    dsn=False,
    future_release="off",
    mt_priority=False,
    prdr=False,
    requiretls=False,
    smtputf8=False,
)
PARSERS = [
    parser(settings, lmtp=lmtp) for settings in (PLAIN, ALL, NONE) for lmtp in (0, 1)
]
OFFERED = Extensions(
    dict.fromkeys(
        ["SIZE", "8BITMIME", "DSN", "SMTPUTF8", "DELIVERBY", "MT-PRIORITY"], ""
    )
)
# STARTTLS forgets what came with it, and so depends on the cuts; it has a property.
SITE_SETTINGS = msgspec.structs.replace(
    ALL,
    starttls=False,
    message_octets_max=2000,
    data_line_octets_max=300,
    recipients_max=5,
)


def commands(data: bytes) -> None:
    """A command line: no exception, nothing unprintable taken, paths go round."""
    line = data[1:].replace(b"\r\n", b"")
    command = PARSERS[data[0] % len(PARSERS)](line) if data else response(line)
    match command:
        case Refused():
            judge_refusal(command, len(line))
        case Mail(address, params):
            judge_address(address)
            judge_mail(address, params)
        case Rcpt(address, params):
            judge_address(address)
            wish = Wish(params.notify, params.orcpt)
            sent = Transaction(Address("", ""), (address,), wishes=(wish,))
            assert again(rcpt_line(sent, 0, OFFERED)).params == params
        case Hello(_, domain):
            assert domain.isprintable()
            assert len(domain) <= 255
        case Bdat(size_octets=size):
            assert 0 <= size < 10**18


def again(line: str) -> Rcpt:
    """Read what our own client says of a recipient."""
    command = parser(ALL, lmtp=False)(line.encode())
    assert isinstance(command, Rcpt), command
    return command


def judge_refusal(refused: Refused, octets: int) -> None:
    said = wire(refused.reply)
    assert said.isascii()
    assert said.count(b"\r\n") == said.count(b"\n") == said.count(b"\r") == 1
    assert len(said) <= 200
    assert 400 <= refused.reply.code < 600
    assert len(refused.verb) + len(refused.argument) <= min(4 * octets, 4 * 256) + 1


def judge_address(address: Address) -> None:
    text = address.to_text()
    assert text.isprintable()
    assert Address.from_text(text) == address


def judge_mail(address: Address, params: MailParams) -> None:
    """What a client would say for it is read as the same."""
    sent = Transaction(
        address,
        (),
        size_octets=params.size,
        ret=params.ret,
        envid=params.envid,
        utf8=params.smtputf8,
        requiretls=params.requiretls,
        by=params.deliver_by,
        priority=params.priority,
    )
    utf8 = params.smtputf8 or not address.is_ascii
    line = mail_line(sent, OFFERED, utf8=utf8, asks_verdicts=params.prdr)
    back = parser(ALL, lmtp=False)(line.encode())
    assert isinstance(back, Mail), (line, back)
    assert back.address == address
    assert back.params.smtputf8 == utf8
    same = ("size", "ret", "envid", "requiretls", "deliver_by", "priority", "prdr")
    for name in same:
        assert getattr(back.params, name) == getattr(params, name), name


def parameters(data: bytes) -> None:
    """Parameters behind a good path."""
    commands(b"\x02MAIL FROM:<a@b.example> " + data)
    commands(b"\x02RCPT TO:<a@b.example> " + data)


def addresses(data: bytes) -> None:
    """An address: read, written, read."""
    text = data.decode("utf-8", "surrogateescape" if data[:1] == b"!" else "replace")
    try:
        address = Address.from_text(text)
    except AddressError:
        return
    written = address.to_text()
    assert Address.from_text(written) == address
    assert Address.from_text(written).to_text() == written
    assert not any(c in written for c in "\r\n\0\x85\u2028\u2029")
    written.encode()
    assert len(address.local.encode()) <= 64
    assert len(address.domain.encode()) <= 255


def session(data: bytes) -> None:
    """A whole session: however it is cut, the same is said and taken."""
    if len(data) < 2:
        return
    lmtp, size, octets = bool(data[0] & 1), 1 + data[1] % 64, data[2:]
    whole = played([octets], lmtp)
    pieces = [octets[at : at + size] for at in range(0, len(octets), size)]
    assert played(pieces, lmtp) == whole
    said, _ = whole
    # One short reply for each line at the most, and a long one for a hello or HELP.
    assert len(said) <= 1000 + 600 * (octets.count(b"\n") + octets.count(b"A") + 1)


def played(pieces: list[bytes], lmtp: bool) -> tuple[bytes, object]:
    site = Site(SITE_SETTINGS, lmtp=lmtp)
    server = site.connect()
    out = [server.greet(site.greeting)]
    going_on = True
    for piece in [*pieces, b""]:
        server.receive(piece)
        going_on = going_on and site.serve(server)
        out.append(server.data_to_send())
    for message in site.messages:
        pairs = message.content.count(b"\r\n")
        assert len(message.content) <= 2000
        if not site.envelopes or all(e.body != "BINARYMIME" for e in site.envelopes):
            assert message.content.count(b"\n") == message.content.count(b"\r") == pairs
    return b"".join(out), site.messages


def replies(data: bytes) -> None:
    """Lines of a server: replies that can be shown, and said again alike."""
    reader = ReplyReader(20)
    for line in data.split(b"\r\n")[:-1]:
        reply = reader.read(line)
        if isinstance(reply, str):
            assert reply.isprintable()
            return
        if reply is None:
            continue
        assert 100 <= reply.code <= 999
        assert 1 <= len(reply.lines) <= 20
        assert all(text.isprintable() for text in reply.lines)
        assert read_again(reply) == reply
        for value in Extensions.from_reply(reply).keywords.items():
            assert "".join(value).isprintable()
        assert Extensions.from_reply(reply).size_octets_max >= 0


def read_again(reply: Reply) -> Reply | str | None:
    reader = ReplyReader(20)
    found: Reply | str | None = None
    for line in reply.to_wire().split(b"\r\n")[:-1]:
        assert not found
        found = reader.read(line)
    return found


def client(data: bytes) -> None:
    """A server that says anything: each transaction has one result per recipient."""
    if not data:
        return
    size, lmtp = 1 + data[0] % 32, bool(data[0] & 64)
    ours = ClientConnection(
        "c.example", lmtp=lmtp, narrate=True, settings=ClientSettings()
    )
    to = (Address("x", "mx.example"), Address("y", "mx.example"))
    transactions = [
        Transaction(Address("a", "b.example"), to[:n], chunked=n == 1)
        for n in (2, 1, 2)
    ]
    numbers = [ours.submit(one) for one in transactions]
    ours.receive(b"220 hi\r\n")
    ours.send_hello()
    pieces = [data[at : at + size] for at in range(1, len(data), size)]
    events: list[object] = []
    for piece in [b"250-mx\r\n250-CHUNKING\r\n250 PIPELINING\r\n", *pieces, b""]:
        ours.receive(piece)
        for event in iter(ours.next_event, None):
            events.append(event)
            if isinstance(event, BodyWanted):
                ours.send_body(b"x")
                ours.end_body()
        said = ours.data_to_send()
        assert said.count(b"\n") == said.count(b"\r") == said.count(b"\r\n")
    done = [event for event in events if isinstance(event, TransactionDone)]
    assert [one.number for one in done] == numbers
    for one, transaction in zip(done, transactions, strict=True):
        assert len(one.results) == len(transaction.recipients)
    assert ours.is_closed
