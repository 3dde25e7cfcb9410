"""Sends real messages through two whole hosts and compares what comes out.

SMTP in at ``gonzo.test``, queue, MX, SMTP out to ``whizzer.test``, Maildir, POP3: apart
from the trace fields in front each message must come out byte for byte as it went in.

As a program, ``python -m postroom.testing.real_mail DIRECTORY``, it does so with every
message of the unpacked corpus (``make corpus``), names each difference, and ends with 1
if there is any.
"""

import argparse
import poplib
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.progress import Progress

from postroom.testing.caller import Caller, stuffed
from postroom.testing.corpus import RealMessage, read_directory, without_trace
from postroom.testing.host import Host, HostError
from postroom.testing.ledger import mail_of
from postroom.testing.world import World, until

SENDER = "list@lists.example"
BATCH = 200
POP3_LINE_OCTETS_MAX = 1 << 20
_OUR_ID = re.compile(rb"by gonzo\.test.*?id (\w+)", re.DOTALL)

Done = Callable[[int], object]


class RealMail:
    """Two hosts, and what is sent from the one to the other.

    Args:
        world: where both are, ``gonzo.test`` as 1 and ``whizzer.test`` as 2.
        gonzo: the one that is handed the messages.
        whizzer: the one with joe's mailbox.
    """

    def __init__(self, world: World, gonzo: Host, whizzer: Host) -> None:
        self._world = world
        self._gonzo, self._whizzer = gonzo, whizzer

    def differences(
        self, messages: Sequence[RealMessage], done: Done = lambda _: None
    ) -> list[str]:
        """Send all; returns what differs, one line for each message that does.

        ``done`` is told how many more messages have been compared.

        Raises:
            AssertionError: one is refused, or does not arrive in time.
        """
        wrong = []
        for start in range(0, len(messages), BATCH):
            batch = messages[start : start + BATCH]
            taken = self.hand_in(batch)
            self._await(len(batch))
            wrong += compare(taken, self.fetch())
            done(len(batch))
        return wrong

    def hand_in(self, messages: Sequence[RealMessage]) -> dict[str, RealMessage]:
        """Send messages over one connection; returns them by queue id."""
        taken = {}
        with Caller(self._world.ip(1), self._world.smtp_port) as caller:
            caller.hello()
            for message in messages:
                caller.send(
                    f"MAIL FROM:<{SENDER}> BODY=8BITMIME"
                    f" SIZE={len(message.content)}\r\n"
                    "RCPT TO:<joe@whizzer.test>\r\nDATA\r\n".encode()
                )
                said = [caller.reply().code for _ in range(3)]
                assert said == [250, 250, 354], f"{message.name}: {said}"
                caller.send(stuffed(message.content))
                reply = caller.reply()
                assert reply.code == 250, f"{message.name}: {reply}"
                taken[reply.text.split()[1]] = message
            caller.ask("QUIT")
        return taken

    def fetch(self) -> list[bytes]:
        """Fetch all of joe's mail by POP3, and delete it."""
        poplib._MAXLINE = POP3_LINE_OCTETS_MAX  # type: ignore[attr-defined]
        box = poplib.POP3(self._world.ip(2), self._world.pop3_port, timeout=30)
        box.user("joe")
        box.pass_("joe-secret")
        count, _ = box.stat()
        found = []
        for number in range(1, count + 1):
            found.append(b"\r\n".join([*box.retr(number)[1], b""]))
            box.dele(number)
        box.quit()
        return found

    def _await(self, count: int) -> None:
        until(
            f"{count} messages",
            lambda: len(mail_of(self._whizzer, "joe")) >= count,
            self._gonzo,
            60,
        )


def compare(taken: dict[str, RealMessage], fetched: Sequence[bytes]) -> list[str]:
    """Compare what was sent with what was fetched; returns what differs."""
    wrong = []
    missing = dict(taken)
    for content in fetched:
        found = _OUR_ID.search(content)
        message = missing.pop(found[1].decode(), None) if found else None
        if message is None:
            wrong.append(f"a message that was never sent, or twice: {content[:80]!r}")
            continue
        try:
            same = without_trace(content, hops=2) == message.content
        except ValueError as error:
            wrong.append(f"{message.name}: {error}")
        else:
            if not same:
                wrong.append(f"{message.name}: differs")
    return wrong + [f"{message.name}: did not arrive" for message in missing.values()]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run as a program; returns the exit status."""
    parser = argparse.ArgumentParser(prog="real_mail", description=__doc__)
    parser.add_argument("directory", type=Path, help="the unpacked corpus")
    options = parser.parse_args(arguments)
    try:
        messages = list(read_directory(options.directory))
        with World() as world, Progress() as progress:
            world.name("gonzo.test", 1)
            world.name("whizzer.test", 2)
            gonzo = world.host("gonzo.test", 1)
            whizzer = world.host("whizzer.test", 2)
            with gonzo, whizzer:
                task = progress.add_task("messages", total=len(messages))
                mail = RealMail(world, gonzo, whizzer)
                wrong = mail.differences(
                    messages, lambda count: progress.advance(task, count)
                )
    except (OSError, HostError, AssertionError) as error:
        print(f"real_mail: {error}", file=sys.stderr)
        return 1
    for line in wrong:
        print(line, file=sys.stderr)
    print(f"{len(messages) - len(wrong)} of {len(messages)} came out as they went in")
    return 1 if wrong or not messages else 0


if __name__ == "__main__":
    sys.exit(main())
