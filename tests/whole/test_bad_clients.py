"""What clients get wrong, or try on: a clear reply each, and nothing lost.

The fixture ``ledger`` sends a good letter after each test and looks for it.
"""

import asyncio
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from postroom.testing.caller import Caller, Said, stuffed
from postroom.testing.host import Host
from postroom.testing.ledger import Ledger, Load, letter, mail_of
from postroom.testing.world import World, until

MAIL = "MAIL FROM:<client@ledger.example>"
RCPT = "RCPT TO:<betty@gonzo.test>"
VERBS = {
    "EHLO": "EHLO client.example",
    "HELO": "HELO client.example",
    "MAIL": MAIL,
    "RCPT": RCPT,
    "DATA": "DATA",
    "RSET": "RSET",
    "NOOP": "NOOP",
    "VRFY": "VRFY betty",
    "HELP": "HELP",
}


@pytest.fixture
def client(world: World, gonzo: Host, ledger: Ledger) -> Iterator[Caller]:
    """A client that has said nothing yet."""
    with Caller(world.ip(1), world.smtp_port) as caller:
        assert caller.reply().code == 220
        yield caller


@pytest.fixture
def greeted(client: Caller) -> Caller:
    assert client.ask("EHLO client.example").code == 250
    return client


def send(caller: Caller, content: bytes, *recipients: str) -> Said:
    return caller.give(
        "client@ledger.example", [*recipients] or ["betty@gonzo.test"], content
    )


@dataclass
class Dialogue:
    """What a server must keep in mind, in the plainest form."""

    hello: bool = False
    mail: bool = False
    recipients: int = 0

    def expects(self, verb: str) -> set[int]:
        match verb:
            case "EHLO" | "HELO":
                self.hello, self.mail, self.recipients = True, False, 0
                return {250}
            case "RSET":
                self.mail, self.recipients = False, 0
                return {250}
            case "MAIL":
                if not self.hello or self.mail:
                    return {503}
                self.mail = True
                return {250}
            case "RCPT":
                if not self.mail:
                    return {503}
                self.recipients += 1
                return {250}
            case "DATA":
                return {354} if self.recipients else {503, 554}
            case _:
                return {250, 252, 214}


def test_every_verb_out_of_order(world: World, gonzo: Host, ledger: Ledger) -> None:
    """Every sequence of three verbs, and what is right must still work behind it."""
    for number, verbs in enumerate(itertools.product(VERBS, repeat=3)):
        if number % 15 == 0:  # before there are too many errors
            caller = Caller(world.ip(1), world.smtp_port)
            assert caller.reply().code == 220
            dialogue = Dialogue()
        for verb in verbs:
            said = caller.ask(VERBS[verb])
            assert said.code in dialogue.expects(verb), (verbs, verb, said)
            if said.code == 354:
                caller.send(b".\r\n")
                assert caller.reply().code == 250
                dialogue.mail, dialogue.recipients = False, 0
        if number % 15 == 14 or number == len(VERBS) ** 3 - 1:
            assert caller.ask("EHLO x.example").code == 250
            assert send(caller, letter(f"order{number}")).code == 250
            ledger.promise(f"order{number}", ["betty@gonzo.test"])
            assert caller.ask("QUIT").code == 221
            caller.close()


def test_a_command_line_that_is_too_long(greeted: Caller) -> None:
    assert str(greeted.ask(f"NOOP {'x' * 3000}")) == "500 5.5.2 Line too long"
    assert greeted.ask(f"RCPT TO:<{'x' * 100_000}@gonzo.test>").code == 500
    assert greeted.ask("NOOP").code == 250


def test_a_line_without_end_does_not_fill_the_memory(greeted: Caller) -> None:
    try:
        for _ in range(20):
            greeted.send(b"x" * (1 << 20))
    except OSError:
        return  # hung up on, which is as good
    greeted.send(b"\r\n")
    assert greeted.reply().code == 500
    assert greeted.ask("NOOP").code == 250


def test_a_text_line_over_the_limit(greeted: Caller, ledger: Ledger) -> None:
    long = b"Subject: x\r\n\r\n" + b"x" * (64 * 1024 + 1) + b"\r\n"
    assert str(send(greeted, long)).startswith("554 5.6.0 ")
    longest = letter("longest") + b"x" * (64 * 1024) + b"\r\n"
    assert send(greeted, longest).code == 250
    ledger.promise("longest", ["betty@gonzo.test"])


@pytest.mark.parametrize(
    "line_end", [b"\r.\r", b"\n.\n", b"\r\n.\n", b"\n.\r\n", b"\r.\r\n"]
)
def test_smuggling(
    greeted: Caller, ledger: Ledger, gonzo: Host, line_end: bytes
) -> None:
    hidden = letter("smuggled")
    inner = b"MAIL FROM:<a@b.example>\r\nRCPT TO:<betty@gonzo.test>\r\nDATA\r\n"
    said = send(greeted, letter("outer") + b"x" + line_end + inner + hidden)
    assert str(said).startswith("550 5.6.11 ")
    assert greeted.ask("NOOP").code == 250
    assert not any(b"smuggled" in content for content in mail_of(gonzo, "betty"))


def test_a_message_that_says_it_is_too_large(greeted: Caller) -> None:
    said = greeted.ask(f"{MAIL} SIZE={(1 << 20) + 1}")
    assert str(said).startswith("552 5.3.4 ")
    assert greeted.ask(RCPT).code == 503
    assert greeted.ask(f"{MAIL} SIZE=99999999999999999999999").code in (501, 552)


def test_a_message_that_turns_out_too_large(greeted: Caller, gonzo: Host) -> None:
    for said_octets in ("", " SIZE=100"):
        assert greeted.ask(MAIL + said_octets).code == 250
        assert greeted.ask(RCPT).code == 250
        assert greeted.ask("DATA").code == 354
        greeted.send(stuffed(letter("too-large", 3 << 20)))
        assert str(greeted.reply()).startswith("552 5.3.4 ")
    assert not any(b"too-large" in content for content in mail_of(gonzo, "betty"))


@pytest.mark.parametrize(
    "command",
    [
        b"NO\0OP",
        b"\0",
        b"MAIL FROM:<a\0b@ledger.example>",
        b"MAIL FROM:<\xffx@ledger.example>",
        b"EHLO \x80\x81",
        b"\xfe\xff\xfd",
        "MAIL FROM:<jürgen@ledger.example>".encode(),
        b"NOOP \x1b[2J",
    ],
)
def test_nul_and_8_bit_in_commands(greeted: Caller, command: bytes) -> None:
    said = greeted.ask(command)
    assert 500 <= said.code <= 553
    assert said.text.isascii()
    assert said.text.isprintable()
    assert greeted.ask("NOOP").code == 250


def test_nul_and_8_bit_in_content_pass(
    greeted: Caller, ledger: Ledger, gonzo: Host
) -> None:
    content = letter("odd-octets") + bytes(set(range(256)) - {10, 13}) + b"\r\n"
    assert send(greeted, content).code == 250
    ledger.promise("odd-octets", ["betty@gonzo.test"])
    until(
        "the message",
        lambda: any(content in one for one in mail_of(gonzo, "betty")),
        gonzo,
    )


def test_garbage_ahead_in_a_pipeline(greeted: Caller) -> None:
    """Each bad line has its own reply, and then the server has had enough."""
    greeted.send(b"".join(b"\x01garbage %d\r\n" % n for n in range(1000)))
    codes: list[int] = []
    while codes[-1:] != [421]:
        codes.append(greeted.reply().code)
    assert codes == [500] * 20 + [421]
    assert greeted.is_hung_up()


def test_a_browser(client: Caller) -> None:
    client.send(b"POST / HTTP/1.1\r\nHost: x\r\n\r\nMAIL FROM:<a@b.example>\r\n")
    assert client.reply().code in (421, 500)


def test_a_message_pipelined_behind_garbage(
    client: Caller, ledger: Ledger, gonzo: Host
) -> None:
    """A transaction whose recipients were refused takes no content."""
    client.send(
        b"EHLO x.example\r\nMAIL FROM:<client@ledger.example>\r\n"
        b"RCPT TO:<nobody-here@gonzo.test>\r\nDATA\r\nQUIT\r\n"
    )
    codes = [client.reply().code for _ in range(5)]
    assert codes == [250, 250, 550, 554, 221]


@pytest.mark.parametrize("ending", [b"", b"half a line", b"a line\r\n.\r", b"\r\n"])
def test_a_client_that_vanishes_in_data(
    greeted: Caller, gonzo: Host, ending: bytes
) -> None:
    def lost() -> int:
        return gonzo.log.count("lost input channel")

    before = lost()
    for command in (MAIL, RCPT, "DATA"):
        greeted.ask(command)
    greeted.send(letter("vanished", 300_000) + ending)
    greeted.close()
    until("the session's end", lambda: lost() > before, gonzo)
    assert not any(b"vanished" in content for content in mail_of(gonzo, "betty"))


def test_ten_thousand_recipients(
    world: World, gonzo: Host, greeted: Caller, ledger: Ledger
) -> None:
    assert greeted.ask(MAIL).code == 250
    names = [f"betty+{n}@gonzo.test" for n in range(10_001)]
    for start in range(0, len(names), 500):
        batch = names[start : start + 500]
        greeted.send(b"".join(b"RCPT TO:<%s>\r\n" % one.encode() for one in batch))
        for one in batch:
            said = greeted.reply()
            assert said.code == 250 or one == names[-1], (one, said)
    assert str(said).startswith("452 4.5.3 ")
    assert greeted.ask("DATA").code == 354
    greeted.send(stuffed(letter("to-all")))
    assert greeted.reply().code == 250

    def count() -> int:
        new = gonzo.directory / "mail/betty/new"  # made with the first letter
        return sum(1 for _ in new.iterdir()) if new.exists() else 0

    before = sum(b"X-Ledger: to-all" not in one for one in mail_of(gonzo, "betty"))
    until("10,000 copies", lambda: count() >= before + 10_000, gonzo, 100)
    copies = [one for one in mail_of(gonzo, "betty") if b"Ledger: to-all" in one]
    for path in (gonzo.directory / "mail/betty/new").iterdir():
        path.unlink()  # they would slow down what follows
    assert len(copies) == 10_000
    targets = {one.split(b"Delivered-To: ")[1].split(b"\r\n")[0] for one in copies}
    assert targets == {name.encode() for name in names[:-1]}


RELAYING = [
    "joe%whizzer.test@gonzo.test",
    "whizzer.test!joe@gonzo.test",
    '"joe@whizzer.test"@gonzo.test',
    '"joe%whizzer.test"@gonzo.test',
    "@gonzo.test:joe@whizzer.test",
    "@gonzo.test,@x.example:joe@whizzer.test",
    "joe@whizzer.test",
    "joe@whizzer.test@gonzo.test",
    "joe@[127.0.5.2]",
    "joe@whizzer.test.",
    "joe%whizzer.test@[127.0.5.1]",
]


@pytest.mark.parametrize("recipient", RELAYING)
def test_spellings_that_try_to_relay(
    world: World, gonzo: Host, ledger: Ledger, recipient: str
) -> None:
    with Caller(world.ip(1), world.smtp_port, source_ip=world.ip(200)) as caller:
        caller.hello()
        assert caller.ask("MAIL FROM:<a@b.example>").code == 250
        said = caller.ask(f"RCPT TO:<{recipient}>")
        assert said.code in (501, 550, 553), said
        assert caller.ask("DATA").code in (503, 554)


def test_good_recipients_of_a_stranger(
    world: World, gonzo: Host, ledger: Ledger
) -> None:
    with Caller(world.ip(1), world.smtp_port, source_ip=world.ip(200)) as caller:
        caller.hello()
        assert caller.ask("MAIL FROM:<a@b.example>").code == 250
        for recipient in (
            *("betty@gonzo.test", "BETTY@GONZO.TEST", "betty@[127.0.5.1]"),
            *("postmaster", "Postmaster@gonzo.test", "@gonzo.test:betty@gonzo.test"),
        ):
            assert caller.ask(f"RCPT TO:<{recipient}>").code == 250, recipient


def test_many_at_once(world: World, gonzo: Host, ledger: Ledger) -> None:
    """Over the bound for one address clients are told so, the others are served."""
    callers = [Caller(world.ip(1), world.smtp_port) for _ in range(110)]
    try:
        greetings = [caller.reply() for caller in callers]
    finally:
        for caller in callers:
            caller.close()
    codes = [said.code for said in greetings]
    assert codes.count(220) == 100
    assert codes.count(421) == 10
    until("room", lambda: _has_room(world), gonzo)


def _has_room(world: World) -> bool:
    with Caller(world.ip(1), world.smtp_port) as caller:
        return caller.reply().code == 220


def test_load_is_all_delivered(world: World, gonzo: Host, ledger: Ledger) -> None:
    load = Load(ledger, world.ip(1), world.smtp_port)
    ids = [f"load{n}" for n in range(200)]
    asyncio.run(load.send(ids, ["betty@gonzo.test", "joe@whizzer.test"], clients=8))
    assert len(ledger.promised) == 400
